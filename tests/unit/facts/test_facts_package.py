"""dpkg's database: who owns a path, and what the file should hold; a database of our own making, and this machine's."""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.facts import package_io
from control.facts.model import PackageFact
from control.facts.package import (
    Diversion,
    MalformedPackageError,
    architectures,
    canonical,
    contents,
    parse_diversions,
    parse_md5sums,
)
from control.facts.package_io import DATABASE, Packages
from control.facts.path_io import look

ME = os.geteuid()
BELIEVE = partial(look, owner=ME, sticky_ok=True)
SUM = "0123456789abcdef" * 2
Install = Callable[..., None]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An empty database."""
    tmp_path.chmod(0o755)
    (tmp_path / "dpkg" / "info").mkdir(parents=True)
    return tmp_path / "dpkg"


@pytest.fixture
def install(database: Path) -> Install:
    """Put a package into it."""

    def put(stem: str, files: dict[str, str]) -> None:
        names = ["/.", *(str(parent) for name in files for parent in Path(name).parents if str(parent) != "/"), *files]
        (database / "info" / f"{stem}.list").write_text("".join(f"{name}\n" for name in names))
        (database / "info" / f"{stem}.md5sums").write_text("".join(f"{md5}  {name[1:]}\n" for name, md5 in files.items() if md5))

    return put


def packages(database: Path, root: Path | None = None) -> Packages:
    """The database, believed although whoever runs the tests owns it."""
    return Packages(database, root or database / "nothing", BELIEVE)


# -- pure


def test_a_merged_directory_leads_into_usr() -> None:
    """Only what is below it, and only where it is merged."""
    merged = frozenset({"bin", "lib64"})
    assert canonical("/bin/bash", merged) == "/usr/bin/bash"
    assert canonical("/lib64/ld.so", merged) == "/usr/lib64/ld.so"
    assert [canonical(path, merged) for path in ("/bin", "/sbin/x", "/binary/x", "/usr/bin/x")] == [
        "/bin",
        "/sbin/x",
        "/binary/x",
        "/usr/bin/x",
    ]


def test_a_diverted_file_lies_elsewhere_for_all_but_the_one_that_diverts() -> None:
    """dpkg-divert(1): by another package, by the administrator, through a merged directory."""
    diversions = [Diversion("/bin/sh", "/bin/sh.distrib", "dash"), Diversion("/usr/bin/x", "/usr/bin/x.real", ":")]
    merged = frozenset({"bin"})
    others = contents("bash", "/.\n/usr/bin/sh\n/usr/bin/x\n", f"{SUM}  usr/bin/sh\n", diversions, merged)
    assert others.named == {"/usr/bin/sh.distrib": "/usr/bin/sh", "/usr/bin/x.real": "/usr/bin/x"}
    assert others.md5 == {"/usr/bin/sh": SUM}
    assert contents("dash", "/bin/sh\n", "", diversions, merged).named == {"/usr/bin/sh": "/bin/sh"}


@pytest.mark.parametrize("text", ["/a\n/b\n", "x"])
def test_diversions_that_are_no_triples_are_refused(text: str) -> None:
    """A half-written file says nothing."""
    with pytest.raises(MalformedPackageError):
        parse_diversions(text)


@given(st.dictionaries(st.from_regex(r"[a-z0-9/._ -]{1,30}", fullmatch=True), st.from_regex(r"[0-9a-f]{32}", fullmatch=True)))
def test_sums_are_read_as_they_are_written(sums: dict[str, str]) -> None:
    """Names with blanks in them too."""
    assert parse_md5sums("".join(f"{md5}  {name}\n" for name, md5 in sums.items())) == {f"/{name}": md5 for name, md5 in sums.items()}


def test_a_line_that_is_no_sum_is_refused() -> None:
    """Nobody guesses what it meant."""
    with pytest.raises(MalformedPackageError, match="cannot be read"):
        parse_md5sums(f"{SUM}  usr/bin/a\nxyz  usr/bin/b\n")


def test_architectures_are_those_of_the_package_alone() -> None:
    """Names that begin alike, two architectures of one package, a field of that name in a description."""
    status = (
        "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nDescription: x\n Architecture: not\n\n"
        "Package: curl-doc\nArchitecture: all\n\nPackage: libc6\nArchitecture: amd64\n\nPackage: libc6\nArchitecture: i386\n"
    )
    assert architectures(status, "curl") == {"amd64"}
    assert architectures(status, "libc6") == {"amd64", "i386"}
    assert architectures(status, "cur.") == frozenset()


# -- a database of our own


def test_a_path_belongs_to_the_package_that_lists_it(database: Path, install: Install) -> None:
    """With the sum it should have; another package's path, a package that is not installed and one that was not asked for: nothing."""
    install("tool", {"/usr/bin/tool": SUM, "/usr/bin/bare": ""})
    install("other", {"/usr/bin/other": SUM})
    asked = packages(database)
    assert asked.owners("/usr/bin/tool", frozenset({"tool", "other", "none"})) == (PackageFact("tool", SUM),)
    assert asked.owners("/usr/bin/bare", frozenset({"tool"})) == (PackageFact("tool", ""),)
    assert asked.owners("/usr/bin/tool", frozenset({"other"})) == ()
    assert asked.owners("/usr/bin", frozenset({"none"})) == ()


