"""
Say of two selector objects what keeps them apart.

In: a selector object.  Out: its selectors by kind, in a form in which no value in common under one kind means no process in common.  Pure.
"""

from collections.abc import Sequence

from control.identity.model import Selector
from control.identity.selector import unix_exe_package


def exclusive(group: Sequence[Selector]) -> dict[str, frozenset[str]]:
    """Give the values by kind; a package stands for itself in every architecture, as ``curl`` and ``curl:amd64`` are one program."""
    return {selector.kind: frozenset(_apart(selector.kind, value) for value in selector.values) for selector in group}


def _apart(kind: str, value: str) -> str:
    return value.partition(":")[0] if kind == unix_exe_package.NAME else value
