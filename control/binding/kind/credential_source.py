"""
``kind: CredentialSource``: where a credential comes from.

In: the Sheet of its spec.  Out: a SourceDraft.  docs/reference/credential-source.md.  Pure.
"""

from collections.abc import Callable
from typing import NamedTuple

from control.binding.kind.header import Header
from control.binding.model import OciSource
from control.binding.name import check_label
from control.binding.sheet import Sheet
from control.binding.source.registry import LATER, SOURCES
from control.errors import Place
from control.reason import Reason

KIND = "CredentialSource"
MAX_TTL_S = 24 * 3600
"""A credential that lives longer is worth stealing (C5)."""


class SourceDraft(NamedTuple):
    """What the document says, before names are looked up."""

    header: Header
    kind: str
    oci: OciSource | None
    federation: str
    federation_place: Place | None
    environment: str
    ttl_cap_s: int


def read(header: Header, spec: Sheet, roots: Callable[[Sheet], str]) -> SourceDraft:
    """Read the spec."""
    federation = spec.text("federation", needed=True, check=check_label, example="the name of a Federation")
    environment = spec.text("environment", needed=True, check=check_label, example="prod")
    ttl_cap_s = spec.duration("ttlCap", low_s=60, high_s=MAX_TTL_S, default_s=3600)
    kinds = [kind for kind in spec.entries if kind in SOURCES or kind in LATER]
    kind, oci = "", None
    for later in kinds:
        if later in LATER:
            spec.known.add(later)
            known = ", ".join(SOURCES)
            spec.fault(f'source kind "{later}" is not available in this version', spec.entries[later].place, hint=f"available: {known}")
    if len(kinds) > 1:
        names = " and ".join(f'"{one}"' for one in kinds)
        spec.fault(f"the source has {names}: a source is of exactly one kind", spec.entries[kinds[1]].place,
                   hint="make one CredentialSource for each", reason=Reason.RESOURCE_MALFORMED)  # fmt: skip
    if not kinds and not spec.broken:
        spec.fault("the source has no kind", hint="add one of: " + ", ".join(SOURCES))
    for one in kinds:
        if one in SOURCES:
            kind, oci = one, SOURCES[one].read(spec.sheet(one, needed=True), roots)
    spec.known |= set(SOURCES)
    spec.close()
    return SourceDraft(header, kind, oci, federation, spec.where("federation"), environment, ttl_cap_s)
