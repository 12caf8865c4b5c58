"""
Find out who a process is.

In: its Facts and the identities of the running set.  Out: the one Identity whose selectors hold, or the Refusal.
No identity is the ordinary case: IDENTITY_NONE lets a connection pass untouched.  A process that would match but is traced, lives in
another namespace or has a path that others may change is refused for that reason instead, so that nobody wonders.  Pure.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from control.errors import Refusal
from control.facts.model import Facts
from control.identity.model import Identity, Selector
from control.identity.selector.kind import Clause
from control.identity.selector.registry import KINDS
from control.reason import Reason


class Explained(NamedTuple):
    """How one identity's selectors fared."""

    identity: str
    alternatives: tuple[tuple[Clause, ...], ...]
    """Outer: any of.  Inner: all of."""

    @property
    def matches(self) -> bool:
        """Whether some alternative holds as a whole."""
        return any(all(clause.holds for clause in clauses) for clauses in self.alternatives)

    @property
    def blocked(self) -> Clause | None:
        """The untrusted clause without which an alternative would hold; None when the identity matches or does not fit at all."""
        if self.matches:
            return None
        for clauses in self.alternatives:
            stopped = [clause for clause in clauses if clause.blocked is not None]
            if stopped and all(clause.holds or clause.blocked is not None for clause in clauses):
                return stopped[0]
        return None


def _explained(facts: Facts, identity: Identity) -> Explained:
    return Explained(identity.name, tuple(_clauses(facts, identity, group) for group in identity.selectors))


def _clauses(facts: Facts, identity: Identity, selectors: Sequence[Selector]) -> tuple[Clause, ...]:
    clauses = tuple(KINDS[selector.kind].clause(facts, selector.values) for selector in selectors)
    if facts.uid == 0 and not identity.allow_root:  # I13: root is everybody's uid in the wrong hands, so it takes an explicit word
        return (*clauses, Clause("allowRoot", ("true",), holds=False, saw="uid 0, and the identity does not allow root"))
    return clauses


def explain(facts: Facts, identities: Iterable[Identity]) -> list[Explained]:
    """Give every clause of every identity, for people."""
    return [_explained(facts, identity) for identity in identities]


def identify(facts: Facts, identities: Iterable[Identity]) -> Identity | Refusal:
    """Give the one identity that matches, or the reason why there is none."""
    found: list[Identity] = []
    stopped: list[tuple[Identity, Clause]] = []
    for identity in identities:
        explained = _explained(facts, identity)
        if explained.matches:
            found.append(identity)
        elif (clause := explained.blocked) is not None:
            stopped.append((identity, clause))
    if not found and not stopped:
        return Refusal(Reason.IDENTITY_NONE)
    wanted = [identity.name for identity in found] or [identity.name for identity, _ in stopped]
    if facts.traced:
        return Refusal(Reason.PROCESS_TRACED, f'process {facts.key.tgid} would be "{wanted[0]}", but a debugger is attached to it')
    if facts.foreign_namespace:
        return Refusal(
            Reason.NAMESPACE_FOREIGN,
            f'process {facts.key.tgid} would be "{wanted[0]}", but it runs in another {facts.foreign_namespace}',
        )
    if len(found) > 1:
        return Refusal(Reason.IDENTITY_AMBIGUOUS, f"process {facts.key.tgid} matches " + ", ".join(f'"{name}"' for name in sorted(wanted)))
    if found:
        return found[0]
    identity, clause = stopped[0]
    assert clause.blocked is not None  # noqa: S101  # Explained.blocked gives such clauses only
    return Refusal(
        clause.blocked, f'process {facts.key.tgid} would be "{identity.name}", but {clause.saw} is not root\'s alone: {clause.fault}'
    )
