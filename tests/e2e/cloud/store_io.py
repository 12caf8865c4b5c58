"""
Keep objects in files without a name, so that nothing is left when the process dies, however it dies.

In: chunks.  Out: blobs with size and digests, read back by offset.
"""

import base64
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_BYTES = 4 << 30
"""All objects together."""


class StoreFull(Exception):
    """The cloud keeps no more."""


class Blob:
    """Bytes that arrive in chunks; an O_TMPFILE behind them."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # lives as long as the blob
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self.size = 0

    def append(self, chunk: bytes) -> None:
        """Add a chunk.  Raises StoreFull."""
        if self.size + len(chunk) > MAX_BYTES:
            raise StoreFull
        self._file.write(chunk)
        self._md5.update(chunk)
        self._sha256.update(chunk)
        self.size += len(chunk)

    def read(self, offset: int, length: int) -> bytes:
        """Read at ``offset``; short at the end."""
        return os.pread(self._file.fileno(), length, offset)

    @property
    def md5_base64(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()

    @property
    def sha256(self) -> bytes:
        return self._sha256.digest()

    def close(self) -> None:
        """Let go of the bytes."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: a blob, or the blobs of its parts in order."""

    blobs: tuple[Blob, ...]
    etag: str
    content_type: str
    modified: float

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)

    def chunks(self, start: int, stop: int, step: int = 256 << 10) -> Iterator[bytes]:
        """Bytes ``start`` to ``stop``, not including ``stop``."""
        base = 0
        for blob in self.blobs:
            at, end = max(start - base, 0), min(stop - base, blob.size)
            while at < end:
                chunk = blob.read(at, min(step, end - at))
                at += len(chunk)
                yield chunk
            base += blob.size


@dataclass(slots=True)
class Upload:
    """A multipart upload under way."""

    name: str
    content_type: str
    parts: dict[int, tuple[str, Blob]] = field(default_factory=dict)


class Store:
    """Buckets come into being with their first object."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Stored] = {}
        self.uploads: dict[str, Upload] = {}

    def put(self, bucket: str, name: str, blobs: tuple[Blob, ...], content_type: str, now: float) -> Stored:
        """Keep an object; the former one of that name goes away with its last reader.  Raises StoreFull."""
        held = sum(stored.size for key, stored in self.objects.items() if key != (bucket, name))
        if held + sum(blob.size for blob in blobs) > MAX_BYTES:
            raise StoreFull
        stored = Stored(blobs, secrets.token_hex(16), content_type, now)
        self.objects[bucket, name] = stored
        return stored

    def names(self, bucket: str, prefix: str) -> list[tuple[str, Stored]]:
        """Objects of a bucket, by name."""
        return sorted((name, stored) for (holder, name), stored in self.objects.items() if holder == bucket and name.startswith(prefix))
