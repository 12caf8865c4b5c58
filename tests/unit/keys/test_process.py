"""The keys process itself: what it gives to an honest proxy, and that a lying one gets nothing."""

import json
import os
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpsig
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import KeySet

from control.binding.model import Asked
from control.daemon import message as m
from control.reason import Reason
from control.secret import Secret
from tests.unit.keys import play
from tests.unit.keys.conftest import Stage
from tests.unit.keys.play import HOST, grant, wanted

LEAF_DER = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def leaf(call: int = 1, **changes: Any) -> m.LeafWanted:
    told: dict[str, Any] = {"grant": "g-1", "binding": "oci-cli-prod", "name": HOST, "public_key_der": LEAF_DER}
    return m.LeafWanted(call, **(told | changes))


def sign_first(stage: Stage) -> m.RequestSigned:
    """Let the first signature happen, so that a lease is held."""
    stage.proxy.send(wanted(1))
    stage.exchanged()
    return stage.proxy.heard(m.RequestSigned)


def refused(answer: Any) -> m.Refused:
    assert isinstance(answer, m.Refused), f"it was given: {type(answer).__name__}"
    assert answer.id.startswith("cw-")
    assert answer.detail
    assert answer.hint
    return answer


# ---- the honest way ----------------------------------------------------------------------------------------------------------------


def test_an_honest_proxy_gets_a_signature_that_verifies(stage: Stage) -> None:
    """Assertion for the right identity, one exchange, a signature under the session key, audited before it is given."""
    stage.proxy.send(wanted(1))
    asked, public = stage.exchanged()
    signed = stage.proxy.heard(m.RequestSigned)
    jwks = stage.agent.asks(m.IssuerWanted(5)).jwks
    claims = jwt.decode(asked.assertion.reveal().decode(), KeySet.import_key_set(json.loads(jwks)), algorithms=["RS256"]).claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == (play.ISSUER_URL, "spiffe://corp.example/ops/oci-cli", "oci-prod")
    headers = {"host": HOST} | dict(signed.set)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    needed = ["date", "(request-target)", "host"]
    assert httpsig.HeaderVerifier(headers, pem, required_headers=needed, method="GET", path="/20160918/users?limit=5").verify()
    event = next(e.event for e in stage.agent.seen if isinstance(e, m.Audited) and e.event["event"] == "request-signed")
    assert event["binding"] == "oci-cli-prod"
    assert event["path"] == "/20160918/users"
    assert event["pid"] == 4242
    assert event["issue"] == 1


def test_a_second_request_needs_no_second_exchange(stage: Stage) -> None:
    """The lease is held; other identities and sources would have their own."""
    sign_first(stage)
    for call in range(2, 12):
        assert isinstance(stage.proxy.asks(wanted(call)), m.RequestSigned)
    stage.exchange.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        stage.exchange.sock.recv(1)


def test_many_waiting_requests_make_one_exchange(stage: Stage) -> None:
    """One flight per lease (attacks: H14)."""
    for call in range(1, 21):
        stage.proxy.send(wanted(call))
    stage.exchanged()
    calls = {stage.proxy.heard(m.RequestSigned).call for _ in range(20)}
    assert calls == set(range(1, 21))
    stage.exchange.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        stage.exchange.sock.recv(1)


