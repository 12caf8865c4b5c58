"""
What a signer reads and gives.

In: nothing.  Out: the types every signer shares.  Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from control.binding.model import WireSigner
from control.credential.model import Issue
from control.errors import Refusal

BODY_HASH_WANTED = "body-hash-wanted"
"""
Detail of a SIGNATURE_UNREADABLE refusal that is no end: buffer the body up to the cap and ask again with ``x-content-sha256`` and
``content-length`` added to the head.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request head as it will be sent, before the credential."""

    method: str
    target: str
    """Raw request target: path and query, never decoded."""
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """What to change in the head, and what must then be true of the body."""

    remove: tuple[str, ...]
    """Lower-case names; every occurrence goes."""
    set: tuple[tuple[str, str], ...] = field(repr=False)
    """Added after the removal, in this order."""
    body_sha256: str = ""
    """base64; when set the signature covers it and the body must match."""
    target: str = field(default="", repr=False)
    """When set, sent in the place of the raw request target; may hold the secret, so it is never logged."""


Signer = Callable[[Request, Issue, float, WireSigner], "Signed | Refusal"]
"""``sign(request, issue, now, options)`` with ``now`` in Unix seconds and the options of the signer's own kind."""
