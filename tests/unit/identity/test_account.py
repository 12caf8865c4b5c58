"""Names of users and groups: what they stand for on this machine, and that nothing matches before somebody looked."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.identity import account_io
from control.identity.account import Accounts, numbers, resolve, unnamed
from control.identity.match import identify
from control.identity.model import Identity
from control.reason import Reason
from tests.unit.identity.test_match import facts, identity, reason

BY_USER = identity("svc", {"unix:user": ("svc", "none"), "unix:group": ("ops",)})


def test_lines_of_both_files_are_read_alike() -> None:
    """Name and number; comments, NIS and half lines name nobody; of two lines with one name the first counts."""
    text = "root:x:0:0:root:/root:/bin/sh\nsvc:x:1001:1001::/:\n# no:x:1:\n+nis:x:2:\nhalf:x\nbad:x:-1:\nbig:x:4294967295:\nsvc:x:0:0::/:\n"
    assert numbers(text) == {"root": 0, "svc": 1001}
    assert numbers("ops:x:2000:svc,root\n") == {"ops": 2000}


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """Every number that comes out is one that the kernel has."""
    assert all(0 <= number < 2**32 - 1 for number in numbers(text).values())


def test_a_name_matches_by_its_number_only_after_somebody_looked() -> None:
    """Unresolved it is nobody; resolved it is who has the number; a name that nobody has stays nobody."""
    asked = facts(uid=1001)
    assert unnamed([BY_USER])
    assert reason(identify(asked, [BY_USER])) is Reason.IDENTITY_NONE
    (known,) = resolve([BY_USER], Accounts({"svc": 1001}, {"ops": 1001}))
    assert not unnamed([known])
    assert identify(asked, [known]) == known
    assert reason(identify(facts(uid=1002), [known])) is Reason.IDENTITY_NONE
    (nobody,) = resolve([BY_USER], Accounts({}, {"ops": 1001}))
    assert reason(identify(asked, [nobody])) is Reason.IDENTITY_NONE


def test_a_renamed_user_is_another_after_the_next_look() -> None:
    """The name went to uid 1002: uid 1001 is nobody, also where it was somebody before."""
    (before,) = resolve([BY_USER], Accounts({"svc": 1001}, {"ops": 1001}))
    (after,) = resolve([before], Accounts({"svc": 1002, "old": 1001}, {"ops": 1001}))
    assert before != after
    assert identify(facts(uid=1001), [before]) == before
    assert reason(identify(facts(uid=1001), [after])) is Reason.IDENTITY_NONE


def test_identities_without_names_stay_as_they_are() -> None:
    """No copy, no change of what is compared over a reload."""
    plain = identity()
    assert resolve([plain], Accounts({"svc": 1}, {}))[0] is plain
    assert not unnamed([plain])


@pytest.mark.skipif(os.geteuid() != 0, reason="files that are root's alone need root")
def test_files_that_others_may_change_name_nobody(tmp_path: Path) -> None:
    """The fault says which; the other file still counts."""
    tmp_path.chmod(0o755)
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_text("svc:x:1001:1001::/:\n")
    group.write_text("ops:x:2000:\n")
    passwd.chmod(0o644)
    group.chmod(0o644)
    assert account_io.accounts(passwd, group) == Accounts({"svc": 1001}, {"ops": 2000})
    passwd.chmod(0o666)
    found = account_io.accounts(passwd, group)
    assert (found.users, found.groups) == ({}, {"ops": 2000})
    assert "not root's alone" in found.fault
    assert "no such file" in account_io.accounts(tmp_path / "none", group).fault


def test_this_machine_has_a_root() -> None:
    """The real files are believed and read."""
    found = account_io.accounts()
    assert (found.users["root"], found.groups["root"], found.fault) == (0, 0, "")


def test_numbers_survive_the_way_to_disk_and_back() -> None:
    """The last good set is kept as JSON."""
    (known,) = resolve([BY_USER], Accounts({"svc": 1001}, {}))
    assert msgspec.json.decode(msgspec.json.encode(known), type=Identity) == known