def test_a_leaf_is_for_the_bound_name_and_verifies_under_the_bundle(stage: Stage) -> None:
    """The bundle of the identity holds the CA that signed the leaf."""
    minted = stage.proxy.asks(leaf())
    assert isinstance(minted, m.LeafMinted)
    certificate = x509.load_pem_x509_certificate(minted.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names == [HOST]
    bundle = stage.agent.asks(m.BundleWanted(9, "oci-cli")).pem
    authorities = x509.load_pem_x509_certificates(bundle)
    assert len(authorities) == 3
    assert certificate.issuer in [a.subject for a in authorities]
    ssl.create_default_context(cadata=bundle.decode())
    assert refused(stage.agent.asks(m.BundleWanted(10, "nobody"))).reason is Reason.IDENTITY_NONE


def test_keys_last_over_a_restart(staged: Callable[..., Stage]) -> None:
    """Bundle and JWKS are the same bytes after kill -9."""
    stage = staged().played()
    before = (stage.agent.asks(m.BundleWanted(1, "oci-cli")).pem, stage.agent.asks(m.IssuerWanted(2)).jwks)
    stage.keys.stop()
    stage.start()
    stage.played()
    assert (stage.agent.asks(m.BundleWanted(1, "oci-cli")).pem, stage.agent.asks(m.IssuerWanted(2)).jwks) == before


def test_a_new_agent_hears_the_state_of_every_lease(stage: Stage) -> None:
    """A lease outlives the agent, and its content is never told."""
    sign_first(stage)
    stage.agent.sock.close()
    agent = stage.peer("agent")
    shown = agent.heard(m.LeaseShown)
    assert (shown.state, shown.issue, shown.principal) == ("held", 1, "svc-oci-cli")
    assert "aaa.bbb.ccc" not in repr(agent.seen)


# ---- a lying proxy -----------------------------------------------------------------------------------------------------------------

BUCKETS = "objectstorage.test-1.cloud.test"
USERS = "/20160918/users"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"grant": "g-2"}, Reason.GRANT_UNKNOWN),
        ({"grant": ""}, Reason.GRANT_UNKNOWN),
        ({"binding": "backup-prod"}, Reason.GRANT_UNKNOWN),
        ({"binding": "oci-cli-watched"}, Reason.GRANT_UNKNOWN),
        ({"binding": "oci-cli-buckets"}, Reason.GRANT_UNKNOWN),
        ({"asked": Asked("bank.example", 443, "GET", USERS), "headers": (("host", "bank.example"),)}, Reason.DESTINATION_UNKNOWN),
        ({"asked": Asked("backup.cloud.test", 443, "GET", "/"), "headers": (("host", "backup.cloud.test"),), "target": "/"},
         Reason.DESTINATION_UNKNOWN),
        ({"asked": Asked(HOST, 443, "DELETE", USERS)}, Reason.METHOD_NOT_ALLOWED),
        ({"asked": Asked(HOST, 443, "TRACE", USERS)}, Reason.METHOD_FORBIDDEN),
        ({"asked": Asked(HOST, 443, "GET", "/20160918/policies"), "target": "/20160918/policies"}, Reason.PATH_NOT_ALLOWED),
        ({"asked": Asked(HOST, 443, "GET", USERS + "/../policies"), "target": USERS + "/../policies"}, Reason.PATH_AMBIGUOUS),
        ({"target": "/20160918/policies"}, Reason.PATH_AMBIGUOUS),
        ({"target": "https://bank.example" + USERS}, Reason.PATH_AMBIGUOUS),
        ({"headers": (("host", HOST), ("X-HTTP-Method-Override", "DELETE"))}, Reason.METHOD_FORBIDDEN),
        ({"headers": (("host", HOST), ("x_http_method_override", "DELETE"))}, Reason.METHOD_FORBIDDEN),
        ({"headers": (("host", HOST), ("X-Original-URL", "/20160918/policies"))}, Reason.PATH_AMBIGUOUS),
        ({"headers": (("host", "bank.example"),)}, Reason.HOST_MISMATCH),
        ({"headers": (("host", BUCKETS),)}, Reason.HOST_MISMATCH),
        ({"headers": (("host", HOST + ":8443"),)}, Reason.HOST_MISMATCH),
        ({"headers": (("host", HOST), ("Host", "bank.example"))}, Reason.HOST_MISMATCH),
        ({"headers": ()}, Reason.HOST_MISMATCH),
        ({"headers": (("host", HOST), ("x", "a\n(request-target): delete /20160918/policies/1"))}, Reason.REQUEST_MALFORMED),
        ({"target": USERS + "?a\nhost: bank.example"}, Reason.REQUEST_MALFORMED),
    ],
)  # fmt: skip
def test_a_lying_proxy_gets_no_signature(stage: Stage, lie: dict[str, Any], reason: Reason) -> None:
    """Whatever does not fit the agent's grant, the rules, or itself is refused and audited; the truth beside it is signed."""
    sign_first(stage)
    answer = refused(stage.proxy.asks(wanted(2, **lie)))
    assert answer.reason is reason
    told = stage.agent.heard(m.Audited, lambda a: a.event.get("id") == answer.id)
    assert told.event["event"] == "request-refused"
    assert isinstance(stage.proxy.asks(wanted(3)), m.RequestSigned)


