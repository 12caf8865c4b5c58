"""
What every kind of selector offers.

In: nothing.  Out: the types that control/identity/selector/<kind>.py fill and control/identity/selector/registry.py lists.  Pure.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from control.facts.model import Facts
from control.identity.model import Selector
from control.reason import Reason


class Clause(NamedTuple):
    """What became of one selector on one process."""

    kind: str
    values: tuple[str, ...]
    holds: bool
    saw: str
    """What the process has, for people."""
    blocked: Reason | None = None
    """Set when the value is right but cannot be trusted: the clause does not hold, and this is why."""
    fault: str = ""
    """Why it cannot be trusted, for people."""
    meaning: str = ""
    """What ``values`` stand for on this machine, where they are names, for people."""

    @property
    def told(self) -> str:
        """What was seen and what would have matched, in one line."""
        if self.holds:
            return f"{self.kind}: yes (saw {self.saw})"
        wanted = " or ".join(self.values[:4]) + (f" or {len(self.values) - 4} more" if len(self.values) > 4 else "")
        meaning = f" ({self.meaning})" if self.meaning else ""
        fault = f", but {self.fault}" if self.fault else ""
        return f"{self.kind}: NO (saw {self.saw}{fault}; wants {wanted or 'nothing'}{meaning})"


class Kind(NamedTuple):
    """One kind of selector: a file of its own and a row of the registry."""

    name: str
    check: Callable[[str], str]
    """Give the normal form of a value; raises ResourceError saying what is wrong."""
    clause: Callable[[Facts, Selector], Clause]
    filters: Literal["exe", "uid", "script", ""]
    """What it becomes in a kernel filter; empty when the kernel cannot see it."""
    numeric: bool = False
    """Written as a number in YAML."""
    named: Literal["user", "group", ""] = ""
    """Whose names the values are; they are looked up on the machine before anything matches."""
