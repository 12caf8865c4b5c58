"""Static secrets: asked of the agent, kept apart, read again, dropped; and what a binding says for the time when there is none."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from control.daemon import message as m
from control.reason import Reason
from control.secret import Secret
from tests.unit.keys import play
from tests.unit.keys.conftest import Stage
from tests.unit.keys.play import grant, static_binding, static_source, wanted_static

KEY_1, KEY_2 = "first-key-4711", "second-key-4712"
SHORT_S = 6
"""A life of which one second is left after the margin: long enough to be given, short enough to end in a test."""
DENIED = 'source "billing-key": /etc/credwire/secrets/billing: permission denied'


@pytest.fixture
def billing(staged: Callable[..., Stage]) -> Callable[..., Stage]:
    """Keys with one static source and whatever bindings; no exchange process anywhere."""

    def play_it(*bindings: Any, ttl_cap_s: int = 3600, **setup: Any) -> Stage:
        stage = staged(**setup)
        stage.agent, stage.proxy = stage.peer("agent"), stage.peer("proxy")
        for one in (stage.agent, stage.proxy):
            one.heard(m.Greeted)
        stage.bindings = bindings or (static_binding(),)
        told = play.policy(static_source(ttl_cap_s=ttl_cap_s), bindings=stage.bindings)
        grants = [grant("g-1", bindings=("billing",)), grant("g-b", identity="backup", bindings=("backup-billing",))]
        stage.agent.send(m.Beat(), *told, *grants)
        for _ in grants:
            stage.agent.heard(m.GrantTaken)
        return stage

    return play_it


def shows(stage: Stage, secret: str = KEY_1) -> m.SecretWanted:
    """Play an agent that reads the file."""
    asked = stage.agent.heard(m.SecretWanted)
    stage.agent.send(m.SecretShown(asked.call, Secret(secret)))
    return asked


def fails(stage: Stage, reason: Reason = Reason.LEASE_UNAVAILABLE) -> None:
    """Play an agent that cannot read it."""
    asked = stage.agent.heard(m.SecretWanted)
    stage.agent.send(
        m.Refused(asked.call, "cw-1", reason, 'source "billing-key": /etc/credwire/secrets/billing: permission denied', "chown")
    )


def signed(stage: Stage, call: int = 1, **changes: Any) -> m.RequestSigned:
    answer = stage.proxy.asks(wanted_static(call, **changes))
    assert isinstance(answer, m.RequestSigned), answer
    return answer


def nothing_asked(stage: Stage) -> None:
    """The agent heard no SecretWanted that was not answered: its next answer comes first."""
    stage.agent.send(m.IssuerWanted(77))
    seen = len(stage.agent.seen)
    stage.agent.heard(m.IssuerShown)
    assert not [one for one in stage.agent.seen[seen:] if isinstance(one, m.SecretWanted)]


def last_event(stage: Stage, event: str) -> dict[str, Any]:
    return stage.agent.heard(m.Audited, lambda a: a.event["event"] == event).event


def test_the_secret_is_asked_of_the_agent_once_and_put_on_the_request(billing: Callable[..., Stage]) -> None:
    """The first need reads it, the second does not; every placeholder of that name goes; the audit says which issue."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    asked = shows(stage)
    assert (asked.source, asked.identity, asked.issue) == ("billing-key", "oci-cli", 1)
    first = stage.proxy.heard(m.RequestSigned)
    assert first.remove == ("x-api-key",)
    assert first.set == (("x-api-key", KEY_1),)
    shown = stage.agent.heard(m.LeaseShown, lambda s: s.state == "held")
    assert (shown.principal, shown.issue) == ("billing-key", 1)
    assert shown.expires_at - time.time() == pytest.approx(3600, abs=30)
    assert last_event(stage, "request-signed")["issue"] == 1
    assert signed(stage, 2).set == first.set
    nothing_asked(stage)


