"""The journal: what is appended is there, what cannot be appended is said, what was torn is passed over."""

import asyncio
import errno
import resource
import signal
import time
from pathlib import Path

import pytest

from control.audit.event import Event, decode
from control.audit.journal_io import NAME, Journal
from control.errors import SetupError
from control.reason import Reason


def event(number: int, **more: object) -> Event:
    return Event(at=float(number + 1), id=f"{number:08x}", event="request-signed", reason=Reason.GRANTED, **more)  # type: ignore[arg-type]


def test_appended_lines_are_in_the_file_at_once(tmp_path: Path) -> None:
    """Each append is one whole line, readable by others before the next call; the file is 0640."""
    journal = Journal(tmp_path / "audit")
    written = journal.append(event(1))
    path = tmp_path / "audit" / NAME
    assert decode(path.read_bytes()) == written
    assert path.stat().st_mode & 0o777 == 0o640
    journal.append(event(2))
    assert path.read_bytes().count(b"\n") == 2
    journal.close()


def test_event_without_a_time_is_stamped(tmp_path: Path) -> None:
    """The journal knows what time it is; a time that is given stands."""
    journal = Journal(tmp_path)
    before = time.time()
    assert before - 1 <= journal.append(Event(event="agent-started")).at <= time.time() + 1
    assert journal.append(event(6)).at == 7.0


def test_a_loose_mode_is_tightened(tmp_path: Path) -> None:
    """A file that others could read or write is 0640 again after the start."""
    (tmp_path / NAME).touch(mode=0o666)
    (tmp_path / NAME).chmod(0o666)
    Journal(tmp_path).append(event(1))
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o640


