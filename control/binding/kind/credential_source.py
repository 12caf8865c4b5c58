"""
``kind: CredentialSource``: where a credential comes from.

In: the Sheet of its spec.  Out: a SourceDraft.  docs/reference/credential-source.md.  Pure.
"""

from typing import NamedTuple

from control.binding.kind.header import Header
from control.binding.name import check_label
from control.binding.sheet import Sheet
from control.binding.source.kind import Of, Roots, SourceKind
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
    of: Of | None
    federation: str
    """Empty where the kind needs none."""
    federation_place: Place | None
    environment: str
    ttl_cap_s: int


def read(header: Header, spec: Sheet, roots: Roots) -> SourceDraft:
    """Read the spec."""
    environment = spec.text("environment", needed=True, check=check_label, example="prod", rule="one-environment")
    ttl_cap_s = spec.duration("ttlCap", low_s=60, high_s=MAX_TTL_S, default_s=3600, rule="short-lived")
    kinds = [kind for kind in spec.entries if kind in SOURCES or kind in LATER]
    kind, of = "", None
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
            kind, of = one, SOURCES[one].read(spec.sheet(one, needed=True, private=SOURCES[one].private), roots)
    federation = _federation(spec, SOURCES[kind]) if len(kinds) == 1 and kind else spec.text("federation", check=check_label)
    if len(kinds) == 1 and kind and SOURCES[kind].reviewed:
        _reviewed(spec, kind)
    spec.known |= set(SOURCES)
    spec.close()
    return SourceDraft(header, kind, of, federation, spec.where("federation"), environment, ttl_cap_s)


def _federation(spec: Sheet, kind: SourceKind) -> str:
    if kind.federated:
        return spec.text("federation", needed=True, check=check_label, example="the name of a Federation")
    if spec.has("federation"):
        spec.fault("spec.federation is for sources that exchange our tokens: this one exchanges nothing", spec.entries["federation"].place,
                   hint="remove it")  # fmt: skip
    return ""


def _reviewed(spec: Sheet, kind: str) -> None:
    """Ask for both dates of the review; a date that is there and wrong is told already."""
    examples = {"reviewedAt": "2026-01-31", "reviewEvery": "90d"}
    for field, example in examples.items():
        if spec.node(field) is None and not spec.broken:
            spec.fault(f"spec.{field} is missing, and a {kind} source needs it", hint=f"add {field}: {example}", rule="static-reviewed",
                       reason=Reason.RESOURCE_OVERBROAD)  # fmt: skip