def test_a_question_of_keys_is_never_taken_for_the_answer_to_the_agents(billing: Callable[..., Stage]) -> None:
    """Both ends ask on one channel: the agent's calls count from 1, those of keys from far above."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    asked = stage.agent.heard(m.SecretWanted)
    assert asked.call > 1 << 31
    assert isinstance(stage.agent.asks(m.IssuerWanted(1)), m.IssuerShown)
    stage.agent.send(m.SecretShown(asked.call, Secret(KEY_1)))
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_1),)


def test_two_identities_never_share_a_lease(billing: Callable[..., Stage]) -> None:
    """One source, two identities: two reads, each audited under its own name (attacks: H13)."""
    stage = billing(static_binding(), static_binding("backup-billing", "backup"))
    stage.proxy.send(wanted_static(1))
    assert shows(stage, KEY_1).identity == "oci-cli"
    stage.proxy.heard(m.RequestSigned)
    stage.proxy.send(wanted_static(2, grant="g-b", binding="backup-billing"))
    assert shows(stage, KEY_2).identity == "backup"
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_2),)
    assert signed(stage, 3).set == (("x-api-key", KEY_1),)


def test_a_reload_reads_the_file_again_while_the_old_secret_serves(billing: Callable[..., Stage]) -> None:
    """A rotated file is picked up in the background: no request waits for it."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    stage.agent.send(*play.policy(static_source(), revision=8, bindings=stage.bindings))
    asked = stage.agent.heard(m.SecretWanted)
    assert asked.issue == 2
    assert signed(stage, 2).set == (("x-api-key", KEY_1),)
    stage.agent.send(m.SecretShown(asked.call, Secret(KEY_2)))
    stage.agent.heard(m.LeaseShown, lambda s: s.issue == 2)
    assert signed(stage, 3).set == (("x-api-key", KEY_2),)


def test_a_reload_during_the_read_makes_one_more(billing: Callable[..., Stage]) -> None:
    """The read that was under way may have seen the file as it was before."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    asked = stage.agent.heard(m.SecretWanted)
    stage.agent.send(*play.policy(static_source(), revision=8, bindings=stage.bindings))
    stage.agent.send(m.SecretShown(asked.call, Secret(KEY_1)))
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_1),)
    shows(stage, KEY_2)
    stage.agent.heard(m.LeaseShown, lambda s: s.issue == 2 and s.state == "held")
    assert signed(stage, 2).set == (("x-api-key", KEY_2),)


def test_a_reload_mends_a_failed_read_at_once(billing: Callable[..., Stage]) -> None:
    """Who mended the file and reloaded does not wait for the backoff."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    fails(stage)
    answer = stage.proxy.heard(m.Refused)
    assert answer.reason is Reason.LEASE_UNAVAILABLE
    assert "permission denied" in answer.detail
    assert answer.hint == "chown"
    stage.agent.send(*play.policy(static_source(), revision=8, bindings=stage.bindings), m.IssuerWanted(1))
    stage.agent.heard(m.IssuerShown)
    stage.proxy.send(wanted_static(2))
    shows(stage)
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_1),)


def test_a_dropped_lease_is_shown_and_read_anew(billing: Callable[..., Stage]) -> None:
    """Empty names mean all; another source's name drops nothing."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    stage.agent.send(m.LeaseDropped(source="other"), m.LeaseDropped(identity="backup"))
    assert signed(stage, 2).set == (("x-api-key", KEY_1),)
    stage.agent.send(m.LeaseDropped("billing-key", "oci-cli"))
    stage.agent.heard(m.LeaseShown, lambda s: s.state == "none")
    stage.proxy.send(wanted_static(3))
    shows(stage, KEY_2)
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_2),)
    stage.agent.send(m.LeaseDropped())
    stage.agent.heard(m.LeaseShown, lambda s: s.state == "none")


def test_a_lease_that_is_dropped_in_flight_gives_nothing(billing: Callable[..., Stage]) -> None:
    """Who waits for it hears so, and what the flight still brings is thrown away."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    asked = stage.agent.heard(m.SecretWanted)
    stage.agent.send(m.LeaseDropped())
    assert stage.proxy.heard(m.Refused).reason is Reason.REVOKED
    stage.agent.send(m.SecretShown(asked.call, Secret(KEY_1)))
    stage.proxy.send(wanted_static(2))
    shows(stage, KEY_2)
    assert stage.proxy.heard(m.RequestSigned).set == (("x-api-key", KEY_2),)


