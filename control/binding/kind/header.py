"""
Read what every resource has: apiVersion, kind, metadata, owner and review.

In: one document.  Out: a Header and the Sheet of its spec.  Pure.
"""

from datetime import date, timedelta
from typing import NamedTuple

from control.binding.document import Mapping, Node, Scalar
from control.binding.name import check_label, check_owner
from control.binding.sheet import Faults, Sheet
from control.errors import Place, ResourceError
from control.reason import Reason

API_VERSION = "credwire/v1alpha1"
_MAX_REVIEW_S = 366 * 86400


class Header(NamedTuple):
    """Who a resource is."""

    kind: str
    name: str
    place: Place
    """Of the name."""
    owner: str
    reviewed: str = ""
    """Day of the last review, as written."""
    every_s: int = 0
    """A review is due that long after the last one; 0 means never."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def read_header(node: Node, faults: Faults, warnings: Faults, today: date | None) -> tuple[Header, Sheet] | None:
    """Read one document's outside; None when it has no name to go by."""
    if not isinstance(node, Mapping):
        Sheet(node, "the document", faults)
        return None
    top = Sheet(node, "", faults)
    version = top.text("apiVersion", needed=True, example=API_VERSION)
    if version and version != API_VERSION:
        top.fault(f'apiVersion "{version}" is not known', top.where("apiVersion"), hint=f"write {API_VERSION}")
    kind = top.text("kind", needed=True, example="WorkloadIdentity")
    metadata = top.sheet("metadata", needed=True, example="{name: …}")
    name = metadata.text("name", needed=True, check=check_label, example="a-name")
    place = metadata.where("name") or node.place
    metadata.close()
    spec = top.sheet("spec", needed=True, example="…")
    top.close()
    if not kind:
        return None
    owner = spec.text("owner", needed=True, check=check_owner, example="team@example.org", rule="owner-named")
    reviewed, every_s = _review(spec, warnings, today)
    return Header(kind, name, place, owner, reviewed, every_s), spec


def _review(spec: Sheet, warnings: Faults, today: date | None) -> tuple[str, int]:
    every_s = spec.duration("reviewEvery", low_s=86400, high_s=_MAX_REVIEW_S, default_s=0, rule="review-yearly")
    node = spec.node("reviewedAt")
    if node is None:
        if every_s:
            spec.fault("spec.reviewEvery stands without reviewedAt", spec.where("reviewEvery"), hint="add reviewedAt: 2026-01-31")
        return "", every_s
    text = node.text if isinstance(node, Scalar) else ""
    try:
        reviewed = date.fromisoformat(text)
    except ValueError:
        reviewed = None
    if reviewed is None or str(reviewed) != text:  # fromisoformat knows further spellings, such as 20260131 and 2026-W05-6
        spec.fault("spec.reviewedAt is no date", node.place, hint="write it like 2026-01-31")
        return "", every_s
    if today is not None and reviewed > today:
        spec.fault(f"spec.reviewedAt {reviewed} lies in the future", node.place, hint="write the day of the last review")
    elif today is not None and every_s and (due := reviewed + timedelta(seconds=every_s)) < today:
        warnings.append(
            ResourceError(Reason.RESOURCE_MALFORMED, f"the review was due on {due}", place=node.place, hint="review it and set reviewedAt")
        )
    return text, every_s
