"""Kernel filters: wide enough for every process that could match, never without executable and uid."""

import os
from pathlib import Path

import pytest

from control.binding.compile import FilterPlan, filters, filters_of, ports
from control.binding.compile_io import LocatedFilter, plan
from control.binding.model import Binding, Destination, OciSigner, ResourceSet
from control.errors import ResourceError
from control.facts.path_io import file_id
from control.identity.model import Identity, Selector
from control.reason import Reason
from control.units import Revision


def identity(name: str, *groups: dict[str, tuple[str, ...]]) -> Identity:
    """An identity with these selector groups."""
    return Identity(name, f"spiffe://t/{name}", "prod", tuple(tuple(Selector(k, v) for k, v in group.items()) for group in groups))


def binding(name: str, of: str, *, down: str = "refuse", port: int = 443) -> Binding:
    """A binding of an identity."""
    return Binding(name, of, "s", (Destination(("a.example",), (port,)),), OciSigner(), on_daemon_down=down)  # type: ignore[arg-type]


def test_every_combination_of_values_is_a_filter() -> None:
    """Two executables and two uids make four; a digest makes none but leaves the others."""
    by_file = {"unix:uid": ("1", "2"), "unix:exe:path": ("/a", "/b"), "unix:exe:sha256": ("c" * 64,)}
    made = filters_of(identity("i", by_file, {"unix:uid": ("3",), "script:path": ("/s",)}), direct_when_down=False)
    assert set(made) == {FilterPlan(exe, uid, None, False) for exe in ("/a", "/b") for uid in (1, 2)} | {FilterPlan(None, 3, "/s", False)}


@pytest.mark.parametrize("group", [{"unix:exe:sha256": ("a" * 64,)}, {"script:path": ("/s",)}, {}])
def test_what_the_kernel_cannot_tell_apart_is_refused(group: dict[str, tuple[str, ...]]) -> None:
    """A digest or a script alone, or nothing, would be every process."""
    with pytest.raises(ResourceError) as caught:
        filters_of(identity("i", group), direct_when_down=False)
    assert caught.value.reason is Reason.RESOURCE_UNCOMPILABLE


def test_too_many_combinations_are_refused() -> None:
    """64 x 64 would fill the kernel's table."""
    many = tuple(str(n) for n in range(64))
    with pytest.raises(ResourceError, match="more than 1024"):
        filters_of(identity("i", {"unix:uid": many, "unix:exe:path": tuple(f"/{n}" for n in many)}), direct_when_down=False)


def test_an_identity_without_a_binding_makes_no_filter() -> None:
    """Nothing is bound, so nobody is looked at."""
    assert filters([identity("i", {"unix:uid": ("1",)})], []) == []


def test_direct_when_down_needs_every_binding_and_identity_of_the_filter() -> None:
    """One that says refuse closes it."""
    one, two = identity("one", {"unix:uid": ("1",)}), identity("two", {"unix:uid": ("1",)})
    assert filters([one], [binding("a", "one", down="direct")]) == [FilterPlan(None, 1, None, True)]
    assert filters([one], [binding("a", "one", down="direct"), binding("b", "one")]) == [FilterPlan(None, 1, None, False)]
    assert filters([one, two], [binding("a", "one", down="direct"), binding("b", "two")]) == [FilterPlan(None, 1, None, False)]


def test_ports_are_those_of_all_bindings() -> None:
    """Each once."""
    assert ports([binding("a", "i"), binding("b", "i", port=8443), binding("c", "i")]) == {443, 8443}


def resources(path: str, script: str | None = None) -> ResourceSet:
    """A set with one identity by executable, and maybe script."""
    group = {"unix:uid": ("1",), "unix:exe:path": (path,)} | ({"script:path": (script,)} if script else {})
    return ResourceSet(Revision(1), "", (identity("i", group),), (), (binding("b", "i"),), {})


def test_an_executable_becomes_its_file() -> None:
    """Device in the kernel's encoding and inode, of a file that is root's: no warning."""
    real = os.path.realpath("/usr/bin/env")
    file = file_id(Path(real).stat())
    assert plan(resources(real)) == ([LocatedFilter((file.dev, file.ino), 1, None, False)], [])


def test_a_link_is_filtered_by_its_file_and_warned_of(tmp_path: Path) -> None:
    """The kernel reports the file behind, so the identity would never match."""
    (tmp_path / "tool").write_text("x")
    (tmp_path / "link").symlink_to("tool")
    file = file_id((tmp_path / "tool").stat())
    located, (warning,) = plan(resources(str(tmp_path / "link")))
    assert located[0].exe == (file.dev, file.ino)
    assert "is a link to" in warning.message
    assert warning.hint == f"write unix:exe:path: {tmp_path / 'tool'}"


def test_a_missing_executable_makes_no_filter_and_a_warning(tmp_path: Path) -> None:
    """Nothing can run it."""
    located, (warning,) = plan(resources(str(tmp_path / "none")))
    assert located == []
    assert "is not there" in warning.message


def test_files_that_others_may_change_are_warned_of(tmp_path: Path) -> None:
    """Attestation would refuse them; scripts as well."""
    tool = tmp_path / "tool"
    tool.write_text("x")
    tool.chmod(0o777)
    located, warnings = plan(resources(str(tool), str(tool) + "x"))
    assert len(located) == 1
    assert ["will be refused" in w.message for w in warnings].count(True) == 1
    assert ["is not there" in w.message for w in warnings].count(True) == 1