def test_a_secret_that_is_no_header_is_refused_by_its_sources_name(billing: Callable[..., Stage]) -> None:
    """Not a second header; and no word of the refusal or the audit holds it."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    shows(stage, "abc-4711\r\nx-admin: yes")
    answer = stage.proxy.heard(m.Refused)
    assert answer.reason is Reason.LEASE_UNAVAILABLE
    assert "billing-key" in answer.detail
    assert "line break" in answer.detail
    assert "abc-4711" not in repr(answer) + repr([s for s in stage.agent.seen if isinstance(s, (m.Audited, m.LeaseShown))])


# ---- onLeaseFailure ----------------------------------------------------------------------------------------------------------------


def until_ended(stage: Stage, ask: Callable[[int], Any], good: Callable[[Any], bool]) -> Any:
    """Ask until an answer is ``good``; the reads in between all fail."""
    until, call = time.monotonic() + play.DEADLINE_S, 100
    while time.monotonic() < until:
        stage.proxy.send(ask(call))
        answer = None
        while answer is None:
            heard = stage.either(m.SecretWanted)
            if isinstance(heard, m.SecretWanted):
                stage.agent.send(m.Refused(heard.call, "cw-1", Reason.LEASE_UNAVAILABLE, "cannot be read"))
            elif heard.call == call:
                answer = heard
        if good(answer):
            return answer
        call += 1
    raise TimeoutError("it never came to that")


def test_refuse_ends_with_the_issue(billing: Callable[..., Stage]) -> None:
    """The default: after its end nothing is given, with the read's own reason."""
    stage = billing(static_binding(), ttl_cap_s=SHORT_S)
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    answer = until_ended(stage, wanted_static, lambda a: isinstance(a, m.Refused))
    assert (answer.reason, answer.detail) == (Reason.LEASE_UNAVAILABLE, "cannot be read")


def test_stale_serves_past_the_end_says_so_and_ends(billing: Callable[..., Stage]) -> None:
    """The last issue for stale_s more, each use audited as stale; then refused; a dropped one is never used."""
    stage = billing(static_binding(on_lease_failure="stale", stale_s=2), ttl_cap_s=SHORT_S)
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    told = time.time()
    answer = until_ended(stage, wanted_static, lambda a: isinstance(a, m.Refused))
    assert answer.detail == "cannot be read"
    assert SHORT_S + 2 - 1 <= time.time() - told <= SHORT_S + 2 + 10
    stale = [
        s.event for s in stage.agent.seen if isinstance(s, m.Audited) and s.event.get("detail", "").startswith("stale, its end was at")
    ]
    assert stale
    assert all(e["event"] == "request-signed" and e["issue"] == 1 and "cannot be read" in e["detail"] for e in stale)


def test_a_dropped_issue_is_not_used_stale(billing: Callable[..., Stage]) -> None:
    """Revoked means revoked, whatever the binding says about failures."""
    stage = billing(static_binding(on_lease_failure="stale", stale_s=3600))
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    stage.agent.send(m.LeaseDropped(source="billing-key"))
    stage.proxy.send(wanted_static(2))
    fails(stage)
    assert "permission denied" in stage.proxy.heard(m.Refused).detail


def test_passthrough_sends_without_a_credential_and_says_why(billing: Callable[..., Stage]) -> None:
    """No header is set or removed, the audit has the reason of the failure; once the source gives again, so do we."""
    stage = billing(static_binding(on_lease_failure="passthrough"))
    stage.proxy.send(wanted_static(1))
    fails(stage, Reason.LEASE_UNAVAILABLE)
    answer = stage.proxy.heard((m.RequestSigned, m.Refused))
    assert isinstance(answer, m.RequestSigned)
    assert (answer.passed, answer.remove, answer.set, answer.target) == (True, (), (), "")
    event = last_event(stage, "request-passed")
    assert event["reason"] == Reason.LEASE_UNAVAILABLE
    assert "permission denied" in event["detail"]
    assert (event["binding"], event["path"]) == ("billing", "/v1/invoices")
    stage.agent.send(*play.policy(static_source(), revision=8, bindings=stage.bindings), m.IssuerWanted(1))
    stage.agent.heard(m.IssuerShown)
    assert signed(stage, 2).passed  # it does not wait for a source that failed, but has it asked
    shows(stage)
    stage.agent.heard(m.LeaseShown, lambda s: s.state == "held")
    given = signed(stage, 3)
    assert not given.passed
    assert given.set == (("x-api-key", KEY_1),)


