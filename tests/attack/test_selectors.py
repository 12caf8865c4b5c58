"""
I6, I7 and what selectors by name, package and digest add: other bytes, another place, another time, another meaning.  Needs root.

The package is one of our own, built and installed by dpkg into a database that only this stage sees.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.bench import CURL, PASSED, REFUSED, SIGNED, Bench, bench
from tests.e2e.lib.hand import Hand, HandError, head
from tests.e2e.lib.scene import IDENTITY, USERS
from tests.e2e.lib.stage import STRANGER_UID, USER_UID

_LOADER = "ld-linux-x86-64.so.2"


@pytest.fixture(scope="module")
def on() -> Iterator[Bench]:
    """One daemon for all."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    if shutil.which("dpkg-deb") is None or not Path(CURL).is_file():
        pytest.skip("dpkg or curl is missing")
    with bench("selector-attacks") as made:
        yield made


@pytest.fixture(scope="module")
def probe(on: Bench) -> Path:
    """An installed package with a curl and a dynamic loader."""
    loader = Path(f"/lib64/{_LOADER}").resolve()
    directory = on.package("credwire-probe", {"probe": Path(CURL), **({_LOADER: loader} if loader.is_file() else {})})
    return directory / "probe"


def _by_package(on: Bench) -> None:
    on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:package: credwire-probe\n")


def _modify(program: Path) -> None:
    """Change one byte that no reader of ELF looks at: the last, which is appended."""
    program.chmod(0o755)
    with program.open("ab") as file:
        file.write(b"\n")


def test_a_modified_program_of_a_package_is_refused(on: Bench, probe: Path) -> None:
    """In place, in a copy that takes its name, and genuine again: only dpkg's own bytes are signed for."""
    _by_package(on)
    assert on.curl(program=[probe]) == SIGNED
    kept = probe.with_name("kept")
    shutil.copy2(probe, kept)
    _modify(probe)
    since = len(on.stage.audit())
    assert on.curl(program=[probe]) == REFUSED
    assert on.reason(since) == Reason.EXE_MODIFIED
    kept.rename(probe)
    on.reload()
    assert on.curl(program=[probe]) == SIGNED


def test_a_copy_of_a_packages_program_elsewhere_is_nobody(on: Bench, probe: Path) -> None:
    """The same bytes at another place: passed on unsigned; a hard link of root's in the package's own directory as well."""
    _by_package(on)
    copy = on.stage.directory / "copied-probe"
    shutil.copy(probe, copy)
    assert on.curl(program=[copy]) == PASSED
    link = probe.with_name("linked")
    link.hardlink_to(probe)
    try:
        assert on.curl(program=[link]) == PASSED
    finally:
        link.unlink()
    assert on.curl(program=[probe]) == SIGNED


def test_a_file_mounted_over_a_packages_program_is_refused(on: Bench, probe: Path) -> None:
    """The path's text is right for the kernel and for the agent, and dpkg's database owns it: the bytes are others."""
    _by_package(on)
    other = on.stage.directory / "mounted-probe"
    shutil.copy(CURL, other)
    _modify(other)
    on.mount(other, probe)
    try:
        on.reload()
        since = len(on.stage.audit())
        assert on.curl(program=[probe]) == REFUSED
        assert on.reason(since) == Reason.EXE_MODIFIED
    finally:
        on.unmount(probe)
    on.reload()
    assert on.curl(program=[probe]) == SIGNED


def test_an_interpreter_of_the_package_is_nobody(on: Bench, probe: Path) -> None:
    """The package's own dynamic loader runs curl: its path, its MD5 and its package are right, and it is told what to do."""
    loader = probe.with_name(_LOADER)
    if not loader.exists():
        pytest.skip("no x86-64 loader on this machine")
    _by_package(on)
    assert on.curl(program=[loader, CURL]) == PASSED
    assert on.curl(program=[probe]) == SIGNED


def test_a_database_that_others_may_write_names_nobody(on: Bench, probe: Path) -> None:
    """Whoever can write dpkg's lists could make any file a package's."""
    _by_package(on)
    info = on.stage.directory / "credwire-probe-dpkg" / "info"
    info.chmod(0o777)
    try:
        on.reload()
        assert on.curl(program=[probe]) == PASSED
    finally:
        info.chmod(0o755)
    on.reload()
    assert on.curl(program=[probe]) == SIGNED


