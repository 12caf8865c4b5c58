"""
C2: resources tampered with, rolled back, half-written, or written so that two readers understand them differently.

The directory is a real one and the policy is the agent's own; whatever is wrong, all of the running set stays, and the error has a place.
What the kernel is told follows the running set (tests/e2e/test_bad_input.py).  As root, files must be root's alone.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from control.daemon.policy_io import Policy
from tests.unit.binding.docs import GOOD

Tamper = Callable[[Path], object]


def started(directory: Path) -> Policy:
    """A policy over ``directory``/resources that has loaded for the first time."""
    made = Policy(directory / "resources", directory, "corp.example", ())
    made.load_first()
    return made


def reload(policy: Policy) -> list[str]:
    """Do what the agent does on reload, short of the kernel; give the errors."""
    fresh = policy.prepare(policy.read())
    if fresh.errors:
        policy.refuse(fresh.errors)
        assert all(error.hint for error in fresh.errors)
    else:
        policy.use(fresh)
        policy.keep()
    return [str(error) for error in fresh.errors]


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """A directory with the good set in two files."""
    directory = tmp_path / "resources"
    directory.mkdir(mode=0o755)
    first, rest = GOOD.split("---\n", maxsplit=1)
    (directory / "identity.yaml").write_text(first)
    (directory / "rest.yaml").write_text(rest)
    return directory


def edit(file: str, old: str, new: str) -> Tamper:
    """Change one thing in one file."""

    def change(directory: Path) -> None:
        text = (directory / file).read_text()
        assert text.count(old) == 1, old
        (directory / file).write_text(text.replace(old, new))

    return change


def cut(file: str, behind: str) -> Tamper:
    """Leave of a file what stands before the end of ``behind``."""

    def change(directory: Path) -> None:
        raw = (directory / file).read_bytes()
        os.truncate(directory / file, raw.index(behind.encode()) + len(behind))

    return change


BAD: list[tuple[str, Tamper, str, str]] = [
    ("duplicate key", edit("rest.yaml", "  mode: enforce", "  mode: observe\n  mode: enforce"), "rest.yaml:33:3", "a second time"),
    ("duplicate name", lambda d: (d / "z.yaml").write_text((d / "identity.yaml").read_text()), "z.yaml:3:18", "is defined twice"),
    ("byte order mark", edit("rest.yaml", "apiVersion: credwire/v1alpha1\nkind: Fed", "\ufeffapiVersion: credwire/v1alpha1\nkind: Fed"),
     "rest.yaml:1:1", "byte order mark"),
    ("homoglyph in a name", edit("rest.yaml", "identity: oci-cli", "identity: оci-cli"), "rest.yaml:30:13", "CYRILLIC SMALL LETTER O"),
    ("homoglyph in a host", edit("rest.yaml", "oraclecloud.com\"]", "oraclеcloud.com\"]"), "rest.yaml:34:15", "not ASCII"),
    ("invisible character", edit("rest.yaml", "svc-oci-cli", "svc-oci\u200b-cli"), "rest.yaml:9:21", "ZERO WIDTH SPACE"),
    ("hidden behind an escape", edit("rest.yaml", "svc-oci-cli", '"svc\\u202e-oci"'), "rest.yaml:9:14", "RIGHT-TO-LEFT OVERRIDE"),
    ("dangling name", edit("rest.yaml", "source: oci-upst", "source: oci-upts"), "rest.yaml:31:11", "not defined"),
    ("alias", edit("rest.yaml", "methods: [GET]", "methods: *any"), "rest.yaml:36:16", "alias"),
    ("merge key", edit("rest.yaml", "  mode: enforce", "  <<: {mode: enforce}"), "rest.yaml:32:3", "merge key"),
    ("unknown field", edit("rest.yaml", "      methods: [GET]", "      method: [GET]"), "rest.yaml:36:7", 'did you mean "methods"'),
    ("cut in the middle of a host", cut("rest.yaml", "us-ashburn-1.ora"), "rest.yaml:34:15", "half"),
    ("cut in the last word", cut("identity.yaml", "egress: open"), "identity.yaml:12:15", "half-written"),
    ("emptied", lambda d: os.truncate(d / "identity.yaml", 0), "rest.yaml:30:13", "not defined"),
    ("removed", lambda d: (d / "identity.yaml").unlink(), "rest.yaml:30:13", "not defined"),
    ("renamed away from .yaml", lambda d: (d / "identity.yaml").rename(d / "identity.yaml.bak"), "rest.yaml:30:13", "not defined"),
    ("not UTF-8", lambda d: (d / "z.yaml").write_bytes(b"# \xff\n"), "z.yaml:1:3", "not UTF-8"),
    ("a link", lambda d: (d / "z.yaml").symlink_to("rest.yaml"), "z.yaml:1:1", "symbolic link"),
    ("a pipe", lambda d: os.mkfifo(d / "z.yaml"), "z.yaml:1:1", "no plain file"),
    ("a directory", lambda d: (d / "z.yaml").mkdir(), "z.yaml:1:1", "no plain file"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "place", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_set_with_one_fault_changes_nothing_that_runs(resources: Path, tamper: Tamper, place: str, says: str) -> None:
    """Also what is right in it: a second, harmless change in the same reload does not come through either."""
    policy = started(resources.parent)
    before, kept = policy.current, (resources.parent / "last-good.json").read_bytes()
    assert (before.revision, len(before.bindings)) == (1, 1)
    if (resources / "rest.yaml").exists() and "rest.yaml" not in place:
        edit("rest.yaml", "methods: [GET]", "methods: [GET, HEAD]")(resources)
    tamper(resources)
    errors = reload(policy)
    told = [error for error in policy.faults if f"/{place}" in str(error) and says in f"{error} {error.hint}"]
    assert told, errors
    assert policy.current is before
    assert (resources.parent / "last-good.json").read_bytes() == kept
    assert policy.digest_on_disk() != before.digest


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root's reader asks whose the files are")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_others_may_write_is_not_read(resources: Path, what: str) -> None:
    """By mode or by owner, and a directory as well: nobody else than root puts a binding there."""
    policy = started(resources.parent)
    before = policy.current
    target = resources / "rest.yaml" if what == "file" else resources
    target.chmod(target.stat().st_mode | 0o020)
    assert any("others than root may change it" in error for error in reload(policy))
    target.chmod(target.stat().st_mode & ~0o020)
    os.chown(target, 65534, -1)
    assert any("others than root may change it" in error for error in reload(policy))
    assert policy.current is before
    os.chown(target, 0, -1)
    assert reload(policy) == []
    assert policy.current.revision == 1  # nothing had changed


def test_a_rollback_is_a_new_revision(resources: Path) -> None:
    """Old files that come back do not bring their number back, over a restart neither; nobody can pass an older set for the running one."""
    policy = started(resources.parent)
    old = (resources / "rest.yaml").read_text()
    edit("rest.yaml", "methods: [GET]", "methods: [GET, HEAD]")(resources)
    assert reload(policy) == []
    assert policy.current.revision == 2
    (resources / "rest.yaml").write_text(old)
    assert reload(policy) == []
    assert (policy.current.revision, policy.current.bindings[0].destinations[0].methods) == (3, ("GET",))
    after = started(resources.parent)
    assert (after.current.revision, after.current.digest) == (3, policy.current.digest)
    edit("rest.yaml", "methods: [GET]", "methods: [GET, HEAD]")(resources)
    assert reload(after) == []
    assert after.current.revision == 4


def test_a_broken_file_at_boot_means_the_last_good_set(resources: Path) -> None:
    """With its number, and with the fault told; mending the file runs the next one."""
    good = started(resources.parent).current
    edit("rest.yaml", "issuer: self", "issuer: [self")(resources)
    after = started(resources.parent)
    assert (after.current.revision, after.current.bindings) == (good.revision, good.bindings)
    assert [str(error).rsplit("/", 1)[-1].split(":")[0] for error in after.faults][:1] == ["rest.yaml"]
    edit("rest.yaml", "issuer: [self", "issuer: self")(resources)
    assert reload(after) == []
    assert (after.faults, after.current.revision) == ([], good.revision)


def test_a_last_good_set_that_was_damaged_is_not_used(resources: Path) -> None:
    """Cut anywhere it is no set: a broken directory then means an empty one, which gives nothing to anybody."""
    started(resources.parent)
    kept = resources.parent / "last-good.json"
    whole = kept.read_bytes()
    edit("rest.yaml", "issuer: self", "issuer: [self")(resources)
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        kept.write_bytes(whole[:end])
        assert started(resources.parent).current.bindings == ()