def test_what_is_not_allowed_is_not_passed(billing: Callable[..., Stage]) -> None:
    """Passthrough is for a source that fails, not for a request that no binding allows."""
    stage = billing(static_binding(on_lease_failure="passthrough"))
    assert isinstance(stage.proxy.asks(wanted_static(1, host="bank.example")), m.Refused)
    assert isinstance(stage.proxy.asks(wanted_static(2, grant="g-9")), m.Refused)


# ---- many at once ------------------------------------------------------------------------------------------------------------------


def test_no_session_key_is_made_where_no_source_needs_one(billing: Callable[..., Stage]) -> None:
    """Keys with static sources alone stays on one thread: keys are made in others."""
    stage = billing()
    stage.proxy.send(wanted_static(1))
    shows(stage)
    stage.proxy.heard(m.RequestSigned)
    assert stage.keys.threads() == 1


def test_a_request_does_not_wait_for_ever_and_the_flight_goes_on(billing: Callable[..., Stage]) -> None:
    """After its time it hears how many wait; what comes later serves the next one."""
    stage = billing(wait_s=0.3)
    stage.proxy.send(wanted_static(1))
    asked = stage.agent.heard(m.SecretWanted)
    answer = stage.proxy.heard((m.Refused, m.RequestSigned))
    assert isinstance(answer, m.Refused)
    assert answer.reason is Reason.LEASE_UNAVAILABLE
    assert answer.detail.startswith('source "billing-key": no credential after 0 s, 0 exchanges wait')
    stage.agent.send(m.SecretShown(asked.call, Secret(KEY_1)))
    stage.agent.heard(m.LeaseShown, lambda s: s.state == "held")
    assert signed(stage, 2).set == (("x-api-key", KEY_1),)


def test_one_source_has_a_bounded_number_of_flights(staged: Callable[..., Stage]) -> None:
    """Forty identities need it at once: sixteen are asked for, and each answer lets the next one go, in the order in which they came."""
    stage = staged()
    stage.agent, stage.proxy = stage.peer("agent"), stage.peer("proxy")
    for one in (stage.agent, stage.proxy):
        one.heard(m.Greeted)
    names = [f"w-{n:02}" for n in range(40)]
    identities = [play.Identity(name, f"spiffe://corp.example/{name}", "prod", ()) for name in names]
    bindings = [static_binding(name, name) for name in names]
    stage.agent.send(
        m.Beat(), m.PolicyBegan(7), *(m.PolicyIdentity(i) for i in identities), m.PolicySource(static_source()),
        *(m.PolicyBinding(b) for b in bindings), m.PolicyCommitted(7),
        *(grant(name, identity=name, bindings=(name,)) for name in names),
    )  # fmt: skip
    for _ in names:
        stage.agent.heard(m.GrantTaken)
    for call, name in enumerate(names, 1):
        stage.proxy.send(wanted_static(call, grant=name, binding=name))
    asked = [stage.agent.heard(m.SecretWanted) for _ in range(16)]
    assert [one.identity for one in asked] == names[:16]
    nothing_asked(stage)
    for at, name in enumerate(names[16:]):
        stage.agent.send(m.SecretShown(asked[at].call, Secret(KEY_1)))
        asked.append(stage.agent.heard(m.SecretWanted))
        assert asked[-1].identity == name
    for one in asked[24:]:
        stage.agent.send(m.SecretShown(one.call, Secret(KEY_1)))
    assert {stage.proxy.heard(m.RequestSigned).call for _ in names} == set(range(1, 41))
