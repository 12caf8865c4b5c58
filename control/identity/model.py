"""
Who a process is.

In: Facts and the identities of the running set.  Out: an Identity, or a Refusal.  Pure.
"""

import msgspec


class Selector(msgspec.Struct, frozen=True):
    """One key of one selector object: ``kind`` is the registry's word, ``values`` are ORed."""

    kind: str
    """``unix:uid``, ``unix:exe:path``, …: a row of control/identity/selector/registry.py"""
    values: tuple[str, ...]
    numbers: tuple[int | None, ...] | None = None
    """
    What each value stands for on this machine, where values are names of users or groups: None for a name that nobody has.  None as a
    whole: nobody looked, and so no process matches.
    """


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
