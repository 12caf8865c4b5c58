"""
Each selector with a real client: who has what it names is signed for, who lacks it is not.  Needs root, and curl from its package.

The other selectors of the object stay the same, so that the one under test alone makes the difference.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.bench import CURL, PASSED, REFUSED, SIGNED, Bench, bench
from tests.e2e.lib.scene import IDENTITY, USERS
from tests.e2e.lib.stage import STRANGER_UID, USER_UID

GID, OTHER_GID = 72460, 72461


@pytest.fixture(scope="module")
def on() -> Iterator[Bench]:
    """One daemon for all; each test gives the identity its selectors."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    if not Path(CURL).is_file() or not Path("/var/lib/dpkg/info/curl.list").is_file():
        pytest.skip("curl is not installed as a Debian package")
    with bench("selectors") as made:
        yield made


def _explained(on: Bench, pid: int) -> str:
    told = on.stage.credwire("explain", "--pid", str(pid), f"https://{IDENTITY}{USERS}", "-o", "json")
    return json.dumps(json.loads(told.stdout))


def test_the_effective_gid(on: Bench) -> None:
    """unix:gid beside the executable: the same user and program in another group is passed on unsigned."""
    on.select(f"    - unix:exe:path: {CURL}\n      unix:uid: {USER_UID}\n      unix:gid: {GID}\n")
    assert on.curl(gid=GID) == SIGNED
    assert on.curl(gid=OTHER_GID) == PASSED
    assert on.curl(gid=GID, uid=STRANGER_UID) == PASSED


def test_a_group_by_its_name(on: Bench) -> None:
    """unix:group; the name of another group, and one that nobody has."""
    on.account(groups={"credwire-ops": GID, "credwire-dev": OTHER_GID})
    on.select(f"    - unix:exe:path: {CURL}\n      unix:group: [credwire-ops, credwire-none]\n")
    assert on.curl(gid=GID) == SIGNED
    assert on.curl(gid=OTHER_GID) == PASSED
    health = json.dumps(on.stage.status()["health"])
    assert 'group \\"credwire-none\\" is not in /etc/group' in health


def test_a_user_by_its_name(on: Bench) -> None:
    """unix:user alone makes a kernel filter of its number; another user, and a name that nobody has, are nobody."""
    on.account(users={"credwire-svc": USER_UID})
    on.select("    - unix:user: [credwire-svc, credwire-none]\n")
    assert on.curl() == SIGNED
    assert on.curl(uid=STRANGER_UID) == PASSED
    on.select("    - unix:user: credwire-none\n")
    assert on.curl() == PASSED


def test_a_program_by_its_package(on: Bench) -> None:
    """unix:exe:package: the machine's curl; a copy of it is none, nor is curl when another package is named."""
    copy = on.stage.directory / "curl-copy"
    shutil.copy(CURL, copy)
    for spec in ("curl", f'["curl:{_architecture()}", "wget"]'):
        on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:package: {spec}\n")
        assert on.curl() == SIGNED
        assert on.curl(program=[copy]) == PASSED
        assert on.curl(uid=STRANGER_UID) == PASSED
    on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:package: coreutils\n")
    assert on.curl() == PASSED


def test_a_package_alone_is_a_kernel_filter(on: Bench) -> None:
    """Without uid or path beside it, every user's curl is it."""
    on.select("    - unix:exe:package: curl\n")
    assert on.curl() == SIGNED
    assert on.curl(uid=STRANGER_UID) == SIGNED


def _architecture() -> str:
    for stanza in Path("/var/lib/dpkg/status").read_text().split("\n\n"):
        lines = stanza.splitlines()
        if "Package: curl" in lines:
            return next(line.partition(": ")[2] for line in lines if line.startswith("Architecture: "))
    raise AssertionError("curl is not in dpkg's status")


def test_a_script_by_its_digest(on: Bench) -> None:
    """script:sha256 beside script:path: the bytes that are pinned are signed for, others at the same path are not; explain tells."""
    python = Path("/usr/bin/python3").resolve()
    path = on.stage.directory / "pinned"
    digest = on.script(path)
    common = f"    - unix:uid: {USER_UID}\n      unix:exe:path: {python}\n      script:path: {path}\n      script:sha256: "
    on.select(f"{common}{digest}\n")
    with on.hand(path) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
    other = on.script(path, "# another\n")
    with on.hand(path) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        told = _explained(on, hand.pid)
        assert other in told
        assert Reason.IDENTITY_NONE in told
    on.select(f"{common}{other}\n")
    with on.hand(path) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_a_program_by_path_and_digest_together(on: Bench) -> None:
    """unix:exe:sha256 beside unix:exe:path and the package: all three hold, or nothing does."""
    digest = hashlib.sha256(Path(CURL).read_bytes()).hexdigest()
    rest = f"      unix:exe:path: {CURL}\n      unix:exe:package: curl\n      unix:gid: {GID}\n"
    on.select(f"    - unix:exe:sha256: {digest}\n{rest}")
    assert on.curl(gid=GID) == SIGNED
    on.select(f"    - unix:exe:sha256: {'0' * 64}\n{rest}")
    assert on.curl(gid=GID) == PASSED


@pytest.mark.parametrize(
    ("selectors", "says"),
    [
        ("    - unix:gid: 100\n", "unix:gid alone cannot be turned into a kernel filter"),
        ("    - unix:group: ops\n", "unix:group alone cannot be turned into a kernel filter"),
        (f"    - unix:uid: 1001\n      script:sha256: {'0' * 64}\n", "no script:path says where that may be"),
        ("    - unix:user: root\n", "unix:user is root"),
    ],
)
def test_what_cannot_be_filtered_is_refused_and_what_runs_stays(on: Bench, selectors: str, says: str) -> None:
    """The reload says why, and the program that was signed for still is."""
    on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:package: curl\n")
    on.stage.write_resources(selectors=selectors)
    told = on.stage.credwire("reload")
    assert told.returncode != 0
    assert says in told.stdout + told.stderr
    assert on.curl() == SIGNED
    on.select(f"    - unix:uid: {USER_UID}\n      unix:exe:package: curl\n")


def test_an_executable_that_others_may_replace_is_refused(on: Bench) -> None:
    """The path is right, and not root's alone: the connection is ended with that reason."""
    loose = on.stage.directory / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    shutil.copy(CURL, loose / "curl")
    on.select(f"    - unix:exe:path: {loose / 'curl'}\n      unix:gid: {GID}\n")
    since = len(on.stage.audit())
    assert on.curl(program=[loose / "curl"], gid=GID) == REFUSED
    assert on.reason(since) == Reason.EXE_PATH_UNTRUSTED