def test_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """A line that went in by half is an error; when there is room again the next line is whole and on its own."""
    journal = Journal(tmp_path)
    journal.append(event(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / NAME).stat().st_size
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))  # the kernel then takes 10 bytes, and after that none
    try:
        with pytest.raises(SetupError, match="took 10 of") as half:
            journal.append(event(2))
        with pytest.raises(SetupError, match="cannot be written"):
            journal.append(event(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert half.value.reason is Reason.AUDIT_UNAVAILABLE
    journal.append(event(4))
    assert [e.id for e in journal.tail(9)] == ["00000001", "00000004"]
    assert journal.find("00000002") == ()


def test_torn_last_line_is_moved_on_from(tmp_path: Path) -> None:
    """What a crash tore stays as it is; the first line of the next start stands on its own line."""
    journal = Journal(tmp_path)
    journal.append(event(1))
    journal.close()
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"at":2,"id":"torn","ev')
    again = Journal(tmp_path)
    again.append(event(3))
    assert [e.id for e in again.tail(9)] == ["00000001", "00000003"]
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 3


def test_whole_last_line_is_not_moved_on_from(tmp_path: Path) -> None:
    """A clean end gets no empty line."""
    for number in range(2):
        journal = Journal(tmp_path)
        journal.append(event(number))
        journal.close()
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 2


def test_closed_or_impossible_journal_refuses(tmp_path: Path) -> None:
    """Closed, a directory in its place, a symlink in its place: each is AUDIT_UNAVAILABLE, and a symlink's target is untouched."""
    journal = Journal(tmp_path / "a")
    journal.close()
    with pytest.raises(SetupError) as closed:
        journal.append(event(1))
    (tmp_path / "b" / NAME).mkdir(parents=True)
    with pytest.raises(SetupError) as directory:
        Journal(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "victim").write_bytes(b"keep")
    (tmp_path / "c" / NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(SetupError) as symlink:
        Journal(tmp_path / "c")
    assert {e.value.reason for e in (closed, directory, symlink)} == {Reason.AUDIT_UNAVAILABLE}
    assert (tmp_path / "victim").read_bytes() == b"keep"


def test_rotation_keeps_the_newest_and_loses_no_line_between(tmp_path: Path) -> None:
    """Files are set aside by size and number, the oldest go; tail and find read over the seams."""
    journal = Journal(tmp_path, rotate_bytes=300, keep=3, recent=1)
    for number in range(40):
        journal.append(event(number))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names[0] == NAME
    assert len(names) == 4
    kept = journal.tail(100)
    assert [e.id for e in kept] == [f"{n:08x}" for n in range(40 - len(kept), 40)]
    assert len(kept) > 8
    assert journal.find(kept[0].id) == (kept[0],)
    again = Journal(tmp_path, rotate_bytes=300, keep=3)
    for number in range(40, 50):
        again.append(event(number))
    assert sorted(p.name for p in tmp_path.iterdir())[1:] > names[1:]


def test_rotation_that_fails_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be set aside, lines go on into it and the fault is counted."""
    journal = Journal(tmp_path, rotate_bytes=300)

    def refuse(self: Path, target: object) -> Path:
        raise OSError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        for number in range(5):
            journal.append(event(number))
    assert journal.rotation_faults > 0
    assert len(journal.tail(9)) == 5


def test_find_answers_from_memory_and_from_the_files(tmp_path: Path) -> None:
    """All events of an id come back in order: recent ones, old ones, and those of a former process."""
    journal = Journal(tmp_path, recent=2)
    for number in (1, 1, 2, 3, 4):
        journal.append(event(number))
    assert len(journal.find("00000004")) == 1
    assert len(journal.find("00000001")) == 2
    assert set(journal._index) == {"00000003", "00000004"}
    assert len(Journal(tmp_path).find("00000001")) == 2
    assert journal.find("") == ()
    assert journal.find('x","id":"00000001') == ()


def test_tail_reads_long_files_backwards(tmp_path: Path) -> None:
    """Lines that straddle the blocks of the reader come back whole."""
    journal = Journal(tmp_path)
    for number in range(3000):
        journal.append(event(number, detail="é" * (number % 97)))
    assert [e.id for e in journal.tail(2500)] == [f"{n:08x}" for n in range(500, 3000)]
    assert journal.tail(0) == ()
    assert len(journal.tail(10**6)) == 3000


def test_follower_sees_each_line_once(tmp_path: Path) -> None:
    """Following begins with the last lines and goes on with the next ones, until the journal closes."""

    async def talk() -> list[str]:
        journal = Journal(tmp_path)
        journal.append(event(1))
        journal.append(event(2))
        seen: list[str] = []
        lines = journal.follow(1)
        seen.append((await anext(lines)).id)
        journal.append(event(3))
        seen.append((await anext(lines)).id)
        journal.append(event(4))
        journal.close()
        seen += [e.id async for e in lines]
        return seen

    assert asyncio.run(talk()) == ["00000002", "00000003", "00000004"]


def test_slow_follower_is_told_what_it_missed(tmp_path: Path) -> None:
    """The writer never waits: a reader that falls behind gets one line that counts what it lost, and the file has all."""

    async def talk() -> list[Event]:
        journal = Journal(tmp_path, follower_lines=3)
        lines = journal.follow()
        first = asyncio.ensure_future(anext(lines))
        await asyncio.wait([first], timeout=0)
        for number in range(10):
            journal.append(event(number))
        journal.close()
        assert len(journal.tail(99)) == 10
        return [await first, *[e async for e in lines]]

    seen = asyncio.run(talk())
    assert [e.event for e in seen] == ["request-signed"] * 3 + ["audit-lost"]
    assert "7 lines" in seen[-1].detail


def test_append_stays_in_its_budget(tmp_path: Path) -> None:
    """A signed request's line costs at most 10 µs of CPU; the best of several rounds, so that a busy machine does not decide."""
    journal = Journal(tmp_path)
    full = Event(
        at=time.time(), id="0123456789abcdef", event="request-signed", reason=Reason.GRANTED, identity="oci-cli", binding="oci-cli-prod",
        source="oci-prod-upst", issue=3, pid=1234, uid=1001, exe="/usr/bin/python3.11", script="/opt/oci/bin/oci", method="GET",
        host="identity.test-1.cloud.test", port=443, path="/20160918/users", revision=7, grant="abcdef01", speaker="keys",
    )  # fmt: skip
    rounds = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(500):
            journal.append(full)
        rounds.append((time.process_time() - began) / 500)
    assert min(rounds) <= 10e-6
