"""
Compare pinned digests with the files that lie on disk.

In: identities, the digests of files.  Out: what drifted, and which digest takes the place of which.
A digest is pinned where a selector object names it beside the paths it is for; each of the paths may have any of the digests.  Pure.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from control.errors import ResourceError
from control.identity.model import Identity
from control.reason import Reason

PINNING = {"unix:exe:sha256": "unix:exe:path", "script:sha256": "script:path"}
"""The selector for a digest, and the one that says of which file."""


class Pin(NamedTuple):
    """Digests that one selector object holds for its files."""

    identity: str
    group: int
    """Number of the object in ``selectors``, from 0."""
    kind: str
    """``unix:exe:sha256`` or ``script:sha256``"""
    paths: tuple[str, ...]
    digests: tuple[str, ...]


class Drift(NamedTuple):
    """A file that is no longer one of those that its identity pins."""

    identity: str
    path: str
    pinned: tuple[str, ...]
    found: str
    """SHA-256 of the file on disk."""
    kind: str = "unix:exe:sha256"

    def __str__(self) -> str:
        pinned = " or ".join(f"{digest[:12]}…" for digest in self.pinned)
        return f'identity "{self.identity}": {self.path} has SHA-256 {self.found[:12]}…, {self.kind} pins {pinned}'


def pins(identities: Iterable[Identity]) -> list[Pin]:
    """Give every pin."""
    found = []
    for identity in identities:
        for number, group in enumerate(identity.selectors):
            of = {selector.kind: selector.values for selector in group}
            for kind, path in PINNING.items():
                if kind in of and path in of:
                    found.append(Pin(identity.name, number, kind, of[path], of[kind]))
    return found


def drifts(pin: Pin, found: Mapping[str, str]) -> list[Drift]:
    """Give the files of a pin that have another digest; ``found`` holds those that could be read."""
    return [
        Drift(pin.identity, path, pin.digests, found[path], pin.kind)
        for path in pin.paths
        if path in found and found[path] not in pin.digests
    ]


def renewal(pin: Pin, found: Mapping[str, str]) -> dict[str, str]:
    """
    Say which digest takes the place of which: those that no file has any more make room for those that files have now.

    Raises ResourceError without a place where that cannot be told.
    """
    fresh = list(dict.fromkeys(drift.found for drift in drifts(pin, found)))
    stale = [digest for digest in pin.digests if digest not in found.values()]
    missing = [path for path in pin.paths if path not in found]
    if fresh and len(fresh) != len(stale) and (missing or len(fresh) > len(stale)):
        lacks = f"{missing[0]} cannot be read" if missing else f"{len(stale)} digests would become {len(fresh)}"
        raise ResourceError(
            Reason.RESOURCE_MALFORMED,
            f'identity "{pin.identity}": which {pin.kind} to replace cannot be told: {lacks}',
            hint="give each file a selector object of its own, or write by hand: " + ", ".join(fresh),
        )
    return dict(zip(stale, fresh, strict=False))
