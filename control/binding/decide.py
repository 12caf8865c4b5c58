"""
Decide what a request may carry.

In: the destinations of one identity, and what was asked in canonical form.  Out: a Decision with its Reason.
The most specific wins: the longest host decides alone (an exact name shields itself from a wildcard that covers it), then the longest
path.  Destinations of one binding are alternatives; the load step refuses ties between bindings (control/binding/tie.py).
A Table is built once per set and finds by hash, so a thousand bindings cost what ten do.  Pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from control.binding.canonical import host_name, path_fault, path_meaning
from control.binding.glob import ANY, Glob, Rank, compile_glob
from control.binding.model import Asked, Binding, Decision, Destination
from control.binding.network import network_allowed, special_network
from control.reason import Reason

__all__ = ["Granted", "Table", "Tables", "decide", "decide_granted", "find_destination", "network_allowed", "special_network"]

Granted = Sequence[tuple[str, Destination]]
"""(binding, destination) pairs of one identity, as ConnectionGranted carries them."""

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = frozenset({"TRACE", "CONNECT"})


class Row(NamedTuple):
    """One destination under one path glob."""

    glob: Glob
    binding: str
    destination: Destination
    methods: frozenset[str]

    @property
    def rank(self) -> Rank:
        """How specific its path is."""
        return self.glob.rank


class Place(NamedTuple):
    """What an identity may do at one host pattern and port."""

    pattern: str
    rows: tuple[Row, ...]
    """Most specific path first."""
    limits_paths: bool


class Table:
    """The destinations of one identity, indexed by host and port."""

    __slots__ = ("_exact", "_wild")

    def __init__(self, granted: Iterable[tuple[str, Destination]]) -> None:
        """Index ``granted``; cost grows with its size, look-ups do not."""
        rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for binding, destination in granted:
            methods = frozenset(destination.methods)
            globs = [compile_glob(path) for path in destination.paths] or [ANY]
            for host in destination.hosts:
                for port in destination.ports:
                    rows[(host, port)] += [Row(glob, binding, destination, methods) for glob in globs]
        self._exact: dict[tuple[str, int], Place] = {}
        self._wild: dict[tuple[str, int], Place] = {}
        for (host, port), unsorted in rows.items():
            place = Place(host, tuple(sorted(unsorted, key=_order)), any(row.glob is not ANY for row in unsorted))
            if host.startswith("*."):
                self._wild[(host[2:], port)] = place
            else:
                self._exact[(host, port)] = place

    def at(self, host: str, port: int) -> Place | None:
        """Find what is said about a host: its exact name first, then the longest wildcard.  Nothing for what is not a canonical name."""
        place = self._exact.get((host, port))
        if place is not None:
            return place
        if not self._wild or host_name(host) != host:
            return None
        suffix = host
        while True:
            _, dot, suffix = suffix.partition(".")
            if not dot:
                return None
            place = self._wild.get((suffix, port))
            if place is not None:
                return place

    def find(self, host: str, port: int) -> tuple[str, Destination] | None:
        """Say whether a name is bound before a request is known: the first binding (by specificity, then name) and its destination."""
        place = self.at(host, port)
        return (place.rows[0].binding, place.rows[0].destination) if place else None

    def decide(self, asked: Asked) -> Decision:
        """Give the decision on one request."""
        place = self.at(asked.host, asked.port)
        if place is None:
            return Decision(Reason.DESTINATION_UNKNOWN, detail=f'no binding names "{asked.host}:{asked.port}"')
        if asked.method in _FORBIDDEN or not _METHOD.fullmatch(asked.method):
            return Decision(Reason.METHOD_FORBIDDEN, place.rows[0].binding, f"method {asked.method[:32]!r} never carries a credential")
        meaning = asked.path
        if place.limits_paths:
            fault = path_fault(asked.path)
            if fault:
                return Decision(Reason.PATH_AMBIGUOUS, place.rows[0].binding, f"the path is ambiguous: {fault}")
            meaning = path_meaning(asked.path)
        return _among(place, asked, meaning)


def _order(row: Row) -> tuple[int, int, int, str]:
    prefix, exact, literal = row.rank
    return (-prefix, -int(exact), -literal, row.binding)


def _among(place: Place, asked: Asked, meaning: str) -> Decision:
    """Let the most specific path choose the binding, then let that binding's destinations say yes or no to the method."""
    best: Rank | None = None
    leaders: list[str] = []
    allowed: set[str] = set()
    for row in place.rows:
        leads = best is None or row.rank == best
        if not leads and row.binding not in leaders:
            continue
        if not row.glob.matches(meaning):
            continue
        if best is None:
            best = row.rank
        if leads and row.binding not in leaders:
            leaders.append(row.binding)
        if not row.methods or asked.method in row.methods:
            return Decision(Reason.GRANTED, row.binding)
        allowed |= row.methods
    if leaders:
        detail = f'method {asked.method} is not allowed at "{place.pattern}" for this path; allowed: {", ".join(sorted(allowed))}'
        return Decision(Reason.METHOD_NOT_ALLOWED, leaders[0], detail)
    globs = sorted({row.glob.text for row in place.rows})
    more = f" and {len(globs) - 5} more" if len(globs) > 5 else ""
    return Decision(
        Reason.PATH_NOT_ALLOWED, place.rows[0].binding, f'no path of "{place.pattern}" fits; allowed: {", ".join(globs[:5])}{more}'
    )


class Tables:
    """One Table per identity of a set."""

    __slots__ = ("_of",)

    def __init__(self, bindings: Iterable[Binding], *, mode: str = "enforce") -> None:
        """Index the bindings that run in ``mode``."""
        granted: dict[str, list[tuple[str, Destination]]] = defaultdict(list)
        for binding in bindings:
            if binding.mode == mode:
                granted[binding.identity] += [(binding.name, destination) for destination in binding.destinations]
        self._of = {identity: Table(rows) for identity, rows in granted.items()}

    def of(self, identity: str) -> Table:
        """Give the table of an identity; an empty one where it has no binding."""
        return self._of.get(identity, _EMPTY)


_EMPTY = Table(())


def decide(bindings: Iterable[Binding], identity: str, asked: Asked) -> Decision:
    """Decide once; builds the table, so keep a Table where you decide often."""
    return Tables(b for b in bindings if b.identity == identity).of(identity).decide(asked)


def decide_granted(granted: Granted, asked: Asked) -> Decision:
    """Decide once from what a connection was granted; keep a Table where you decide often."""
    return Table(granted).decide(asked)


def find_destination(granted: Granted, host: str, port: int) -> tuple[str, Destination] | None:
    """Find the destination that a server name is bound to; keep a Table where you look often."""
    return Table(granted).find(host, port)