@pytest.mark.parametrize(
    "lie",
    [
        {"grant": "g-2"},
        {"binding": "backup-prod"},
        {"binding": "backup-prod", "name": "backup.cloud.test"},
        {"name": "bank.example"},
        {"name": "test-1.cloud.test"},
        {"name": "*.test-1.cloud.test"},
        {"name": HOST.upper()},
        {"name": HOST + "."},
        {"name": "127.0.0.1"},
        {"name": BUCKETS},
        {"binding": "oci-cli-watched", "name": "watched.test-1.cloud.test"},
        {"name": ""},
        {"public_key_der": b"garbage"},
    ],
)
def test_a_lying_proxy_gets_no_leaf(stage: Stage, lie: dict[str, Any]) -> None:
    """Only a canonical name that belongs to exactly the named binding of the grant; the truth beside it is certified."""
    refused(stage.proxy.asks(leaf(2, **lie)))
    assert isinstance(stage.proxy.asks(leaf(3)), m.LeafMinted)


@pytest.mark.parametrize(
    "said",
    [
        m.Beat(),
        grant("mine"),
        m.PolicyBegan(9),
        m.Exchanged(1, Secret("a.b.c"), 0.0, "x"),
        m.BundleWanted(1, "oci-cli"),
    ],
)
def test_a_proxy_that_speaks_as_the_agent_is_cut_off(stage: Stage, said: m.Message) -> None:
    """Its channel closes; the agent's and the other proxies' live on."""
    other = stage.peer("proxy")
    other.heard(m.Greeted)
    stage.proxy.send(said)
    assert stage.proxy.closed()
    assert isinstance(other.asks(leaf()), m.LeafMinted)


@pytest.mark.parametrize("first", [m.Beat(), m.Greeted("keys"), m.Greeted("nobody"), grant("mine")])
def test_who_does_not_greet_as_what_it_is_is_not_heard(stage: Stage, first: m.Message) -> None:
    """The first datagram must be a greeting in a role that keys serves."""
    raw = play.Peer.connected(stage.path, own="proxy", peer="keys", greets="nobody")
    assert raw.closed()
    sock = play.seqpacket()
    sock.setblocking(True)
    sock.settimeout(play.DEADLINE_S)
    sock.connect(str(stage.path))
    sock.send(m.encode(first))
    try:
        assert sock.recv(1) == b""
    except ConnectionResetError:
        pass
    assert isinstance(stage.proxy.asks(leaf()), m.LeafMinted)


def test_a_role_of_another_uid_is_refused(staged: Callable[..., Stage]) -> None:
    """The kernel says who calls; the greeting only has to agree."""
    uid = os.geteuid()
    stage = staged(uids={"agent": uid + 1, "keys": uid, "exchange": uid + 1, "proxy": uid})
    assert stage.peer("agent").closed()
    assert stage.peer("exchange").closed()
    stage.peer("proxy").heard(m.Greeted)


# ---- the agent is gone, the rules change -------------------------------------------------------------------------------------------


