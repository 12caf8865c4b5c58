"""A lease's life: one flight, refresh at half life, the old issue until it ends, waits that grow."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from control.credential.lease import BACKOFF_MOST_S, EXPIRY_MARGIN_S, MOVES, RETRY_AFTER_MOST_S, Event, Lease, State, end_of
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.secret import Secret

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NO = Refusal(Reason.EXCHANGE_REFUSED, 'source "s": no')


def issue(number: int, got_at: float, life: float = 3600.0) -> Issue:
    return Issue(number, Secret("t"), KEY, got_at, got_at + life, "p", 0.0)


def held(at: float = 0.0, life: float = 3600.0) -> Lease:
    lease = Lease()
    assert lease.asked(at).start
    lease.succeeded(issue(lease.started(), at, life), 0.0)
    return lease


def test_many_ask_and_one_flies() -> None:
    """The first that asks starts the flight; those after it wait for the same one."""
    lease = Lease()
    assert lease.asked(0).start
    lease.started()
    for _ in range(5):
        answer = lease.asked(0)
        assert (answer.issue, answer.start, answer.refusal) == (None, False, None)


def test_a_second_flight_is_an_illegal_move() -> None:
    """Our own mistake is loud."""
    lease = Lease()
    lease.started()
    with pytest.raises(KeyError):
        lease.started()


def test_a_used_lease_is_refreshed_at_half_life_and_an_unused_one_is_not() -> None:
    """Refresh is for those who use it."""
    used, unused = held(), held()
    assert used.asked(10).issue is not None
    assert not used.due(1799)
    assert used.due(1800)
    unused._used_at = -1.0  # the flight was for somebody who went away
    assert not unused.due(1800)
    late = unused.asked(3000)
    assert late.issue is not None
    assert late.start


def test_the_old_issue_serves_while_the_refresh_flies_and_fails() -> None:
    """A failing identity domain is not felt before the issue ends."""
    lease = held()
    lease.asked(1800)
    lease.started()
    assert lease.asked(1801).issue is not None
    lease.failed(1802, NO, 0.5)
    assert lease.state is State.AGEING
    answer = lease.asked(1802)
    assert answer.issue is not None
    assert not answer.start


def test_an_ended_issue_is_refused_with_the_exchanges_own_reason() -> None:
    """Staleness is bounded by the issue's end."""
    lease = held()
    lease.asked(1800)
    lease.started()
    end = 3600 - EXPIRY_MARGIN_S
    lease.failed(end - 0.1, NO, 1.0)
    assert lease.asked(end - 0.1).issue is not None
    answer = lease.asked(end)
    assert answer.issue is None
    assert answer.refusal == NO


def test_an_issue_that_ends_during_its_refresh_becomes_a_first_flight() -> None:
    """Those who ask now wait for the flight that is under way."""
    lease = held()
    lease.started()
    answer = lease.asked(3600)
    assert lease.state is State.FIRST_FLIGHT
    assert (answer.issue, answer.start) == (None, False)
    lease.succeeded(issue(2, 3601), 0.0)
    assert lease.asked(3601).issue is not None


def test_waits_grow_and_stay_bounded() -> None:
    """0.5 s, then twice as long each time, never more than a minute; a hostile retry-after never more than five."""
    lease, now, waits = Lease(), 0.0, []
    for _ in range(12):
        assert lease.asked(now).start
        lease.started()
        lease.failed(now, NO, 1.0)
        waits.append(lease.next_at - now)
        assert lease.asked(lease.next_at - 0.01).refusal == NO
        now = lease.next_at
    assert waits == sorted(waits)
    assert waits[0] == 0.5
    assert waits[-1] == BACKOFF_MOST_S
    lease.asked(now)
    lease.started()
    lease.failed(now, NO, 1.0, retry_after_s=1e9)
    assert lease.next_at == now + RETRY_AFTER_MOST_S


