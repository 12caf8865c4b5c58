"""
Keep the audit: a file of JSON lines that only grows.

In: Events.  Out: ``audit.jsonl`` in the state directory, read back by ``tail``, ``find`` and ``follow``.
One line is one write() on a descriptor opened O_APPEND, so a line is there or it is not; what a crash or a full disk tore is left where it
is and the next line starts on a new one.  No audit, no credential: whoever gives one appends first and lets SetupError stop them.
Lines reach the page cache, not the platter: a crash of the machine may take the last seconds, a crash of ours takes none.

The place where each line is chained to the one before it, once that is built, is ``append``: it alone makes bytes of an Event.
"""

import asyncio
import os
import stat
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from control.audit.event import Event, decode, encode
from control.errors import SetupError
from control.reason import Reason

NAME = "audit.jsonl"

_BLOCK = 64 << 10


class Journal:
    """
    The audit of one agent.  One thread appends; reading may be done from others.

    ``rotate_bytes`` is the size after which a file is set aside as ``audit.jsonl.<number>``; ``keep`` is how many of those stay;
    ``recent`` is how many events ``find`` answers from memory.
    ``gid`` gives the files to a group that may read them; -1 leaves the group alone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rotate_bytes: int = 64 << 20,
        keep: int = 16,
        recent: int = 4096,
        follower_lines: int = 1024,
        gid: int = -1,
    ) -> None:
        """Open or begin the file.  Raises SetupError(AUDIT_UNAVAILABLE)."""
        self.path = directory / NAME
        self.rotation_faults = 0
        """How often setting the file aside failed; lines go on into the same file."""
        self._rotate_bytes, self._keep, self._recent, self._follower_lines = rotate_bytes, keep, recent, follower_lines
        self._gid = gid
        self._index: OrderedDict[str, list[Event]] = OrderedDict()
        self._indexed = 0
        self._followers: list[_Follower] = []
        self._fd = -1
        self._size = 0
        self._torn = False
        self._open()

    # -- writing

    def append(self, event: Event) -> Event:
        """
        Write one line, stamped with the time where the event has none; give the event as written.

        Raises SetupError(AUDIT_UNAVAILABLE) when the whole line did not go in; then nothing may be given for it.
        """
        if not event.at:
            event = msgspec.structs.replace(event, at=round(time.time(), 6))
        line = encode(event)
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)  # EBADF once closed: the descriptor is -1 then
        except OSError as error:
            raise self._unavailable(error) from error
        self._size += written
        if written != len(line):
            self._torn = True
            raise SetupError(Reason.AUDIT_UNAVAILABLE, f"audit {self.path} took {written} of {len(line)} bytes: the disk is full")
        self._torn = False
        if event.id:
            self._remember(event)
        for follower in self._followers:
            follower.offer(event)
        if self._size >= self._rotate_bytes:
            self._rotate()
        return event

    def close(self) -> None:
        """Bring what is written to the disk, end the followers and close; a closed journal refuses to append."""
        for follower in self._followers:
            follower.end()
        if self._fd >= 0:
            with suppress(OSError):  # a file system without sync has done what it can
                os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _unavailable(self, error: OSError) -> SetupError:
        return SetupError(Reason.AUDIT_UNAVAILABLE, f"audit {self.path} cannot be written: {error.strerror or error}")

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.path.parent.mkdir(mode=0o750, exist_ok=True)
            fd = os.open(self.path, flags, 0o640)
            try:
                found = os.fstat(fd)
                if stat.S_IMODE(found.st_mode) != 0o640:
                    os.fchmod(fd, 0o640)
                if self._gid not in (-1, found.st_gid):
                    os.fchown(fd, -1, self._gid)
                self._torn = found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise self._unavailable(error) from error
        self._fd, self._size = fd, found.st_size

    def _rotate(self) -> None:
        """Set the file aside; when that fails the lines go on into it, because losing none matters more than its size."""
        aside = self._aside()
        number = aside[-1][0] + 1 if aside else 1
        old = self._fd
        target = self.path.with_name(f"{NAME}.{number:06d}")
        try:
            self.path.rename(target)
        except OSError:
            self._put_off_rotation()
            return
        try:
            self._open()
        except SetupError:
            with suppress(OSError):  # back to its name if that still works; the descriptor is the same file either way
                target.rename(self.path)
            self._put_off_rotation()
            return
        with suppress(OSError):
            os.fdatasync(old)
        os.close(old)
        for _, path in [*aside, (number, target)][: -self._keep]:
            with suppress(OSError):  # tried again at the next rotation
                path.unlink()

    def _put_off_rotation(self) -> None:
        self.rotation_faults += 1
        self._rotate_bytes += self._rotate_bytes // 2

    def _aside(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.path.parent.glob(f"{NAME}.*"):
            number = path.name[len(NAME) + 1 :]
            if number.isdecimal():
                found.append((int(number), path))
        return sorted(found)

    def _remember(self, event: Event) -> None:
        self._index.setdefault(event.id, []).append(event)
        self._index.move_to_end(event.id)
        self._indexed += 1
        while self._indexed > self._recent:  # counted in events: whoever repeats one id takes no more room than others
            _, gone = self._index.popitem(last=False)
            self._indexed -= len(gone)

    # -- reading

    def tail(self, last: int) -> tuple[Event, ...]:
        """Give the last ``last`` events, oldest first, over rotations; torn or foreign lines are passed over."""
        found: deque[Event] = deque()
        if last <= 0:
            return ()
        for line in self._lines_backwards():
            event = _read(line)
            if event is not None:
                found.appendleft(event)
                if len(found) == last:
                    break
        return tuple(found)

    def find(self, id: str) -> tuple[Event, ...]:
        """
        Give the events that carry ``id``, oldest first; empty when none does.

        The last few thousand events are found in memory; others by reading the files backwards, a second or two per gigabyte: call
        it from a thread.  An id whose first events have left memory while it was still in use is given with its later ones only.
        """
        recent = self._index.get(id)
        if recent:
            return tuple(recent)
        needle = b'"id":' + msgspec.json.encode(id)
        found: deque[Event] = deque()
        for line in self._lines_backwards():
            if needle in line:
                event = _read(line)
                if event is not None and event.id == id:
                    found.appendleft(event)
        return tuple(found)

    async def follow(self, last: int = 0) -> AsyncIterator[Event]:
        """
        Give the last ``last`` events and then each one as it is appended, until the journal closes.

        A slow reader misses lines and is told how many (``audit-lost``); the writer never waits for it.
        """
        follower = _Follower(self._follower_lines)
        self._followers.append(follower)  # before tail: nothing falls between (append and this run on one thread)
        try:
            for event in self.tail(last):
                yield event
            async for event in follower:
                yield event
        finally:
            self._followers.remove(follower)

    def _lines_backwards(self) -> Iterator[bytes]:
        for path in [self.path, *(path for _, path in reversed(self._aside()))]:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                yield from _backwards(fd)
            finally:
                os.close(fd)


class _Follower:
    """What one reader has not taken yet; bounded, and says so when it overflowed."""

    def __init__(self, most: int) -> None:
        self._waiting: deque[Event] = deque()
        self._most = most
        self._lost = 0
        self._ended = False
        self._awake = asyncio.Event()

    def offer(self, event: Event) -> None:
        if len(self._waiting) >= self._most:
            self._lost += 1
        else:
            self._waiting.append(event)
        self._awake.set()

    def end(self) -> None:
        self._ended = True
        self._awake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._lost:
                lost, self._lost = self._lost, 0
                yield Event(at=round(time.time(), 6), event="audit-lost", detail=f"{lost} lines were not shown: the reader is too slow")
                continue
            if self._ended:
                return
            self._awake.clear()
            await self._awake.wait()


def _read(line: bytes) -> Event | None:
    try:
        return decode(line)
    except msgspec.DecodeError:
        return None


def _backwards(fd: int) -> Iterator[bytes]:
    """Give the lines of a file, last first, holding one block and one line in memory."""
    at = os.fstat(fd).st_size
    rest = b""
    while at:
        take = min(_BLOCK, at)
        at -= take
        first, *whole = (os.pread(fd, take, at) + rest).split(b"\n")
        for line in reversed(whole):
            if line:
                yield line
        rest = first
    if rest:
        yield rest
