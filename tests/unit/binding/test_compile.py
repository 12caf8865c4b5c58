"""Kernel filters: wide enough for every process that could match, never without executable and uid."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control.binding import compile_io
from control.binding.compile import FilterPlan, compiled, filters, filters_of, ports
from control.binding.compile_io import LocatedFilter, named, plan
from control.binding.model import Binding, Destination, OciSigner, ResourceSet
from control.errors import ResourceError
from control.facts.model import Facts, FileId, PackageFact, PathFact, ProcessKey
from control.facts.package_io import Executables, Packages
from control.facts.path_io import file_id
from control.identity.account import Accounts, resolve
from control.identity.match import identify
from control.identity.model import Identity, Selector
from control.reason import Reason
from control.units import ExecId, Gid, Pid, Revision, StartNs, Uid


def identity(name: str, *groups: dict[str, tuple[str, ...]]) -> Identity:
    """An identity with these selector groups."""
    return Identity(name, f"spiffe://t/{name}", "prod", tuple(tuple(Selector(k, v) for k, v in group.items()) for group in groups))


def binding(name: str, of: str, *, down: str = "refuse", port: int = 443, mode: str = "enforce") -> Binding:
    """A binding of an identity."""
    places = (Destination(("a.example",), (port,)),)
    return Binding(name, of, "s", places, OciSigner(), mode=mode, on_daemon_down=down)  # type: ignore[arg-type]


def test_every_combination_of_values_is_a_filter() -> None:
    """Two executables and two uids make four; a digest makes none but leaves the others."""
    by_file = {"unix:uid": ("1", "2"), "unix:exe:path": ("/a", "/b"), "unix:exe:sha256": ("c" * 64,)}
    made = filters_of(identity("i", by_file, {"unix:uid": ("3",), "script:path": ("/s",)}), direct_when_down=False)
    assert set(made) == {FilterPlan(exe, uid, None, False) for exe in ("/a", "/b") for uid in (1, 2)} | {FilterPlan(None, 3, "/s", False)}


@pytest.mark.parametrize(
    "group",
    [
        {"unix:exe:sha256": ("a" * 64,)},
        {"script:path": ("/s",)},
        {"script:path": ("/s",), "script:sha256": ("a" * 64,)},
        {"unix:gid": ("1",)},
        {"unix:group": ("ops",), "unix:exe:sha256": ("a" * 64,)},
        {},
    ],
)
def test_what_the_kernel_cannot_tell_apart_is_refused(group: dict[str, tuple[str, ...]]) -> None:
    """A digest, a script or a group alone, or nothing, would be every process."""
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


def test_an_identity_that_is_only_observed_has_filters_that_say_so() -> None:
    """All of its bindings observe: looked at only, and direct when nobody looks.  One that enforces ends both."""
    one, two = identity("one", {"unix:uid": ("1",)}), identity("two", {"unix:uid": ("1",)})
    watch, force = binding("a", "one", mode="observe"), binding("b", "one")
    assert filters([one], [watch]) == [FilterPlan(None, 1, None, True, True)]
    assert filters([one], [watch, force]) == [FilterPlan(None, 1, None, False, False)]
    assert filters([one], [watch, binding("b", "one", down="direct")]) == [FilterPlan(None, 1, None, True, False)]
    assert filters([one, two], [watch, binding("c", "two")]) == [FilterPlan(None, 1, None, False, False)]
    assert filters([one, two], [watch, binding("c", "two", mode="observe")]) == [FilterPlan(None, 1, None, True, True)]


def test_a_users_name_becomes_its_number_and_an_unknown_one_nothing() -> None:
    """Before anybody looked there is no filter either; beside unix:uid only what both say."""
    (known,) = resolve([identity("i", {"unix:user": ("svc", "none")})], Accounts({"svc": 1001}, {}))
    assert filters_of(known, direct_when_down=False) == [FilterPlan(None, 1001, None, False)]
    assert filters_of(identity("i", {"unix:user": ("svc",)}), direct_when_down=False) == []
    (both,) = resolve([identity("i", {"unix:user": ("svc", "other"), "unix:uid": ("1001", "7")})], Accounts({"svc": 1001, "other": 9}, {}))
    assert filters_of(both, direct_when_down=False) == [FilterPlan(None, 1001, None, False)]


def test_a_package_becomes_its_programs() -> None:
    """Without interpreters and relays, unless a script is named; a path beside it is narrower."""
    has = {"p": ("/usr/bin/tool", "/usr/bin/python3.11", "/usr/bin/ssh"), "q": ("/usr/bin/tool", "/usr/bin/more")}

    def of(group: dict[str, tuple[str, ...]]) -> list[str | None]:
        return [made.exe_path for made in filters_of(identity("i", group), direct_when_down=False, packages=has)]

    assert of({"unix:exe:package": ("p",)}) == ["/usr/bin/tool"]
    assert of({"unix:exe:package": ("p", "q", "gone")}) == ["/usr/bin/tool", "/usr/bin/more"]
    assert of({"unix:exe:package": ("p",), "script:path": ("/s",)}) == ["/usr/bin/tool", "/usr/bin/python3.11"]
    assert of({"unix:exe:package": ("p",), "unix:exe:path": ("/usr/bin/tool",)}) == ["/usr/bin/tool"]
    assert of({"unix:exe:package": ("gone",)}) == []


_PATHS = ("/usr/bin/curl", "/usr/bin/tool", "/usr/bin/python3.11", "/usr/bin/ssh")
_SCRIPTS = ("/opt/a", "/opt/b")
_SUMS = ("a" * 64, "b" * 64)
_VALUES = {
    "unix:uid": ("0", "1", "2"),
    "unix:user": ("root", "one", "two", "nobody-has"),
    "unix:gid": ("1", "2"),
    "unix:group": ("one", "nobody-has"),
    "unix:exe:path": _PATHS,
    "unix:exe:package": ("p", "q", "q:amd64", "gone"),
    "unix:exe:sha256": _SUMS,
    "script:path": _SCRIPTS,
    "script:sha256": _SUMS,
}
_KINDS = st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=4, unique=True)
_GROUPS = _KINDS.flatmap(
    lambda kinds: st.fixed_dictionaries(
        {kind: st.lists(st.sampled_from(_VALUES[kind]), min_size=2, max_size=3, unique=True).map(tuple) for kind in kinds}
    )
)
_HAS = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(_PATHS), min_size=1, unique=True).map(tuple) for name in ("p", "q", "q:amd64")}
)
_NUMBERS = st.fixed_dictionaries({}, optional={name: st.integers(0, 2) for name in ("root", "one", "two")})


@settings(max_examples=400, deadline=None)
@example(
    groups=[{"unix:exe:package": ("p",), "script:path": ("/opt/a",)}],
    has={"p": ("/usr/bin/python3.11",)},
    accounts=Accounts({}, {}),
    allow_root=False,
    uid=1,
    gid=1,
    exe="/usr/bin/python3.11",
    script="/opt/a",
    sums=_SUMS,
)
@given(
    groups=st.lists(_GROUPS, min_size=1, max_size=3),
    has=_HAS,
    accounts=st.builds(Accounts, _NUMBERS, _NUMBERS),
    allow_root=st.booleans(),
    uid=st.integers(0, 2),
    gid=st.integers(0, 2),
    exe=st.sampled_from(_PATHS),
    script=st.sampled_from((None, *_SCRIPTS)),
    sums=st.tuples(st.sampled_from(_SUMS), st.sampled_from(_SUMS)),
)
def test_every_process_that_is_somebody_is_filtered(
    *,
    groups: list[dict[str, tuple[str, ...]]],
    has: dict[str, tuple[str, ...]],
    accounts: Accounts,
    allow_root: bool,
    uid: int,
    gid: int,
    exe: str,
    script: str | None,
    sums: tuple[str, str],
) -> None:
    """
    Whatever selectors stand together and whatever the machine has: whom identify accepts, some filter takes.

    The first object also names what the process has, so that it is often accepted.
    """
    own = {
        "unix:uid": [str(uid)],
        "unix:user": [name for name, number in accounts.users.items() if number == uid],
        "unix:gid": [str(gid)],
        "unix:group": [name for name, number in accounts.groups.items() if number == gid],
        "unix:exe:path": [exe],
        "unix:exe:package": [name for name, paths in has.items() if exe in paths],
        "unix:exe:sha256": [sums[0]],
        "script:path": [script] if script else [],
        "script:sha256": [sums[1]],
    }
    groups[0] = {kind: tuple(dict.fromkeys((*values, *own[kind]))) for kind, values in groups[0].items()}
    wanted = Identity("i", "spiffe://t/i", "prod", identity("i", *groups).selectors, allow_root=allow_root)
    (wanted,) = resolve([wanted], accounts)
    try:
        plans = filters_of(wanted, direct_when_down=False, packages=has)
    except ResourceError:
        return
    asked = Facts(
        ProcessKey(Pid(7), StartNs(1), ExecId(1)),
        Uid(uid),
        Gid(gid),
        PathFact(exe, FileId(1, 2), True),
        sums[0],
        PathFact(script, FileId(1, 3), True) if script else None,
        False,
        exe_md5="0" * 32,
        packages=tuple(PackageFact(name, "0" * 32) for name, paths in has.items() if exe in paths),
        script_sha256=sums[1] if script else None,
    )
    if identify(asked, [wanted]) == wanted:
        assert any(p.exe_path in (None, exe) and p.uid in (None, uid) and p.script in (None, script) for p in plans), (wanted, asked)


def test_a_thousand_identities_are_compiled_without_waiting() -> None:
    """Twice as many take about twice as long: nothing is compared with everything else."""

    def took(number: int) -> float:
        several = [identity(f"i{n}", {"unix:uid": (str(n), str(n + 1)), "unix:exe:path": ("/usr/bin/env",)}) for n in range(number)]
        bindings = [binding(f"b{n}", f"i{n}") for n in range(number)]
        began = time.process_time()
        assert len(compiled(several, bindings).plans) == number + 1
        return time.process_time() - began

    once, eightfold = min(took(500) for _ in range(3)), min(took(4000) for _ in range(3))
    assert eightfold < 24 * once + 0.05


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


def of_package(spec: str, *, script: str = "") -> ResourceSet:
    """A set with one identity by package."""
    group = {"unix:exe:package": (spec,)} | ({"script:path": (script,)} if script else {})
    return ResourceSet(Revision(1), "", (identity("i", group),), (), (binding("b", "i"),), {})


class Has(Packages):
    """A database that knows one package."""

    def __init__(self, name: str, *paths: str) -> None:
        super().__init__()
        self.name, self.paths = name, paths

    def executables(self, spec: str) -> Executables:
        """What the package has."""
        return Executables(self.paths) if spec == self.name else Executables((), "it is not installed")


def test_a_packages_programs_become_their_files_and_interpreters_are_warned_of() -> None:
    """Each file once; what is told what to do is left out, with the way to name it; a missing package is a warning."""
    env, cat = os.path.realpath("/usr/bin/env"), os.path.realpath("/usr/bin/cat")
    has = Has("p", env, cat)
    located, (warning,) = plan(of_package("p"), has)
    file = file_id(Path(cat).stat())
    assert located == [LocatedFilter((file.dev, file.ino), None, None, False)]
    assert f"{env} never matches" in warning.message
    assert "script:path" in warning.hint
    assert len(plan(of_package("p", script="/s"), has)[0]) == 2
    located, (warning,) = plan(of_package("gone"), has)
    assert located == []
    assert "not installed" in warning.message


def test_a_package_of_too_many_programs_makes_no_filter() -> None:
    """Half of them would be worse than none: the warning says what to name instead."""
    located, (warning,) = plan(of_package("p"), Has("p", *(f"/usr/bin/t{n}" for n in range(compile_io.MAX_PROGRAMS + 1))))
    assert located == []
    assert "unix:exe:path" in warning.hint


def test_names_are_looked_up_for_the_plan_and_missing_ones_are_warned_of() -> None:
    """Also when nobody did before; what was looked up stays what it was."""
    group = {"unix:user": ("root", "credwire-nobody"), "unix:group": ("credwire-none",)}
    asked = ResourceSet(Revision(1), "", (identity("i", group),), (), (binding("b", "i"),), {})
    located, warnings = plan(asked)
    assert located == [LocatedFilter(None, 0, None, False)]
    assert [warning.reason for warning in warnings] == [Reason.RESOURCE_DANGLING] * 2
    assert all(warning.hint for warning in warnings)
    other = named(asked, lambda: Accounts({"root": 5}, {}))
    assert plan(other)[0] == [LocatedFilter(None, 5, None, False)]
    assert named(named(asked, lambda: Accounts({"root": 5}, {})), lambda: Accounts({"root": 6}, {})) != other
    plain = resources(os.path.realpath("/usr/bin/env"))
    assert named(plain) is plain