def test_nothing_is_given_after_the_agent_went(stage: Stage) -> None:
    """Its grants go with its channel, and a new agent's rules alone bring none back."""
    sign_first(stage)
    stage.agent.sock.close()
    agent = stage.peer("agent")
    agent.heard(m.Greeted)
    assert refused(stage.proxy.asks(wanted(2))).reason is Reason.DAEMON_DOWN
    agent.send(m.Beat(), *play.policy(play.source()))
    agent.asks(m.IssuerWanted(3))
    assert refused(stage.proxy.asks(wanted(4))).reason is Reason.GRANT_UNKNOWN
    assert refused(stage.proxy.asks(leaf(5))).reason is Reason.GRANT_UNKNOWN
    agent.send(grant())
    agent.heard(m.GrantTaken)
    assert isinstance(stage.proxy.asks(wanted(6)), m.RequestSigned)


def test_nothing_is_given_when_the_agent_falls_silent(staged: Callable[..., Stage]) -> None:
    """A stopped agent keeps its socket open: its missing beats count (SIGSTOP looks like kill -9 from here)."""
    stage = staged(stale_s=0.5).played()
    stage.agent.send(m.Beat())
    stage.proxy.send(wanted(1))
    stage.exchanged()
    assert isinstance(stage.proxy.heard((m.RequestSigned, m.Refused)), m.RequestSigned)
    until, call = time.monotonic() + play.DEADLINE_S, 2
    while isinstance(answer := stage.proxy.asks(wanted(call)), m.RequestSigned):
        assert time.monotonic() < until, "still signing"
        call += 1
    assert refused(answer).reason is Reason.DAEMON_DOWN
    assert refused(stage.proxy.asks(leaf(call + 1))).reason is Reason.DAEMON_DOWN
    stage.agent.send(m.Beat(), m.IssuerWanted(1))
    stage.agent.heard(m.IssuerShown)
    assert isinstance(stage.proxy.asks(wanted(call + 2)), m.RequestSigned)


def test_an_agent_that_goes_during_the_exchange_takes_the_answer_with_it(stage: Stage) -> None:
    """What was allowed before the wait is decided again after it."""
    stage.proxy.send(wanted(1))
    asked = stage.exchange.heard(m.ExchangeWanted)
    stage.agent.sock.close()
    stage.peer("agent").heard(m.Greeted)
    stage.exchange.send(m.Exchanged(asked.call, Secret("aaa.bbb.ccc"), 4102444800.0, "svc-oci-cli"))
    assert refused(stage.proxy.heard((m.RequestSigned, m.Refused))).reason is Reason.DAEMON_DOWN


def test_a_withdrawn_grant_is_refused_with_its_reason(stage: Stage) -> None:
    """The process ran another program: nothing more, and it is said why."""
    sign_first(stage)
    stage.agent.send(m.GrantWithdrawn("g-1", Reason.PROCESS_CHANGED), m.IssuerWanted(1))
    stage.agent.heard(m.IssuerShown)
    assert refused(stage.proxy.asks(wanted(2))).reason is Reason.PROCESS_CHANGED
    assert refused(stage.proxy.asks(leaf(3))).reason is Reason.PROCESS_CHANGED


def test_a_half_told_set_changes_nothing_and_a_whole_one_swaps(stage: Stage) -> None:
    """Grants of identities that changed end with the old set; those of others live on."""
    sign_first(stage)
    stage.agent.send(grant("g-b", identity="backup", bindings=("backup-prod",)))
    stage.agent.heard(m.GrantTaken)
    fewer = tuple(b for b in play.BINDINGS if b.name != "oci-cli-buckets")
    told = play.policy(play.source(), revision=8, bindings=fewer)
    stage.agent.send(*told[:-1], m.IssuerWanted(1))
    stage.agent.heard(m.IssuerShown)
    assert isinstance(stage.proxy.asks(wanted(2)), m.RequestSigned)
    stage.agent.send(told[-1], m.IssuerWanted(2))
    stage.agent.heard(m.IssuerShown)
    assert refused(stage.proxy.asks(wanted(3))).reason is Reason.REVISION_OLD
    assert isinstance(stage.proxy.asks(leaf(4, grant="g-b", binding="backup-prod", name="backup.cloud.test")), m.LeafMinted)


# ---- the exchange fails ------------------------------------------------------------------------------------------------------------


