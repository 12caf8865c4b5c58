"""
Read the resources directory.

In: a directory.  Out: a ResourceSet or errors, and warnings.
As root, what is read must be root's: a file or directory that others may write is an error (C2).  As anybody else (``credwire validate``
in a repository) that is not asked.  Resource files are plain ones: a link or a pipe is an error, as is a file that changes under the eyes.
"""

import gc
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from control.binding.load import Loaded, load
from control.binding.roots import MAX_BYTES, check_roots
from control.errors import Place, ResourceError
from control.facts.path_io import look
from control.reason import Reason
from control.units import Revision

SUFFIXES = (".yaml", ".yml")
MAX_FILE = 16 << 20
"""Bytes of one document file; the parser's own limit in characters is lower."""


def load_directory(
    directory: Path,
    trust_domain: str,
    *,
    revision: Revision = Revision(0),  # noqa: B008  # a number
    guarded: bool | None = None,
) -> Loaded:
    """
    Load every ``*.yaml`` and ``*.yml`` of ``directory``, in the order of their names; sub-directories and hidden files are left alone.

    ``guarded`` asks that everything read is root's alone; None means when we are root.
    """
    guarded = os.geteuid() == 0 if guarded is None else guarded
    errors: list[ResourceError] = []
    files: list[tuple[str, str]] = []
    ignored: list[ResourceError] = []
    try:
        names = sorted(directory.iterdir())
    except OSError as error:
        return Loaded(None, [_unreadable(directory, error)], [])
    for path in names:
        if path.name.startswith(".") or path.suffix not in SUFFIXES:
            if not path.name.startswith(".") and path.is_file():
                message = "the file is not read: its name ends neither in .yaml nor in .yml"
                ignored.append(ResourceError(Reason.RESOURCE_MALFORMED, message, place=Place(str(path), 1, 1), hint="rename or remove it"))
            continue
        try:
            files.append((str(path), _document(path, guarded=guarded)))
        except ResourceError as error:
            errors.append(error)
    today = datetime.now(UTC).date()
    with _without_collector():
        loaded = load(files, lambda path: read_roots(path, guarded=guarded), trust_domain, revision=revision, today=today)
    errors += loaded.errors
    return Loaded(None if errors else loaded.found, errors, [*ignored, *loaded.warnings])


@contextmanager
def _without_collector() -> Iterator[None]:
    """
    Hold the cyclic collector off for the moment that a set is read.

    Nodes of documents make no cycles, but a hundred thousand of them make it search again and again, for a third of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _unreadable(path: Path, error: OSError) -> ResourceError:
    return _fault(path, (error.strerror or "cannot be read").lower(), "check the path and its mode")


def _document(path: Path, *, guarded: bool) -> str:
    raw = _content(path, MAX_FILE, guarded=guarded)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        place = Place(str(path), before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1)
        raise ResourceError(Reason.RESOURCE_MALFORMED, "the file is not UTF-8", place=place, hint="save it as UTF-8") from error


def read_roots(path: str, *, guarded: bool) -> str:
    """Read a CA file.  Raises ResourceError: without a place, the document that names it has one."""
    try:
        return check_roots(path, _content(Path(path), MAX_BYTES, guarded=guarded, link_ok=True))
    except ResourceError as error:
        error.message = f'CA file "{path}": {error.message}' if error.place is not None else error.message
        error.place = None
        raise


def _content(path: Path, limit: int, *, guarded: bool, link_ok: bool = False) -> bytes:
    """Read a plain file once and whole; guarded, only when it is root's alone all the way down."""
    try:
        mode = (path.stat() if link_ok else path.lstat()).st_mode
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISLNK(mode):  # what it leads to is edited elsewhere, by people who do not see that it is a resource
        raise _fault(path, "a symbolic link is no resource file", "copy the file here, or name its directory as resources")
    if not stat.S_ISREG(mode):  # a pipe would hold us until somebody writes
        raise _fault(path, "it is no plain file", "remove it, or rename it so that it does not end in .yaml")
    if guarded:
        fact = look(str(path.absolute()), sticky_ok=True)
        if not fact.root_owned:
            hint = "chown root and chmod go-w the file and every directory above it"
            raise _fault(path, f"others than root may change it: {fact.fault}", hint)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if link_ok else os.O_NOFOLLOW))
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):  # it was one a moment ago
            raise _fault(path, "it is no plain file any more", "write beside it and rename, then try again")
        with os.fdopen(fd, "rb", closefd=False) as file:
            raw = file.read(limit + 1)
        after = os.fstat(fd)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    if len(raw) > limit:
        raise _fault(path, f"the file is larger than {limit} bytes", "split it")
    if _stamp(before) != _stamp(after) or len(raw) != after.st_size:
        raise _fault(path, "the file changed while it was read", "write beside it and rename, then try again")
    return raw


def _stamp(of: os.stat_result) -> tuple[int, int, int]:
    return of.st_size, of.st_mtime_ns, of.st_ctime_ns


def _fault(path: Path, message: str, hint: str) -> ResourceError:
    return ResourceError(Reason.RESOURCE_MALFORMED, message, place=Place(str(path), 1, 1), hint=hint)
