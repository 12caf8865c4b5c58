"""
Look whether the files that digests are pinned for still have them.

In: a ResourceSet or its identities.  Out: Drifts.  A file is read once per version of it; one that is not there is no drift.
"""

import os
from collections.abc import Iterable

from control.binding.drift import Drift, Pin, drifts, pins
from control.binding.model import ResourceSet
from control.facts.digest_io import Digests

_digests = Digests()


def drifted(resources: ResourceSet) -> tuple[Drift, ...]:
    """Give every pinned file whose digest is another one now; blocking, seconds where large files changed."""
    held = pins(resources.identities)
    found = on_disk(held)
    return tuple(dict.fromkeys(drift for pin in held for drift in drifts(pin, found)))


def on_disk(held: Iterable[Pin]) -> dict[str, str]:
    """Give the digest of each file that is pinned and can be read."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for pin in held for path in pin.paths):
        digest = _digest(path)
        if digest is not None:
            found[path] = digest
    return found


def _digest(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _digests.of(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
