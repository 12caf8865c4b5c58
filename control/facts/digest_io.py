"""
Take the digest of an open executable or script, once per content.

In: a descriptor open for reading.  Out: the hex digest, or nothing where a digest could not be believed.
Kept by (device, inode, size, mtime, ctime): ctime cannot be set back without root.  A file that changed just now is not kept, as a second
write within the clock's grain would leave no trace (the "racy git" problem).
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from typing import Literal

from control.facts.path_io import served_by

MAX_KEPT = 512
"""Digests kept; the oldest goes first and is simply taken again."""
MAX_BYTES = 1 << 30
"""Larger executables get no digest, so that nobody keeps us reading."""
SETTLED_NS = 2_000_000_000
"""A file whose ctime is younger is hashed each time."""

_Key = tuple[int, int, int, int, int]


def _key(found: os.stat_result) -> _Key:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Digests:
    """A bounded cache of digests; used by several threads."""

    def __init__(self, limit: int = MAX_KEPT, algorithm: Literal["sha256", "md5"] = "sha256") -> None:
        self._kept: OrderedDict[_Key, str] = OrderedDict()
        self._limit, self._algorithm = limit, algorithm
        self._lock = threading.Lock()
        self.taken = 0
        """Files read since start."""

    def of(self, fd: int) -> str | None:
        """
        Give the digest of the file behind ``fd``.

        None when it is too large, changes while it is read, or lies on a file system that a program or another machine serves: such a one
        may show us other bytes than it showed to execve(2).
        Raises OSError when it cannot be read.
        """
        found = os.fstat(fd)
        if found.st_size > MAX_BYTES or served_by(fd):
            return None
        key = _key(found)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        digest = self._take(fd)
        if _key(os.fstat(fd)) != key:
            return None
        if time.time_ns() - found.st_ctime_ns > SETTLED_NS:
            self._keep(key, digest)
        return digest

    def _take(self, fd: int) -> str:
        self.taken += 1
        hasher = hashlib.new(self._algorithm, usedforsecurity=False)  # MD5 is what dpkg keeps: docs/reference/selectors.md says its worth
        at = 0
        while chunk := os.pread(fd, 1 << 20, at):
            hasher.update(chunk)
            at += len(chunk)
            if at > MAX_BYTES:
                break
        return hasher.hexdigest()

    def _keep(self, key: _Key, digest: str) -> None:
        with self._lock:
            self._kept[key] = digest
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