def test_ttl_cap_shortens_and_never_lengthens() -> None:
    """The source's cap wins over a longer token, a shorter token over the cap."""
    assert end_of(100, 1000, 1000 + 3600, 600) == 700
    assert end_of(100, 1000, 1000 + 300, 600) == 400


@given(st.lists(st.tuples(st.sampled_from(["ask", "win", "lose", "wait"]), st.floats(0, 4000), st.floats(0, 0.999)), max_size=60))
def test_whatever_happens_no_ended_issue_is_given_and_one_flight_flies(story: list[tuple[str, float, float]]) -> None:
    """Property: each answer is a live issue, a flight, or a refusal; never two flights, never an issue past its end."""
    lease, now, flying = Lease(), 0.0, False
    for what, step, jitter in story:
        if what == "wait":
            now += step
        elif what == "ask":
            answer = lease.asked(now)
            if answer.start:
                assert not flying
                lease.started()
                flying = True
            if answer.issue is not None:
                assert now < answer.issue.expires_at - EXPIRY_MARGIN_S
            else:
                assert flying or answer.refusal is not None
        elif flying:
            lease.passed(now)
            if what == "win":
                lease.succeeded(issue(lease.number + 1, now, 10 + step), jitter)
            else:
                lease.failed(now, NO, jitter)
            flying = False
        in_flight = lease.state in (State.FIRST_FLIGHT, State.REFRESHING)
        assert in_flight == flying
        assert ((lease.state, Event.STARTED) in MOVES) == (not flying)


# ---- stale: past its end, for a while ------------------------------------------------------------------------------------------------


def failing(why: Refusal = NO, keep_s: float = 600.0) -> tuple[Lease, float]:
    """A lease whose issue ended while its refreshes failed, and the time."""
    lease = held()
    lease.keep_s = keep_s
    lease.asked(1800)
    lease.started()
    lease.failed(3599, why, 1.0, retry_after_s=RETRY_AFTER_MOST_S)
    return lease, 3600.0


def test_an_ended_issue_serves_those_who_may_and_only_while_flights_fail() -> None:
    """The control asks without leave and is refused; both hear why; after the time, and after a success, it is gone."""
    lease, end = failing()
    stale = lease.asked(end + 10, 600.0)
    assert (stale.stale, stale.refusal) == (True, NO)
    assert stale.issue is not None
    assert stale.issue.number == 1
    assert (lease.asked(end + 10).issue, lease.asked(end + 10).refusal) == (None, NO)
    assert lease.asked(end + 60, 30.0).issue is None
    assert lease.asked(end + 600, 600.0).issue is None
    assert lease.ended is None
    fresh, end = failing()
    assert fresh.asked(end + 301, 600.0).start
    fresh.started()
    flying = fresh.asked(end + 302, 600.0)
    assert (flying.stale, flying.start, flying.flying) == (True, False, False)  # nobody waits for a source that is known to fail
    fresh.succeeded(issue(2, end + 303), 0.0)
    assert not fresh.asked(end + 303, 600.0).stale
    assert fresh.ended is None


def test_an_issue_that_ended_unused_is_not_stale_before_a_flight_failed() -> None:
    """Nobody refreshed it because nobody used it: the next one who asks waits for a flight."""
    lease = held()
    lease.keep_s = 600.0
    answer = lease.asked(3700, 600.0)
    assert (answer.issue, answer.start, answer.flying) == (None, True, True)


def test_a_credential_of_somebody_else_ends_the_stale_one_too() -> None:
    """The far side answers, and says that we are another: that is no outage."""
    lease, end = failing(Refusal(Reason.PRINCIPAL_MISMATCH, "another"))
    answer = lease.asked(end + 10, 600.0)
    assert (answer.issue, answer.stale) == (None, False)
    assert answer.refusal is not None


def test_no_ended_issue_is_kept_where_no_binding_wants_it() -> None:
    """A session key lives no longer than it is of use."""
    lease, end = failing(keep_s=0.0)
    assert lease.asked(end, 0.0).issue is None
    assert lease.ended is None
