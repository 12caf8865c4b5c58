"""
Who flies when: a bounded number of exchanges at once, and every source its turn.

In: keys of leases whose flight is wanted, and how flights ended.  Out: the flights to start now.
Ten thousand leases that start together wait here, in order, and not in the exchange process, whose time runs from the first byte.  A source
that hangs has its own share and no more; one that fails again and again is asked by fewer, at last by one, until it answers (attacks: H14).
Pure.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from control.credential.model import LeaseKey

FLIGHTS_MOST: Final = 48
"""Exchanges at once; below the 64 that the exchange process takes, so that none waits there with its clock running."""
OF_SOURCE_MOST: Final = 16
"""Exchanges of one source at once: three sources may hang before a fourth waits."""


@dataclass(slots=True)
class _Line:
    """The leases of one source."""

    waiting: OrderedDict[LeaseKey, None] = field(default_factory=OrderedDict)
    flying: int = 0
    most: int = OF_SOURCE_MOST
    """Halved by each outage, doubled by each answer."""


class Flights:
    """The line of every source, and whose turn it is."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._turn: deque[str] = deque()
        """Sources with somebody waiting, in the order in which they are served."""
        self.flying = 0

    def wanted(self, key: LeaseKey) -> list[LeaseKey]:
        """Join the line; give the flights that start now."""
        line = self._lines.setdefault(key.source, _Line())
        if not line.waiting:
            self._turn.append(key.source)
        line.waiting[key] = None
        return self._starting()

    def dropped(self, key: LeaseKey) -> None:
        """Leave the line: nobody wants this flight any more.  One that flies already is told by ``ended`` as any other."""
        line = self._lines.get(key.source)
        if line is not None and key in line.waiting:
            del line.waiting[key]
            if not line.waiting:
                self._turn.remove(key.source)
            self._forget(key.source)

    def ended(self, key: LeaseKey, *, outage: bool) -> list[LeaseKey]:
        """A flight is over, ``outage`` when the source itself did not do its part; give the flights that start now."""
        line = self._lines[key.source]
        line.flying -= 1
        self.flying -= 1
        line.most = max(1, line.most // 2) if outage else min(OF_SOURCE_MOST, line.most * 2)
        started = self._starting()
        self._forget(key.source)
        return started

    def waiting(self, source: str) -> int:
        """How many wait for ``source``."""
        line = self._lines.get(source)
        return len(line.waiting) if line is not None else 0

    def _starting(self) -> list[LeaseKey]:
        """Serve the sources in turn, each one flight, until all places are taken or nobody may go."""
        started: list[LeaseKey] = []
        stuck = 0
        while self._turn and self.flying < FLIGHTS_MOST and stuck < len(self._turn):
            source = self._turn.popleft()
            line = self._lines[source]
            if line.flying >= line.most:
                self._turn.append(source)
                stuck += 1
                continue
            stuck = 0
            key, _ = line.waiting.popitem(last=False)
            line.flying += 1
            self.flying += 1
            started.append(key)
            if line.waiting:
                self._turn.append(source)
        return started

    def _forget(self, source: str) -> None:
        """Drop the line of a source that nobody uses and that did nothing wrong."""
        line = self._lines[source]
        if not line.waiting and not line.flying and line.most == OF_SOURCE_MOST:
            del self._lines[source]
