"""
Read the resources directory.

In: a directory.  Out: a ResourceSet or errors, and warnings.
As root, what is read must be root's: a file or directory that others may write is an error (C2).  As anybody else (``credwire validate``
in a repository) that is not asked.
"""

import os
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
    loaded = load(files, lambda path: read_roots(path, guarded=guarded), trust_domain, revision=revision, today=datetime.now(UTC).date())
    errors += loaded.errors
    return Loaded(None if errors else loaded.found, errors, [*ignored, *loaded.warnings])


def _unreadable(path: Path, error: OSError) -> ResourceError:
    why = (error.strerror or "cannot be read").lower()
    return ResourceError(Reason.RESOURCE_MALFORMED, why, place=Place(str(path), 1, 1), hint="check the path and its mode")


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
        return check_roots(path, _content(Path(path), MAX_BYTES, guarded=guarded))
    except ResourceError as error:
        error.message = f'CA file "{path}": {error.message}' if error.place is not None else error.message
        error.place = None
        raise


def _content(path: Path, limit: int, *, guarded: bool) -> bytes:
    """Read a file once; guarded, only when it is root's alone all the way down."""
    if guarded:
        fact = look(str(path.absolute()), sticky_ok=True)
        if not fact.root_owned:
            hint = "chown root and chmod go-w the file and every directory above it"
            message = f"others than root may change it: {fact.fault}"
            raise ResourceError(Reason.RESOURCE_MALFORMED, message, place=Place(str(path), 1, 1), hint=hint)
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(raw) > limit:
        message = f"the file is larger than {limit} bytes"
        raise ResourceError(Reason.RESOURCE_MALFORMED, message, place=Place(str(path), 1, 1), hint="split it")
    return raw
