"""
What the selectors over paths share: which paths may be named, and when a matching one is believed.

In: a value, a PathFact.  Out: the value, a Clause.  Pure.
"""

from control.errors import ResourceError
from control.facts.model import PathFact
from control.identity.selector.kind import Clause
from control.reason import Reason

MAX_PATH = 255
"""Bytes of a path in a selector: what the kernel's tables hold of one, less the final zero."""


def check_path(value: str) -> str:
    """Accept an absolute path in the one spelling that the kernel reports."""
    if not value.startswith("/"):
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'path "{value}" is not absolute', hint="write the path from / on")
    if any(part in ("", ".", "..") for part in value[1:].split("/")):
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'path "{value}" has empty, . or .. components', hint="write what realpath prints")
    if not value.isprintable() or not value.isascii() or "*" in value or "?" in value:
        raise ResourceError(
            Reason.RESOURCE_MALFORMED,
            f'path "{value}" holds characters other than printable ASCII without * and ?',
            hint="name one file exactly",
        )
    if len(value) > MAX_PATH:
        raise ResourceError(
            Reason.RESOURCE_UNCOMPILABLE, f'path "{value[:40]}…" is longer than {MAX_PATH} bytes', hint="use a shorter path"
        )
    return value


def path_clause(kind: str, values: tuple[str, ...], fact: PathFact | None, untrusted: Reason) -> Clause:
    """Hold when the path is one of ``values`` and only root could have put it there."""
    if fact is None:
        return Clause(kind, values, holds=False, saw="none")
    if fact.path not in values:
        return Clause(kind, values, holds=False, saw=fact.path)
    if not fact.root_owned:
        return Clause(kind, values, holds=False, saw=fact.path, blocked=untrusted, fault=fact.fault or "not root's alone")
    return Clause(kind, values, holds=True, saw=fact.path)
