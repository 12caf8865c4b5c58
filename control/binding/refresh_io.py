"""
Refresh pinned digests in a resources directory, after an upgrade that somebody looked at.

In: a directory, maybe the name of one identity.  Out: each file that changes, before and after; ``write`` puts one in its place.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from control.binding.drift import pins, renewal
from control.binding.drift_io import on_disk
from control.binding.load_io import SUFFIXES, load_directory
from control.binding.refresh import Spot, refreshed
from control.errors import Place, ResourceError
from control.reason import Reason


class Change(NamedTuple):
    """One file that would be written."""

    file: str
    before: str
    after: str


def changes(directory: Path, trust_domain: str, identity: str = "", *, guarded: bool | None = None) -> tuple[Change, ...]:
    """
    Give the files in which a pinned digest is no longer that of the file on disk; of one identity, or of all.

    Raises ResourceError: the directory does not load, there is no such identity, or which digest to replace cannot be told.
    """
    found, errors, _ = load_directory(directory, trust_domain, guarded=guarded)
    if found is None:
        raise errors[0]
    names = sorted(one.name for one in found.identities)
    if identity and identity not in names:
        raise ResourceError(Reason.RESOURCE_DANGLING, f'there is no identity "{identity}"', hint=f"defined: {', '.join(names) or 'none'}")
    held = [pin for pin in pins(found.identities) if identity in ("", pin.identity)]
    now = on_disk(held)
    wanted = {Spot(pin.identity, pin.group, pin.kind): renewal(pin, now) for pin in held}
    made = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.suffix not in SUFFIXES:
            continue
        before = path.read_bytes().decode()
        after = refreshed(str(path), before, wanted)
        if after != before:
            made.append(Change(str(path), before, after))
    return tuple(made)


def write(change: Change) -> None:
    """
    Replace a file as a whole, with the owner and mode it has.

    Raises ResourceError when it is no longer what ``change`` began with, OSError when it cannot be written.
    """
    path = Path(change.file)
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if file.read() != change.before.encode():
            message = "the file changed meanwhile"
            raise ResourceError(Reason.RESOURCE_MALFORMED, message, place=Place(change.file, 1, 1), hint="run the command again")
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(change.after.encode())
        os.fchown(file.fileno(), found.st_uid, found.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
