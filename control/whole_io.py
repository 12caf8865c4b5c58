"""
Write a file of ours whole or not at all: a crash or a full disk leaves the former content or the new one.

In: where, and what.  Out: the file, mode 0600, on the disk when this returns.  What is written beside it first goes when that fails.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(target: Path, content: bytes) -> None:
    """Replace ``target``; two who do so at once each write a whole one.  Raises OSError."""
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(directory, target.name, content, fresh=f".{target.name}.{secrets.token_hex(4)}")
    finally:
        os.close(directory)


def write_in(directory: int, name: str, content: bytes, *, fresh: str = "") -> None:
    """Replace ``name`` in an open directory; until it is whole it is called ``fresh``, else ``<name>.new``.  Raises OSError."""
    fresh = fresh or f"{name}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise
    os.fsync(directory)
