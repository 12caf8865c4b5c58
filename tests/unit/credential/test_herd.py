"""Ten thousand leases on a simulated clock: they start together, are refreshed in time, and do not storm a source that fails."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.credential.flights import FLIGHTS_MOST, OF_SOURCE_MOST, Flights
from control.credential.lease import EXPIRY_MARGIN_S, SHOWN, Lease
from control.credential.model import Issue, LeaseKey
from control.errors import Refusal
from control.reason import Reason
from control.secret import Secret

OUTAGE = Refusal(Reason.EXCHANGE_TIMEOUT, "no answer")


class World:
    """Leases, the line, and a far side; time passes only when something happens."""

    def __init__(
        self, *, life: float, latency: Callable[[str, float], float], works: Callable[[str, float], bool], asks_s: float = 5.0
    ) -> None:
        """A workload without a credential asks again after ``asks_s``."""
        self.life, self.latency, self.works, self.asks_s = life, latency, works, asks_s
        self.dice = random.Random(1)
        self.asking: set[LeaseKey] = set()
        self.now = 0.0
        self.flights = Flights()
        self.leases: dict[LeaseKey, Lease] = {}
        self.in_air: Counter[str] = Counter()
        self.started: Counter[tuple[str, int]] = Counter()
        """(source, second) to flights that took off in it."""
        self.attempts: Counter[LeaseKey] = Counter()
        self.gaps = 0
        """Times a lease in use came to its end."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), what))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.now = until

    def begin(self, keys: list[LeaseKey], when: float = 0.0) -> None:
        for key in keys:
            self.leases[key] = Lease()
            self.ask_at(when, key)

    def ask_at(self, when: float, key: LeaseKey) -> None:
        if key not in self.asking:
            self.asking.add(key)
            self.at(when, lambda: self.ask(key))

    def ask(self, key: LeaseKey) -> None:
        """A workload asks; it asks again while it has nothing."""
        self.asking.discard(key)
        lease = self.leases[key]
        had = lease.issue is not None
        answer = lease.asked(self.now)
        if had and answer.issue is None:
            self.gaps += 1
        if answer.start:
            self.start(key)
        if answer.issue is None:
            self.ask_at(self.now + self.asks_s, key)

    def start(self, key: LeaseKey) -> None:
        self.leases[key].started()
        self.take_off(self.flights.wanted(key))

    def take_off(self, keys: list[LeaseKey]) -> None:
        for key in keys:
            self.in_air[key.source] += 1
            self.started[key.source, int(self.now)] += 1
            self.attempts[key] += 1
            assert self.in_air[key.source] <= OF_SOURCE_MOST
            assert self.in_air.total() <= FLIGHTS_MOST
            began = self.now
            self.at(self.now + self.latency(key.source, self.now), lambda key=key, began=began: self.land(key, began))  # type: ignore[misc]

    def land(self, key: LeaseKey, began: float) -> None:
        self.in_air[key.source] -= 1
        lease, good = self.leases[key], self.works(key.source, began)
        had = lease.issue is not None
        lease.passed(self.now)
        if had and lease.issue is None:
            self.gaps += 1
        if good:
            lease.succeeded(Issue(lease.number + 1, Secret("t"), None, self.now, self.now + self.life, "", 0.0), self.dice.random())
            lease.asked(self.now)  # those who waited use it
        else:
            lease.failed(self.now, OUTAGE, self.dice.random())
        self.at(lease.next_at, lambda: self.due(key))
        self.take_off(self.flights.ended(key, outage=not good))

    def due(self, key: LeaseKey) -> None:
        lease = self.leases[key]
        had = lease.issue is not None
        if lease.due(self.now):
            self.start(key)
        elif lease.issue is None:
            self.gaps += had
            self.ask_at(self.now, key)

    def held(self) -> int:
        return sum(SHOWN[lease.state] == "held" for lease in self.leases.values())


def keys_of(*sources: str, each: int) -> list[LeaseKey]:
    return [LeaseKey(source, f"w-{n}") for n in range(each) for source in sources]


def always(source: str, when: float) -> bool:
    return True


def test_ten_thousand_leases_start_together_and_none_is_refreshed_late() -> None:
    """
    Four sources, two and a half thousand identities each, all at the same instant, then three hours of use.

    Never more flights at once than FLIGHTS_MOST; every refresh lands while the former issue lives; they spread over a tenth of the life.
    """
    world = World(life=3600.0, latency=lambda *_: 0.2, works=always)
    world.begin(keys_of("a", "b", "c", "d", each=2500))
    world.run(60.0)
    assert world.held() == 10_000
    world.run(3 * 3600.0)
    assert world.held() == 10_000
    assert world.gaps == 0
    assert all(5 <= attempts <= 7 for attempts in world.attempts.values())
    second_wave = Counter[int]()
    for (_, second), flights in world.started.items():
        if 1700 <= second < 2300:
            second_wave[second] += flights
    assert second_wave.total() == 10_000
    assert max(second_wave.values()) <= 10_000 / 360 * 2