def test_an_architecture_narrows(database: Path, install: Install) -> None:
    """By the name of the list where dpkg has one for each, by the status otherwise."""
    install("libx:amd64", {"/usr/lib/amd64/x": SUM})
    install("libx:i386", {"/usr/lib/i386/x": SUM})
    install("tool", {"/usr/bin/tool": SUM})
    (database / "status").write_text("Package: tool\nArchitecture: amd64\n")
    asked = packages(database)
    assert asked.owners("/usr/lib/i386/x", frozenset({"libx", "libx:amd64", "libx:i386"})) == (
        PackageFact("libx", SUM),
        PackageFact("libx:i386", SUM),
    )
    assert asked.owners("/usr/bin/tool", frozenset({"tool:amd64", "tool:i386"})) == (PackageFact("tool:amd64", SUM),)


def test_the_kernels_path_is_found_through_a_merged_usr(database: Path, install: Install, tmp_path: Path) -> None:
    """The package says /bin/tool, the kernel /usr/bin/tool; where nothing is merged they are two files."""
    install("tool", {"/bin/tool": SUM})
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    assert packages(database, root).owners("/usr/bin/tool", frozenset({"tool"})) == ()
    (root / "bin").symlink_to("usr/bin")
    assert packages(database, root).owners("/usr/bin/tool", frozenset({"tool"})) == (PackageFact("tool", SUM),)


def test_what_changed_is_read_again_and_what_did_not_is_not(database: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade, a new package and a diversion are seen at once."""
    monkeypatch.setattr(package_io, "SETTLED_NS", -(10**18))
    install("tool", {"/usr/bin/tool": SUM})
    asked = packages(database)
    wanted = frozenset({"tool", "late"})
    for _ in range(3):
        assert asked.owners("/usr/bin/tool", wanted) == (PackageFact("tool", SUM),)
    assert asked.read == 1
    install("tool", {"/usr/bin/tool": SUM[::-1], "/usr/bin/more": SUM})
    install("late", {"/usr/bin/late": SUM})
    assert asked.owners("/usr/bin/tool", wanted) == (PackageFact("tool", SUM[::-1]),)
    assert asked.owners("/usr/bin/late", wanted) == (PackageFact("late", SUM),)
    (database / "diversions").write_text("/usr/bin/tool\n/usr/bin/tool.real\n:\n")
    assert asked.owners("/usr/bin/tool", wanted) == ()
    assert asked.owners("/usr/bin/tool.real", wanted) == (PackageFact("tool", SUM[::-1]),)


def test_a_database_that_others_may_change_says_nothing(database: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was believed before; the fault names the component; the same for what cannot be parsed."""
    monkeypatch.setattr(package_io, "SETTLED_NS", -(10**18))
    install("tool", {"/usr/bin/tool": SUM})
    asked = packages(database)
    assert asked.owners("/usr/bin/tool", frozenset({"tool"})) == (PackageFact("tool", SUM),)
    (database / "info").chmod(0o777)
    (fact,) = asked.owners("/usr/bin/tool", frozenset({"tool"}))
    assert fact.md5 == ""
    assert "not root's alone" in fact.fault
    assert "writable by group or others" in fact.fault
    assert packages(database).executables("tool").paths == ()
    (database / "info").chmod(0o755)
    (database / "diversions").write_text("/half\n")
    (fact,) = packages(database).owners("/usr/bin/tool", frozenset({"tool"}))
    assert "file of diversions" in fact.fault


def test_executables_are_regular_files_that_may_run_and_have_a_sum(database: Path, install: Install, tmp_path: Path) -> None:
    """No link, no data, no directory, no conffile, nothing that is not there."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, mode in (("tool", 0o755), ("data", 0o644), ("conf", 0o755), ("owner", 0o700)):
        (tree / name).write_text("x")
        (tree / name).chmod(mode)
    (tree / "link").symlink_to("tool")
    install("tool", {f"{tree}/{name}": "" if name == "conf" else SUM for name in ("tool", "data", "conf", "owner", "link", "gone")})
    assert packages(database).executables("tool").paths == (f"{tree}/tool", f"{tree}/owner")
    assert packages(database).executables("none").fault == "it is not installed"
    install("doc", {f"{tree}/data": SUM})
    assert packages(database).executables("doc").fault == "it has no executables"


# -- this machine's


@pytest.mark.skipif(not (DATABASE / "info").is_dir() or ME != 0, reason="no dpkg on this machine, or its database is not root's to us")
def test_this_machines_programs_are_those_of_their_packages() -> None:
    """dpkg's own shell and the programs of three essential packages: owned, and with the content that was installed."""
    asked = Packages()
    for name in ("dpkg", "coreutils", "bash"):
        found = asked.executables(name)
        assert found.paths, found.fault
        for path in found.paths[:8]:
            (fact,) = asked.owners(path, frozenset({name, "credwire-no-such-package"}))
            assert fact == PackageFact(name, hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()), path
    bash = str(Path(shutil.which("bash") or "/bin/bash").resolve())
    assert [fact.name for fact in asked.owners(bash, frozenset({"bash", "dpkg"}))] == ["bash"]
