"""
The life of one lease: when to exchange, what to hand out meanwhile, when to try again.

In: what happened, with the time and a random number in [0, 1) beside it.  Out: what to hand out and whether to start a flight.
One flight at a time; refresh at about half life while somebody uses it; the old issue until it expires, then a refusal with the exchange's
own reason; failures wait longer each time, with jitter, inside the remaining life (attacks: H14).
A binding may have the ended issue for a while longer (``onLeaseFailure: stale``), but only while flights fail and none says that the
credential is somebody else's; who throws a lease away throws its ended issue away with it.
Time is any clock that only moves forward and counts suspend (CLOCK_BOOTTIME in the daemon).  Pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from control.credential.model import Issue
from control.errors import Refusal
from control.reason import ABOUT, Kind, Reason

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 60.0
RETRY_AFTER_MOST_S = 300.0
"""A far side may ask us to wait this long, not longer: a hostile answer must not switch a binding off for a day."""
EXPIRY_MARGIN_S = 5.0
"""An issue this close to its end is not handed out: it would expire on the way."""


class State(StrEnum):
    """Where a lease stands."""

    EMPTY = "empty"
    FIRST_FLIGHT = "first-flight"
    HELD = "held"
    REFRESHING = "refreshing"
    AGEING = "ageing"
    """Held, but the last refresh failed."""
    FAILED = "failed"


class Event(StrEnum):
    """What can happen to a lease."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"


MOVES: dict[tuple[State, Event], State] = {
    (State.EMPTY, Event.STARTED): State.FIRST_FLIGHT,
    (State.FIRST_FLIGHT, Event.SUCCEEDED): State.HELD,
    (State.FIRST_FLIGHT, Event.FAILED): State.FAILED,
    (State.FAILED, Event.STARTED): State.FIRST_FLIGHT,
    (State.HELD, Event.STARTED): State.REFRESHING,
    (State.HELD, Event.EXPIRED): State.EMPTY,
    (State.REFRESHING, Event.SUCCEEDED): State.HELD,
    (State.REFRESHING, Event.FAILED): State.AGEING,
    (State.REFRESHING, Event.EXPIRED): State.FIRST_FLIGHT,
    (State.AGEING, Event.STARTED): State.REFRESHING,
    (State.AGEING, Event.EXPIRED): State.FAILED,
}
"""A missing key is an illegal move: our mistake, raised as KeyError."""

SHOWN: dict[State, str] = {
    State.EMPTY: "none",
    State.FIRST_FLIGHT: "flight",
    State.HELD: "held",
    State.REFRESHING: "held",
    State.AGEING: "held",
    State.FAILED: "failed",
}
"""The four words of message.LeaseShown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one who asks for the credential gets."""

    issue: Issue | None = None
    """Use this one now."""
    stale: bool = False
    """The issue has ended; ``refusal`` says why there is no other."""
    start: bool = False
    """Start a flight."""
    flying: bool = False
    """There is no issue yet: wait for the flight that is under way or starts; ``refusal`` says why the one before failed."""
    refusal: Refusal | None = None
    """Why the last exchange failed, where there is no issue that lives."""


