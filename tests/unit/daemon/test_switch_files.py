"""
What the off switch leaves on the disk, and the revoked processes.

In: a state directory.  Out: what the next start, or the agent, reads back; junk is never "on".
"""

import time
from pathlib import Path

import pytest

from control.daemon import switch_io
from control.daemon.change_io import REVOKED_MOST, Revoked
from control.daemon.switch_io import Note, Off, SwitchOutcome
from control.facts.model import ProcessKey
from control.units import ExecId, Pid, StartNs
from control.whole_io import write_whole


def test_what_is_off_is_remembered_until_its_time_is_over(tmp_path: Path) -> None:
    """For root's eyes only, written as a whole."""
    assert switch_io.remembered(tmp_path) is None
    off = Off(time.time() + 60, "an engineer", time.time())
    switch_io.remember(tmp_path, off)
    assert switch_io.remembered(tmp_path) == off
    assert (tmp_path / "off.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["off.json"]
    switch_io.remember(tmp_path, Off(time.time() - 1, "an engineer", 0.0))
    assert switch_io.remembered(tmp_path) is None
    switch_io.remember(tmp_path, Off())
    assert switch_io.remembered(tmp_path) == Off()
    switch_io.forget(tmp_path)
    switch_io.forget(tmp_path)
    assert switch_io.remembered(tmp_path) is None


@pytest.mark.parametrize("junk", [b"", b"{", b'{"until":"x"}', b"\xff"])
def test_a_file_that_cannot_be_read_means_off(tmp_path: Path, junk: bytes) -> None:
    """Somebody wanted no credential to be given; that is not guessed away."""
    (tmp_path / "off.json").write_bytes(junk)
    found = switch_io.remembered(tmp_path)
    assert found is not None
    assert "cannot be read" in found.by


def test_notes_wait_in_order_and_one_that_is_being_written_is_not_seen(tmp_path: Path) -> None:
    """The agent takes the oldest first; junk is shown as such and does not stand in the way."""
    spool = switch_io.spool(tmp_path)
    spool.mkdir(parents=True)
    assert switch_io.notes(tmp_path) == []
    assert switch_io.notes(tmp_path / "missing") == []
    note = Note("switched-off", 1.0, "an engineer", 2.0, 7, 0)
    write_whole(spool / "0002.json", b"junk")
    write_whole(spool / "0001.json", switch_io.msgspec.json.encode(note))
    (spool / ".0000.json.new").write_bytes(b"half")
    assert [(path.name, found) for path, found in switch_io.notes(tmp_path)] == [("0001.json", note), ("0002.json", None)]


def test_who_runs_a_tool_is_told() -> None:
    """User and pid at least."""
    assert switch_io.who().startswith("uid ")
    assert "pid " in switch_io.who()
    assert SwitchOutcome(True, 0.0, True).killed == ()


def key(tgid: int, exec_id: int = 1) -> ProcessKey:
    return ProcessKey(Pid(tgid), StartNs(5), ExecId(exec_id))


def test_a_revoked_process_stays_so_over_a_restart_until_it_execs_or_ends(tmp_path: Path) -> None:
    """The program that it runs next is another one; another process was never meant."""
    revoked = Revoked(tmp_path)
    revoked.add(key(10))
    revoked.add(key(11))
    assert key(10) in revoked
    assert key(10, 2) not in revoked
    again = Revoked(tmp_path)
    assert key(10) in again
    assert key(11) in again
    again.ended(10, 5, 1)  # the same program: a late hint
    assert key(10) in again
    again.ended(10, 5, 0)  # an exec from before the revocation, read even later
    assert key(10) in again
    again.ended(10, 5, 2)
    again.ended(11)
    assert len(again) == 0
    assert len(Revoked(tmp_path)) == 0


def test_the_table_of_revoked_processes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first: whoever revokes thousands has ended most of them."""
    monkeypatch.setattr("control.daemon.change_io.REVOKED_MOST", 3)
    revoked = Revoked(tmp_path)
    for tgid in range(5):
        revoked.add(key(tgid))
    assert [tgid for tgid in range(5) if key(tgid) in revoked] == [2, 3, 4]
    assert REVOKED_MOST >= 1024


def test_a_table_that_cannot_be_read_is_empty_and_can_be_written_again(tmp_path: Path) -> None:
    """Junk does not keep the agent from starting."""
    (tmp_path / "revoked.json").write_bytes(b"{")
    revoked = Revoked(tmp_path)
    assert len(revoked) == 0
    revoked.add(key(1))
    assert key(1) in Revoked(tmp_path)