def test_a_source_that_hangs_holds_up_nobody_else() -> None:
    """Two of three sources answer nothing within 15 s; the third has its thousand leases within half a minute."""
    slow = {"a", "b"}
    world = World(life=3600.0, latency=lambda source, _: 15.0 if source in slow else 0.2, works=lambda source, _: source not in slow)
    world.begin(keys_of("a", "b", "c", each=1000))
    world.run(30.0)
    assert sum(SHOWN[lease.state] == "held" for key, lease in world.leases.items() if key.source == "c") == 1000


@pytest.mark.parametrize("fails_after_s", [0.02, 15.0])
def test_a_failing_issuer_is_not_stormed_and_all_recover(fails_after_s: float) -> None:
    """
    Twenty minutes in which the source refuses at once, or hangs, while ten thousand leases want it; then it works again.

    It is asked by one flight at a time, after the first sixteen; each lease tries at most once in thirty seconds in the long run; three
    minutes after it works all are held.
    """
    outage_s = 1200.0
    world = World(
        life=3600.0,
        latency=lambda _, when: fails_after_s if when < outage_s else 0.2,
        works=lambda _, began: began >= outage_s,
        asks_s=60.0,
    )
    world.begin(keys_of("a", each=10_000))
    world.run(outage_s)
    assert world.held() == 0
    assert world.in_air.total() <= 1
    flights = sum(world.started.values())
    assert flights <= OF_SOURCE_MOST * 2 + outage_s / fails_after_s
    assert max(world.attempts.values()) <= 8 + outage_s / 30
    world.run(outage_s + 180.0 + fails_after_s)
    assert world.held() == 10_000


def test_an_outage_shorter_than_half_a_life_is_not_felt() -> None:
    """Leases in use when their source fails for twenty-five minutes: the old issues serve, the refreshes come when it is back."""
    begins, ends = 1000.0, 2500.0
    world = World(life=3600.0, latency=lambda *_: 0.2, works=lambda _, began: not begins <= began < ends)
    world.begin(keys_of("a", "b", each=1000))
    world.run(ends + 120.0)
    assert world.gaps == 0
    assert world.held() == 2000
    assert all(lease.issue is not None and lease.issue.got_at >= ends for lease in world.leases.values())


@settings(max_examples=25, deadline=None)
@given(
    leases=st.integers(1, 80),
    sources=st.integers(1, 5),
    life=st.floats(60.0, 4000.0),
    latency=st.floats(0.001, 10.0),
    outages=st.lists(st.tuples(st.floats(0.0, 4000.0), st.floats(1.0, 2000.0)), max_size=3),
)
def test_whatever_the_far_side_does_no_flight_is_lost(
    leases: int, sources: int, life: float, latency: float, outages: list[tuple[float, float]]
) -> None:
    """Property: the bounds hold (asserted at each take-off), no lease flies twice at once, and all are held again after the outages."""
    names = [f"s{n}" for n in range(sources)]
    world = World(
        life=life + 2 * latency + EXPIRY_MARGIN_S,
        latency=lambda *_: latency,
        works=lambda _, began: not any(start <= began < start + length for start, length in outages),
    )
    world.begin([LeaseKey(names[n % sources], f"w-{n}") for n in range(leases)])
    last = max((start + length for start, length in outages), default=0.0)
    world.run(last + 60.0 + world.asks_s + latency * (leases + 8))
    assert world.held() == leases


@given(st.lists(st.tuples(st.sampled_from(["want", "end", "fail", "drop"]), st.integers(0, 60)), max_size=200))
def test_the_line_serves_everybody_who_stays_in_it(story: list[tuple[str, int]]) -> None:
    """Property: whoever joins and is not dropped takes off exactly once; the bounds hold after each step."""
    flights, in_air, joined, dropped, off = Flights(), list[LeaseKey](), Counter[LeaseKey](), Counter[LeaseKey](), Counter[LeaseKey]()
    wanting: set[LeaseKey] = set()

    def took(keys: list[LeaseKey]) -> None:
        for key in keys:
            wanting.discard(key)
            off[key] += 1
            in_air.append(key)

    for what, number in story:
        key = LeaseKey(f"s{number % 5}", f"w{number}")
        if what == "want" and key not in wanting and key not in in_air:
            wanting.add(key)
            joined[key] += 1
            took(flights.wanted(key))
        elif what == "drop":
            if key in wanting:
                wanting.discard(key)
                dropped[key] += 1
            flights.dropped(key)
        elif what in ("end", "fail") and in_air:
            took(flights.ended(in_air.pop(number % len(in_air)), outage=what == "fail"))
        assert len(in_air) == flights.flying <= FLIGHTS_MOST
        assert max(Counter(k.source for k in in_air).values(), default=0) <= OF_SOURCE_MOST
    while in_air:
        took(flights.ended(in_air.pop(), outage=False))
    assert not wanting
    assert joined == off + dropped