def test_another_principal_than_declared_is_refused_and_shown(stage: Stage) -> None:
    """The token is thrown away, the agent hears of it (attacks: C5)."""
    stage.proxy.send(wanted(1))
    stage.exchanged(principal="svc-admin")
    answer = refused(stage.proxy.heard((m.RequestSigned, m.Refused)))
    assert answer.reason is Reason.PRINCIPAL_MISMATCH
    assert "svc-admin" in answer.detail
    shown = stage.agent.heard(m.LeaseShown, lambda s: s.state == "failed")
    assert shown.reason is Reason.PRINCIPAL_MISMATCH
    assert refused(stage.proxy.asks(wanted(2))).reason is Reason.PRINCIPAL_MISMATCH


def test_a_failed_exchange_is_told_with_its_own_reason_and_not_stormed(stage: Stage) -> None:
    """Those who ask within the backoff hear the same reason without another exchange."""
    stage.proxy.send(wanted(1))
    asked = stage.exchange.heard(m.ExchangeWanted)
    stage.exchange.send(m.ExchangeFailed(asked.call, Reason.EXCHANGE_REFUSED, 'source "oci-prod-upst": invalid_grant', 60.0))
    for call in range(2, 10):
        stage.proxy.send(wanted(call))
    for _ in range(1, 10):
        answer = refused(stage.proxy.heard((m.RequestSigned, m.Refused)))
        assert answer.reason is Reason.EXCHANGE_REFUSED
        assert "invalid_grant" in answer.detail
    stage.exchange.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        stage.exchange.sock.recv(1)


def test_an_exchange_process_that_goes_is_told_and_a_new_one_serves(stage: Stage) -> None:
    """The waiting request is refused at once, the next one flies with the new process."""
    stage.proxy.send(wanted(1))
    stage.exchange.heard(m.ExchangeWanted)
    stage.exchange.sock.close()
    assert refused(stage.proxy.heard((m.RequestSigned, m.Refused))).reason is Reason.LEASE_UNAVAILABLE
    stage.exchange = stage.peer("exchange")
    stage.exchange.heard(m.Greeted)
    until, call = time.monotonic() + play.DEADLINE_S, 2
    while time.monotonic() < until:  # the backoff of half a second passes
        stage.proxy.send(wanted(call))
        stage.exchange.sock.settimeout(0.05)
        try:
            stage.exchanged()
        except TimeoutError:
            refused(stage.proxy.heard((m.RequestSigned, m.Refused)))
            call += 1
            continue
        assert isinstance(stage.proxy.heard((m.RequestSigned, m.Refused)), m.RequestSigned)
        return
    raise AssertionError("the new process was never asked")


def test_nothing_it_writes_holds_a_secret(staged: Callable[..., Stage]) -> None:
    """stderr, argv and environment of the process hold neither token nor assertion nor a private key (attacks: C4)."""
    stage = staged().played()
    stage.proxy.send(wanted(1))
    asked, _ = stage.exchanged()
    stage.proxy.heard(m.RequestSigned)
    pid = stage.keys.child.pid
    written = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    written += stage.keys.stop().encode()
    told = repr(stage.agent.seen).encode()
    assert b"keys-ready" in written
    for secret in (b"aaa.bbb.ccc", asked.assertion.reveal(), b"PRIVATE KEY"):
        assert secret not in written + told


def test_it_beats_and_ends_with_its_supervisor(staged: Callable[..., Stage]) -> None:
    """A byte every 0.2 s; stopped, none; when nobody reads them any more it ends."""
    stage = staged().played()
    assert stage.keys.beaten()
    assert stage.keys.beaten()
    stage.keys.child.send_signal(signal.SIGSTOP)
    stage.keys.child.send_signal(signal.SIGCONT)
    assert stage.keys.beaten()
    os.close(stage.keys.beats)
    assert stage.keys.child.wait(play.DEADLINE_S) == 0
    stage.keys.beats = os.open("/dev/null", os.O_RDONLY)
