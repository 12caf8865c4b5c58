"""
Write fresh digests into the text of a resource file, and touch nothing else: comments, quotes and layout stay.

In: a file's text, what is to be replaced in which selector object.  Out: the text.  Pure.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from control.binding.document import Listing, Node, Scalar, parse
from control.binding.document import Mapping as Fields
from control.binding.kind import workload_identity
from control.errors import ResourceError
from control.reason import Reason


class Spot(NamedTuple):
    """The digests of one selector object."""

    identity: str
    group: int
    """Number of the object in ``selectors``, from 0."""
    kind: str
    """``unix:exe:sha256`` or ``script:sha256``"""


def refreshed(file: str, text: str, wanted: Mapping[Spot, Mapping[str, str]]) -> str:
    """
    Replace digests, old to new, at each of the spots that this file holds.

    Raises ResourceError when the text cannot be parsed, or when a digest stands there in a form that cannot be replaced in its place.
    """
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    edits: list[tuple[int, str, str]] = []
    for spot, scalar in _digests(parse(file, text)):
        old = scalar.text.lower()
        new = wanted.get(spot, {}).get(old)
        if new is None:
            continue
        at = starts[scalar.place.line - 1] + scalar.place.column - 1
        at += text[at] in "'\""
        if text[at : at + len(old)].lower() != old:
            message = "the digest is not written on one line as it is"
            raise ResourceError(Reason.RESOURCE_MALFORMED, message, place=scalar.place, hint=f"write {new} by hand")
        edits.append((at, old, new))
    for at, old, new in sorted(edits, reverse=True):
        text = text[:at] + new + text[at + len(old) :]
    return text


def _digests(documents: list[Node]) -> Iterator[tuple[Spot, Scalar]]:
    """Give every text below a selector, with where it stands."""
    for document in documents:
        if _text(document, "kind") != workload_identity.KIND:
            continue
        name = _text(_below(document, "metadata"), "name")
        groups = _below(_below(document, "spec"), "selectors")
        for number, group in enumerate(groups.items if isinstance(groups, Listing) else ()):
            for kind, entry in group.entries.items() if isinstance(group, Fields) else ():
                nodes = entry.value.items if isinstance(entry.value, Listing) else (entry.value,)
                yield from ((Spot(name, number, kind), node) for node in nodes if isinstance(node, Scalar))


def _below(node: Node | None, key: str) -> Node | None:
    entry = node.entries.get(key) if isinstance(node, Fields) else None
    return entry.value if entry is not None else None


def _text(node: Node | None, key: str) -> str:
    found = _below(node, key)
    return found.text if isinstance(found, Scalar) else ""