class Lease:
    """One lease; the caller serialises its calls."""

    def __init__(self) -> None:
        self.state = State.EMPTY
        self.issue: Issue | None = None
        self.number = 0
        """Issues so far."""
        self.failure: Refusal | None = None
        """Why the last flight failed; None after a success."""
        self.failures = 0
        """Flights failed in a row."""
        self.next_at = 0.0
        """No flight starts by itself or by a request before this time: the refresh point, or the end of a backoff."""
        self.ended: Issue | None = None
        """The last issue past its end, for as long as ``keep_s`` says."""
        self.keep_s = 0.0
        """The longest that any binding may use an ended issue; 0 keeps none."""
        self._used_at = float("-inf")

    # -- asking

    def asked(self, now: float, stale_s: float = 0.0) -> Answer:
        """Somebody needs the credential at ``now``, and may have one that ended up to ``stale_s`` ago while flights fail."""
        self.passed(now)
        self._used_at = now
        return self._answer(now, stale_s, start=self._may_start(now))

    def waited(self, now: float, stale_s: float = 0.0, late: Refusal | None = None) -> Answer:
        """Somebody waited until the flight was over, or, with ``late``, as long as one may."""
        self.passed(now)
        answer = self._answer(now, stale_s, start=False, late=late)
        return Answer(refusal=late or self.failure or Refusal(Reason.LEASE_UNAVAILABLE)) if answer.flying else answer

    def _answer(self, now: float, stale_s: float, *, start: bool, late: Refusal | None = None) -> Answer:
        failure = self.failure or late
        if self.issue is not None:
            return Answer(issue=self.issue, start=start)
        if self.ended is not None and failure is not None and is_outage(failure) and now < self.ended.expires_at + stale_s:
            return Answer(issue=self.ended, stale=True, start=start, refusal=failure)
        if start or self.state is State.FIRST_FLIGHT:
            return Answer(start=start, flying=True, refusal=failure)
        return Answer(refusal=failure or Refusal(Reason.LEASE_UNAVAILABLE))

    def due(self, now: float) -> bool:
        """Whether a flight should start by itself: the time has come, and the issue was used since it was got."""
        self.passed(now)
        return self.issue is not None and self._used_at >= self.issue.got_at and self._may_start(now)

    def hurried(self, now: float) -> bool:
        """Somebody changed what the source gives: whether a flight should start now, whatever was planned."""
        self.passed(now)
        self.next_at = min(self.next_at, now)
        return self.issue is not None and self._may_start(now)

    def _may_start(self, now: float) -> bool:
        return (self.state, Event.STARTED) in MOVES and now >= self.next_at

    # -- what happened

    def passed(self, now: float) -> None:
        """Time went by: drop an issue that is at its end, and one that ended too long ago for everybody."""
        if self.issue is not None and now >= self.issue.expires_at - EXPIRY_MARGIN_S:
            self.issue, self.ended = None, self.issue
            self._move(Event.EXPIRED)
            if self.state is State.EMPTY:
                self.next_at = now
        if self.ended is not None and (self.keep_s <= 0 or now >= self.ended.expires_at + self.keep_s):
            self.ended = None

    def started(self) -> int:
        """A flight started; give the number its issue will bear."""
        self._move(Event.STARTED)
        return self.number + 1

    def succeeded(self, issue: Issue, jitter: float) -> None:
        """The flight brought ``issue``; refresh between 50 % and 60 % of its life."""
        self._move(Event.SUCCEEDED)
        self.issue, self.number = issue, issue.number
        self.failure, self.failures, self.ended = None, 0, None
        self.next_at = issue.got_at + (issue.expires_at - issue.got_at) * (0.5 + 0.1 * jitter)

    def failed(self, now: float, why: Refusal, jitter: float, retry_after_s: float = 0.0) -> None:
        """The flight failed; wait before the next one, but leave room for another try while the old issue lives."""
        self._move(Event.FAILED)
        self.failure = why
        self.failures += 1
        wait = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(self.failures - 1, 16)) * (0.5 + 0.5 * jitter)
        if self.issue is not None:
            wait = min(wait, max(BACKOFF_FIRST_S, (self.issue.expires_at - EXPIRY_MARGIN_S - now) * (0.4 + 0.2 * jitter)))
        self.next_at = now + max(wait, min(retry_after_s, RETRY_AFTER_MOST_S))

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state, event]


def is_outage(why: Refusal) -> bool:
    """Whether a flight failed for want of an answer or a trust; not when the answer was somebody else's credential."""
    return ABOUT[why.reason].kind is not Kind.POLICY


def end_of(now: float, now_wall: float, token_expires_wall: float, ttl_cap_s: int) -> float:
    """Turn the token's end (Unix seconds) into the lease's clock and cap it by the source's ttlCap."""
    life = token_expires_wall - now_wall
    if ttl_cap_s > 0:
        life = min(life, float(ttl_cap_s))
    return now + life
