"""Digests of executables: once per content, and never one that could not be believed."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.facts import digest_io
from control.facts.digest_io import Digests


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file of known content and a descriptor of it."""
    path = tmp_path / "exe"
    path.write_bytes(b"x" * 3_000_000)
    fd = os.open(path, os.O_RDONLY)
    yield path, fd
    os.close(fd)


def test_the_digest_is_that_of_the_open_file(opened: tuple[Path, int]) -> None:
    """Also after the path names another file."""
    path, fd = opened
    path.unlink()
    path.write_bytes(b"other")
    assert Digests().of(fd) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_settled_file_is_read_once_and_a_changed_one_again(opened: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache goes by device, inode, size, mtime and ctime; a change moves ctime."""
    monkeypatch.setattr(digest_io, "SETTLED_NS", -(10**18))
    path, fd = opened
    digests = Digests()
    first = digests.of(fd)
    assert digests.of(fd) == first
    assert digests.taken == 1
    path.write_bytes(b"y" * 3_000_000)
    os.utime(path, ns=(1, 1))
    assert digests.of(fd) == hashlib.sha256(b"y" * 3_000_000).hexdigest()
    assert digests.taken == 2


def test_a_file_that_changed_just_now_is_read_each_time(opened: tuple[Path, int]) -> None:
    """A second write within the clock's grain would leave no trace."""
    digests = Digests()
    digests.of(opened[1])
    digests.of(opened[1])
    assert digests.taken == 2


def test_the_cache_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(digest_io, "SETTLED_NS", -(10**18))
    digests = Digests(limit=2)
    fds = []
    for number in range(3):
        (tmp_path / str(number)).write_bytes(bytes([number]))
        fds.append(os.open(tmp_path / str(number), os.O_RDONLY))
    for fd in (*fds, fds[2], fds[0]):
        digests.of(fd)
    assert digests.taken == 4
    for fd in fds:
        os.close(fd)


def test_a_file_that_is_too_large_has_no_digest(opened: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps us reading."""
    monkeypatch.setattr(digest_io, "MAX_BYTES", 1000)
    assert Digests().of(opened[1]) is None


def test_a_file_that_a_program_serves_has_no_digest(opened: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE may show us other bytes than it showed to execve(2)."""
    monkeypatch.setattr(digest_io, "served_by", lambda _: "FUSE")
    assert Digests().of(opened[1]) is None