def test_a_script_that_gets_the_right_bytes_after_exec_gains_nothing(on: Bench) -> None:
    """Run one script, show another: where that is possible the path is not root's alone, and so the digest is not believed."""
    mine = on.stage.directory / "mine"
    mine.mkdir()
    os.chown(mine, USER_UID, USER_UID)
    path = mine / "script"
    on.script(path, "# not the one that is pinned\n")
    genuine = on.stage.directory / "genuine"
    digest = on.script(genuine)
    os.chown(path, USER_UID, USER_UID)
    python = Path("/usr/bin/python3").resolve()
    for script in (path, genuine):
        on.select(
            f"    - unix:uid: {USER_UID}\n      unix:exe:path: {python}\n      script:path: {script}\n      script:sha256: {digest}\n"
        )
        since = len(on.stage.audit())
        with on.hand(script) as hand:
            shutil.copyfile(genuine, path)
            if script == genuine:
                assert hand.request(IDENTITY, "GET", USERS).status == 200
                continue
            with pytest.raises(HandError):
                hand.request(IDENTITY, "GET", USERS)
        assert on.reason(since) == Reason.SCRIPT_PATH_UNTRUSTED


def test_a_renamed_user_takes_nothing_along(on: Bench) -> None:
    """The name goes to another uid: noticed at the next reload, and the former owner of the name is nobody."""
    on.account(users={"credwire-svc": USER_UID})
    on.select("    - unix:user: credwire-svc\n")
    assert (on.curl(), on.curl(uid=STRANGER_UID)) == (SIGNED, PASSED)
    on.account(users={"credwire-svc": STRANGER_UID, "credwire-old": USER_UID})
    assert (on.curl(), on.curl(uid=STRANGER_UID)) == (SIGNED, PASSED)
    on.reload()
    assert (on.curl(), on.curl(uid=STRANGER_UID)) == (PASSED, SIGNED)


def test_a_renamed_users_open_connections_end(on: Bench) -> None:
    """What the former owner of the name has open is not signed for after the reload."""
    path = on.stage.directory / "by-name"
    on.script(path)
    on.account(users={"credwire-svc": USER_UID})
    on.select(f"    - unix:user: credwire-svc\n      script:path: {path}\n")
    with on.hand(path) as hand:
        number = hand.open(IDENTITY)
        assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        on.reload()
        assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        on.account(users={"credwire-svc": STRANGER_UID})
        on.reload()
        given = len(on.stage.cloud.valid())
        try:
            assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 503
        except HandError:
            pass  # it was closed already
        assert len(on.stage.cloud.valid()) == given


def test_users_that_others_may_write_are_nobody(on: Bench) -> None:
    """A passwd file that is not root's alone names nobody."""
    on.account(users={"credwire-svc": USER_UID})
    on.passwd.chmod(0o666)
    try:
        on.select("    - unix:user: credwire-svc\n")
        assert on.curl() == PASSED
    finally:
        on.passwd.chmod(0o644)
    on.reload()
    assert on.curl() == SIGNED


def test_a_gid_that_is_left_takes_the_identity_along(on: Bench) -> None:
    """
    The kept verdict was for one gid: a process that goes back to its real gid without exec is judged anew, and is nobody.

    It stays nobody when it takes the gid again, until the resources are loaded anew.
    """
    python = Path("/usr/bin/python3").resolve()
    path = on.stage.directory / "by-gid"
    on.script(path)
    on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:path: {python}\n      script:path: {path}\n      unix:gid: 72470\n")
    argv = ["/usr/bin/setpriv", "--reuid", str(USER_UID), "--rgid", str(USER_UID), "--egid", "72470", "--clear-groups", path]
    with Hand(on.stage, argv, trust=[on.trust], uid=0) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        assert hand.python("os.setegid(os.getgid()); result = os.getegid()") == USER_UID
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        assert hand.python("os.setegid(72470); result = os.getegid()") == 72470
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        on.reload()
        assert hand.request(IDENTITY, "GET", USERS).status == 200
