"""
Who a process is.

In: Facts and the identities of the running set.  Out: an Identity, or a Refusal.  Pure.
"""

import msgspec


class Selector(msgspec.Struct, frozen=True):
    """One key of one selector object: ``kind`` is the registry's word, ``values`` are ORed."""

    kind: str
    """``unix:uid``, ``unix:exe:path``, ``unix:exe:sha256``, ``script:path``"""
    values: tuple[str, ...]


class Identity(msgspec.Struct, frozen=True):
    """A WorkloadIdentity that is in force."""

    name: str
    spiffe_id: str
    environment: str
    selectors: tuple[tuple[Selector, ...], ...]
    """Outer: any of.  Inner: all of."""
    egress: str = "open"
    """``open``: other names pass through untouched; ``bound-only``: they are refused."""
    allow_root: bool = False
    """Whether a process of uid 0 may have it; without, root matches no selector of it."""
