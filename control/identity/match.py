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
from control.identity.program import is_interpreter, is_relay
from control.identity.selector import script_path, unix_exe_package
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
    clauses = tuple(KINDS[selector.kind].clause(facts, selector) for selector in selectors)
    kinds = {selector.kind for selector in selectors}
    if unix_exe_package.NAME in kinds and (why := no_program(facts.exe.path, scripted=script_path.NAME in kinds)):
        clauses = (*clauses, Clause("program", ("one of its own",), holds=False, saw=f"{facts.exe.path}, which {why}"))
    if facts.uid == 0 and not identity.allow_root:  # I13: root is everybody's uid in the wrong hands, so it takes an explicit word
        return (*clauses, Clause("allowRoot", ("true",), holds=False, saw="uid 0, and the identity does not allow root"))
    return clauses


def no_program(exe: str, *, scripted: bool) -> str:
    """Say why an executable is nobody when only its package is named; empty when it is a program of its own."""
    if is_relay(exe):
        return "relays for others, who would use its credential"
    if not scripted and is_interpreter(exe):
        return "runs whatever it is told to: name the script as well"
    return ""


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
    wrong = "is not the file that its package came with" if clause.blocked is Reason.EXE_MODIFIED else "is not root's alone"
    return Refusal(clause.blocked, f'process {facts.key.tgid} would be "{identity.name}", but {clause.saw} {wrong}: {clause.fault}')


def wanted(identities: Iterable[Identity]) -> dict[str, frozenset[str]]:
    """Give the values that selectors name, by kind: what is not in here need not be read of any process."""
    found: dict[str, set[str]] = {}
    for identity in identities:
        for group in identity.selectors:
            for selector in group:
                found.setdefault(selector.kind, set()).update(selector.values)
    return {kind: frozenset(values) for kind, values in found.items()}


def mismatch(facts: Facts, identities: Iterable[Identity]) -> str:
    """Say what kept the nearest identity from matching: the one with the most clauses that hold; empty when there is none."""
    alternatives = [(one.identity, clauses) for one in explain(facts, identities) for clauses in one.alternatives]
    if not alternatives:
        return ""
    identity, clauses = max(alternatives, key=lambda found: (sum(c.holds for c in found[1]), -len(found[1])))
    return f'not "{identity}": ' + ", ".join(clause.told for clause in clauses if not clause.holds)
