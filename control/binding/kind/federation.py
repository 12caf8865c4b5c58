"""
``kind: Federation``: what a far side trusts us for; its own object, reviewed apart from access.

In: the Sheet of its spec.  Out: a FederationDraft.  docs/reference/federation.md.  Pure.
"""

import re
from typing import NamedTuple

from control.binding.document import Listing
from control.binding.kind.header import Header
from control.binding.name import malformed, overbroad
from control.binding.sheet import Sheet
from control.errors import Place
from control.reason import Reason

KIND = "Federation"
_RULE = re.compile(r"(?P<claim>[A-Za-z_]+) (?P<operator>[a-z]+) (?P<value>\S+)")


class FederationDraft(NamedTuple):
    """What the document says."""

    header: Header
    audience: str
    subject: str
    """The one SPIFFE ID that the rule names."""
    subject_place: Place | None
    principal: str


def read(header: Header, spec: Sheet) -> FederationDraft:
    """Read the spec."""
    spec.choice("issuer", ("self",), needed=True)
    audience = ""
    node = spec.node("audience", needed=True, example="oci-prod")
    if isinstance(node, Listing):
        spec.fault("spec.audience is a list: a token for several audiences can be replayed by each to the others", node.place,
                   hint="write one audience, and one Federation for each", rule="one-audience",
                   reason=Reason.RESOURCE_OVERBROAD)  # fmt: skip
    elif node is not None:
        audience = spec.text("audience", check=_audience)
    subject = spec.text("subjectRule", needed=True, check=_subject, example='"sub eq spiffe://…"')
    principal = spec.text("principal", needed=True, check=_principal, example="svc-oci-cli")
    spec.close()
    return FederationDraft(header, audience, subject, spec.where("subjectRule"), principal)


def _audience(value: str) -> str:
    if "*" in value:
        raise overbroad("one-audience", f'audience "{value}" holds a *', "name the one audience that the far side expects")
    if len(value) > 255 or not value.isascii() or " " in value or "," in value:
        raise malformed(f'audience "{value}" holds blanks, commas or non-ASCII, or is longer than 255', "name one audience")
    return value


def _subject(value: str) -> str:
    """Give the SPIFFE ID of ``sub eq <SPIFFE ID>``, the one rule that names one workload."""
    found = _RULE.fullmatch(value)
    if found is None:
        raise malformed(f'subjectRule "{value}" is not <claim> <operator> <value>', "write sub eq spiffe://<trust domain>/<workload>")
    if found["claim"] != "sub":
        raise malformed(f'subjectRule looks at "{found["claim"]}"', "our tokens name the workload in sub: write sub eq spiffe://…")
    if found["operator"] == "co" or "*" in found["value"]:
        raise overbroad("one-subject", f'subjectRule "{value}" trusts more than one workload', "write sub eq with the whole SPIFFE ID")
    if found["operator"] != "eq":
        raise malformed(f'subjectRule has the operator "{found["operator"]}"', "write sub eq spiffe://…")
    if not found["value"].startswith("spiffe://"):
        raise malformed(f'subjectRule names "{found["value"]}"', "name a SPIFFE ID: sub eq spiffe://<trust domain>/<workload>")
    return found["value"]


def _principal(value: str) -> str:
    if "*" in value:
        raise overbroad("one-principal", f'principal "{value}" holds a *', "name the one service user that the exchange must yield")
    if len(value) > 255 or not value.isprintable():
        raise malformed("principal is longer than 255 characters or not printable", "name the service user")
    return value
