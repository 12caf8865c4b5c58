"""
Constant load by bound processes, and what became of each request.

In: a Scene.  Out: a Load that asks all the time; ``results()`` gives begun, ended and outcome of each request so far.
An outcome is a status with our reason where it is ours (``200``, ``503 daemon-down``) or the class of the error that the client met.
"""

from types import TracebackType
from typing import NamedTuple, Self

from tests.e2e.lib.hand import Hand
from tests.e2e.lib.scene import IDENTITY, USERS, Scene

CLEAN = frozenset({"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "SSLEOFError", "SSLZeroReturnError", "SSLError"})
"""How a connection may end that could not be served: refused, reset or closed, before an answer had begun."""


class Result(NamedTuple):
    """One request of the load; Unix seconds."""

    begun: float
    ended: float
    outcome: str

    @property
    def served(self) -> bool:
        """It was signed and answered."""
        return self.outcome == "200"

    @property
    def clean(self) -> bool:
        """It was served, refused with a reason of ours, or its connection ended; never passed on unsigned (401), garbled or hung."""
        status, _, reason = self.outcome.partition(" ")
        return self.served or self.outcome in CLEAN or (status in ("502", "503", "504", "403") and bool(reason))


class Load:
    """A context manager; two processes with two threads each, about 60 requests a second together."""

    def __init__(self, scene: Scene, *, processes: int = 2, threads: int = 2, pause_s: float = 0.04, per_connection: int = 15) -> None:
        self._scene = scene
        self._how = {"threads": threads, "pause_s": pause_s, "per_connection": per_connection}
        self._wanted = processes
        self.hands: list[Hand] = []
        self._seen: list[Result] = []

    def __enter__(self) -> Self:
        address = self._scene.stage.subnet.there4
        for _ in range(self._wanted):
            hand = self._scene.hand("main")
            self.hands.append(hand)
            hand.do("load", name=IDENTITY, path=USERS, address=address, trust=hand.trust, **self._how)
        self._scene.stage.wait_until(lambda: sum(r.served for r in self.results()) >= 2 * self._wanted, 10, "the load to be served")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hand in self.hands:
            hand.stop()

    def results(self) -> list[Result]:
        """All requests so far."""
        for hand in self.hands:
            self._seen += [Result(*entry) for entry in hand.do("results_so_far")]
        return self._seen

    def since(self, at: float) -> list[Result]:
        """Requests that began after ``at``."""
        return [result for result in self.results() if result.begun > at]

    def served_after(self, at: float) -> float:
        """When the first request that began after ``at`` had been served; 0 while there is none."""
        return min((r.ended for r in self.since(at) if r.served), default=0.0)

    def rest(self) -> int:
        """End the load; how many threads still hang."""
        return sum(int(hand.do("rest")) for hand in self.hands)
