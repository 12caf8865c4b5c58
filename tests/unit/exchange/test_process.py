"""The exchange process against a real HTTPS server: good answers, hostile answers, and no secret anywhere (attacks: C6)."""

import base64
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpsig
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from joserfc import jwt
from joserfc.jwk import KeySet

from control.binding.model import Source
from control.daemon import message as m
from control.reason import Reason
from control.secret import Secret
from tests.e2e.cloud.metadata_io import Metadata
from tests.unit.exchange.issuer import Answer, Asked, Issuer, good, http, upst
from tests.unit.keys import play

CLIENT_SECRET = "client-secret-of-the-test-4711"
ASSERTION = "eyJhbGciOiJSUzI1NiJ9.YXNzZXJ0aW9uLXBheWxvYWQ.YXNzZXJ0aW9uLXNpZ25hdHVyZQ"
KEY_DER = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_bytes(
    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
)  # fmt: skip


class Stage:
    """One exchange process; agent and keys are played."""

    def __init__(self, directory: Path, **setup: Any) -> None:
        self.listeners = [play.own_listener(directory / f"{name}.sock") for name in ("agent", "keys")]
        self.process = play.Process("exchange", "ExchangeSetup", {"run": str(directory), "rules_s": 0.05, **setup})
        self.agent, self.keys = (
            play.accepted(listener, own=own, peer="exchange") for listener, own in zip(self.listeners, ("agent", "keys"), strict=True)
        )

    def told(self, source: Source, secret: str | None = CLIENT_SECRET) -> "Stage":
        value = None if secret is None else Secret(secret)
        self.agent.send(m.PolicyBegan(1), m.PolicySource(source, value), m.PolicyCommitted(1))
        return self

    def asks(self, call: int = 1, source: str = "oci-prod-upst") -> Any:
        return self.keys.asks(m.ExchangeWanted(call, source, Secret(ASSERTION), KEY_DER, "oci-cli", 3))


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., tuple[Stage, Issuer]]]:
    made: list[tuple[Stage, Issuer]] = []

    def make(answer: Answer, names: list[x509.GeneralName] | None = None, trusts: str | None = None, **setup: Any) -> tuple[Stage, Issuer]:
        issuer = Issuer(tmp_path, answer, names)
        stage = Stage(tmp_path, **setup)
        made.append((stage, issuer))
        stage.told(play.source(issuer.domain, issuer.roots if trusts is None else trusts))
        _wait_for_policy(stage)
        return made[-1]

    yield make
    for stage, issuer in made:
        stage.process.stop()
        issuer.stop()
        for listener in stage.listeners:
            listener.close()


def _wait_for_policy(stage: Stage) -> None:
    """Read the process's log until it says that the set is in force."""
    until = time.monotonic() + play.DEADLINE_S
    while b"rules-swapped" not in stage.process.log:
        assert time.monotonic() < until
        stage.process.log += os.read(stage.process.stderr_read, 65536)


def failed(answer: Any) -> m.ExchangeFailed:
    assert isinstance(answer, m.ExchangeFailed), f"it was believed: {type(answer).__name__}"
    return answer


def test_a_good_exchange_yields_token_principal_and_end(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """The form is Oracle's, the client is authenticated by Basic, and the agent hears of it first."""
    stage, issuer = staged(good)
    answer = stage.asks()
    assert isinstance(answer, m.Exchanged)
    assert answer.principal == "svc-oci-cli"
    assert 3500 < answer.expires_at - time.time() <= 3600
    assert answer.token.reveal().count(b".") == 2
    asked = issuer.asked[0]
    assert asked["head"].startswith("POST /oauth2/v1/token HTTP/1.1\r\n")
    assert "authorization: Basic " + base64.b64encode(f"client-1:{CLIENT_SECRET}".encode()).decode() in asked["head"]
    assert asked["form"]["subject_token"] == ASSERTION
    told = stage.agent.heard(m.Audited).event
    assert (told["event"], told["source"], told["identity"], told["issue"]) == ("exchange-done", "oci-prod-upst", "oci-cli", 3)
    assert "svc-oci-cli" in told["detail"]


def huge(asked: Asked) -> bytes:
    return http(b"x" * 1_000_000, length=100_000_000)


def chunked_for_ever(asked: Asked) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 400_000


HEADS = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(200))


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        (lambda _: http(b"<html>", content_type="text/html"), Reason.EXCHANGE_MALFORMED, "text/html"),
        (lambda _: http(b'{"token": "a.b', length=500), Reason.EXCHANGE_MALFORMED, "ends early"),
        (lambda _: http(b'{"token": "a.b'), Reason.EXCHANGE_MALFORMED, "token"),
        (lambda _: http(b"", "302 Found", more="Location: https://127.0.0.1:1/\r\n"), Reason.EXCHANGE_MALFORMED, "redirect"),
        (lambda _: http(b"", "307 Temporary", more="Location: /oauth2/v1/token\r\n"), Reason.EXCHANGE_MALFORMED, "redirect"),
        (huge, Reason.EXCHANGE_MALFORMED, "larger than"),
        (chunked_for_ever, Reason.EXCHANGE_MALFORMED, "larger than"),
        (lambda _: HEADS, Reason.EXCHANGE_MALFORMED, "well-formed"),
        (lambda _: b"HTTP/1.1 103 Early\r\n\r\n" * 20_000, Reason.EXCHANGE_MALFORMED, "larger than"),
        (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n", Reason.EXCHANGE_MALFORMED, "well-formed"),
        (lambda _: b"", Reason.EXCHANGE_MALFORMED, "ends early"),
        (lambda _: http(b'{"token": ["a"]}'), Reason.EXCHANGE_MALFORMED, "token"),
        (lambda a: http(json.dumps({"token": upst(a, life_s=-5)}).encode()), Reason.EXCHANGE_MALFORMED, "exp"),
        (lambda _: http(b'{"error":"invalid_grant","error_description":"not you"}', "401 Unauthorized"),
         Reason.EXCHANGE_REFUSED, "invalid_grant: not you"),
        (lambda a: http(json.dumps({"error": "x", "error_description": a["head"]}).encode(), "400 Bad"),
         Reason.EXCHANGE_REFUSED, "repeats"),
        (lambda a: http(json.dumps({"error": a["form"]["subject_token"]}).encode(), "400 Bad"), Reason.EXCHANGE_REFUSED, "repeats"),
    ],
)  # fmt: skip
def test_a_hostile_answer_becomes_a_reason_and_the_process_lives(
    staged: Callable[..., tuple[Stage, Issuer]], answer: Answer, reason: Reason, says: str
) -> None:
    """Bounded, typed, naming the source, without a secret; the next exchange works."""
    stage, issuer = staged(answer)
    refused = failed(stage.asks())
    assert refused.reason is reason
    assert says in refused.detail
    assert "oci-prod-upst" in refused.detail
    told = stage.agent.heard(m.Audited).event
    assert (told["event"], told["reason"], told["detail"]) == ("exchange-failed", reason, refused.detail)
    for secret in (CLIENT_SECRET, ASSERTION, ASSERTION.split(".")[2]):
        assert secret not in refused.detail
    assert issuer.connections == 1, "a redirect was followed"
    issuer.answer = good
    assert isinstance(stage.asks(2), m.Exchanged)


def test_another_principal_is_an_event_of_its_own(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """The token of somebody else is not called a success first: exchange-failed, principal-mismatch, both names, no token to keys."""
    stage, _ = staged(lambda asked: http(json.dumps({"token": upst(asked, sub="svc-someone\nelse")}).encode()))
    refused = failed(stage.asks())
    assert refused.reason is Reason.PRINCIPAL_MISMATCH
    assert 'the token is for "svc-someone?else", the federation declares "svc-oci-cli"' in refused.detail
    told = stage.agent.heard(m.Audited).event
    assert (told["event"], told["reason"], told["detail"]) == ("exchange-failed", "principal-mismatch", refused.detail)


def _by_instance(source: Source, metadata: str) -> Source:
    of = msgspec.structs.replace(source.of, client_auth="instancePrincipal", metadata=metadata, client_id="", client_secret_file="")
    return msgspec.structs.replace(source, of=of)


def _hostile(service: Metadata, path: str, answer: tuple[int, bytes]) -> None:
    service.answers[f"/opc/v2/{path}"] = answer


@pytest.mark.parametrize(
    ("path", "answer", "reason", "says"),
    [
        ("instance/regionInfo", (404, b""), Reason.EXCHANGE_MALFORMED, "works on OCI instances only"),
        ("instance/regionInfo", (200, b'{"realmDomainComponent": "a.test/x", "regionIdentifier": "r"}'),
         Reason.EXCHANGE_MALFORMED, "no region"),
        ("identity/cert.pem", (302, b""), Reason.EXCHANGE_MALFORMED, "answered with 302"),
        ("identity/key.pem", (200, b"y" * 300_000), Reason.EXCHANGE_MALFORMED, "larger than"),
        ("identity/key.pem", (200, b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"),
         Reason.EXCHANGE_MALFORMED, "no private key"),
        ("identity/intermediate.pem", (200, b""), Reason.EXCHANGE_MALFORMED, "no certificate"),
        ("instance/regionInfo", (200, b'{"realmDomainComponent": "no-such.invalid", "regionIdentifier": "r-1"}'),
         Reason.EXCHANGE_UNREACHABLE, "the auth service: no connection"),
    ],
)  # fmt: skip
def test_a_strange_metadata_service_ends_the_exchange_only(
    staged: Callable[..., tuple[Stage, Issuer]], path: str, answer: tuple[int, bytes], reason: Reason, says: str
) -> None:
    """No client secret, and no word to the domain before we are somebody; redirects lead nowhere; the process lives."""
    stage, issuer = staged(good)
    with Metadata() as service:
        service.more = {"location": f"{service.url}/elsewhere"} if answer[0] == 302 else {}
        _hostile(service, path, answer)
        stage.process.log = b""
        stage.told(_by_instance(play.source(issuer.domain, issuer.roots), service.url), secret=None)
        _wait_for_policy(stage)
        refused = failed(stage.asks())
        assert (refused.reason, says in refused.detail) == (reason, True), refused
        assert "/opc/v2/elsewhere" not in service.asked
    assert issuer.connections == 0
    assert "MIIE" not in refused.detail
    stage.process.log = b""
    stage.told(play.source(issuer.domain, issuer.roots))
    _wait_for_policy(stage)
    assert isinstance(stage.asks(2), m.Exchanged)


def test_a_metadata_service_that_is_not_there_or_silent_is_said(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """A closed port at once, silence after the time for everything."""
    stage, issuer = staged(good, timeout_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as probe:
        closed = probe.getsockname()[1]
        probe.close()
        for port, reason, says in (
            (closed, Reason.EXCHANGE_UNREACHABLE, "the metadata service: no connection"),
            (silent.getsockname()[1], Reason.EXCHANGE_TIMEOUT, "within 0.5 s"),
        ):
            stage.process.log = b""
            stage.told(_by_instance(play.source(issuer.domain, issuer.roots), f"http://127.0.0.1:{port}/opc/v2"), secret=None)
            _wait_for_policy(stage)
            refused = failed(stage.asks())
            assert (refused.reason, says in refused.detail) == (reason, True), refused
    assert issuer.connections == 0


def test_a_silent_domain_times_out(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """Nothing at all, and a head that never ends: the overall time counts, not the pauses."""
    stage, issuer = staged(lambda _: None, timeout_s=0.4)
    assert failed(stage.asks()).reason is Reason.EXCHANGE_TIMEOUT
    issuer.answer = good
    assert isinstance(stage.asks(2), m.Exchanged)


def test_an_unverified_domain_gets_no_byte(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """Another root, and the right root for another name: refused before anything is sent (attacks: H16)."""
    stage, issuer = staged(good, trusts="")
    refused = failed(stage.asks())
    assert refused.reason is Reason.EXCHANGE_UNVERIFIED
    assert issuer.asked == []


def test_a_certificate_for_another_name_gets_no_byte(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """The right root does not help the wrong name."""
    stage, issuer = staged(good, names=[x509.DNSName("other.example")])
    assert failed(stage.asks()).reason is Reason.EXCHANGE_UNVERIFIED
    assert issuer.asked == []


def test_a_closed_port_and_a_name_that_is_not_are_unreachable(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """Said at once, with the source's name."""
    stage, _ = staged(good)
    stage.process.log = b""
    for domain in ("https://127.0.0.1:1", "https://no-such-name.invalid"):
        stage.told(play.source(domain))
        _wait_for_policy(stage)
        assert failed(stage.asks()).reason is Reason.EXCHANGE_UNREACHABLE
        stage.process.log = b""


def test_an_unknown_source_and_a_missing_secret_are_said(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """Neither flies."""
    stage, issuer = staged(good)
    assert failed(stage.asks(source="nobody")).reason is Reason.LEASE_UNAVAILABLE
    stage.process.log = b""
    stage.told(play.source(issuer.domain, issuer.roots), secret=None)
    _wait_for_policy(stage)
    assert "clientSecretFile" in failed(stage.asks(2)).detail
    assert issuer.connections == 0


def test_a_wish_that_comes_before_its_source_waits(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """keys and exchange hear of a new set on channels of their own; being first is no reason to fail."""
    stage, issuer = staged(good, rules_s=play.DEADLINE_S)
    stage.keys.send(m.ExchangeWanted(1, "another", Secret(ASSERTION), KEY_DER))
    other = msgspec.structs.replace(play.source(issuer.domain, issuer.roots), name="another")
    assert isinstance(stage.told(other).keys.heard((m.Exchanged, m.ExchangeFailed)), m.Exchanged)


def test_sources_go_with_the_agent_and_come_back_with_the_next(staged: Callable[..., tuple[Stage, Issuer]]) -> None:
    """Client secrets are held for a living agent only; both channels are opened anew by the process."""
    stage, issuer = staged(good)
    stage.agent.sock.close()
    stage.agent = play.accepted(stage.listeners[0], own="agent", peer="exchange")
    assert failed(stage.asks()).reason is Reason.LEASE_UNAVAILABLE
    stage.process.log = b""
    stage.told(play.source(issuer.domain, issuer.roots))
    _wait_for_policy(stage)
    stage.keys.sock.close()
    stage.keys = play.accepted(stage.listeners[1], own="keys", peer="exchange")
    assert isinstance(stage.asks(2), m.Exchanged)


def test_the_environment_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies, trust stores and key logs that the environment names are not used."""
    issuer = Issuer(tmp_path, good)
    (tmp_path / "roots.pem").write_text(issuer.roots)
    log = tmp_path / "keylog"
    told = {"SSL_CERT_FILE": str(tmp_path / "roots.pem"), "SSLKEYLOGFILE": str(log), "HTTPS_PROXY": "http://127.0.0.1:1"}
    real = play.subprocess.Popen
    monkeypatch.setattr(play.subprocess, "Popen", lambda *a, **k: real(*a, **{**k, "env": k["env"] | told}))
    stage = Stage(tmp_path)
    try:
        stage.told(play.source(issuer.domain))
        _wait_for_policy(stage)
        assert failed(stage.asks()).reason is Reason.EXCHANGE_UNVERIFIED
        stage.process.log = b""
        stage.told(play.source(issuer.domain, issuer.roots))
        _wait_for_policy(stage)
        assert isinstance(stage.asks(2), m.Exchanged)
        assert not log.exists()
    finally:
        stage.process.stop()
        issuer.stop()
        for listener in stage.listeners:
            listener.close()


def test_keys_and_exchange_together_sign_against_a_domain_that_checks(tmp_path: Path) -> None:
    """The whole way: grant, assertion, exchange, signature; the domain verifies the JWT, httpsig the request, neither is ours."""
    trusted: dict[str, Any] = {}

    def checks(asked: Asked) -> bytes:
        claims = jwt.decode(asked["form"]["subject_token"], trusted["jwks"], algorithms=["RS256"]).claims
        assert claims["sub"] == "spiffe://corp.example/ops/oci-cli"
        trusted["public"] = load_der_public_key(base64.b64decode(asked["form"]["public_key"]))
        return good(asked)

    issuer = Issuer(tmp_path, checks)
    state = tmp_path / "keys"
    state.mkdir(mode=0o700)
    keys_listener, agent_listener = play.own_listener(tmp_path / "keys.sock"), play.own_listener(tmp_path / "agent.sock")
    number = keys_listener.fileno()
    keys = play.Process("keys", "KeysSetup", {"keys_listener": number, "keys_dir": str(state), "stale_s": 3600.0}, (number,))
    exchange = play.Process("exchange", "ExchangeSetup", {"run": str(tmp_path)})
    try:
        source = play.source(issuer.domain, issuer.roots)
        to_exchange = play.accepted(agent_listener, own="agent", peer="exchange")
        to_exchange.send(m.PolicyBegan(7), m.PolicySource(source, Secret(CLIENT_SECRET)), m.PolicyCommitted(7))
        to_keys = play.Peer.connected(tmp_path / "keys.sock", own="agent", peer="keys")
        to_keys.send(m.Beat(), *play.policy(source), play.grant())
        to_keys.heard(m.GrantTaken)
        trusted["jwks"] = KeySet.import_key_set(json.loads(to_keys.asks(m.IssuerWanted(1)).jwks))
        proxy = play.Peer.connected(tmp_path / "keys.sock", own="proxy", peer="keys")
        signed = proxy.asks(play.wanted(1))
        assert isinstance(signed, m.RequestSigned), signed
        pem = trusted["public"].public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        headers = {"host": play.HOST} | dict(signed.set)
        needed = ["date", "(request-target)", "host"]
        assert httpsig.HeaderVerifier(headers, pem, required_headers=needed, method="GET", path="/20160918/users?limit=5").verify()
        assert to_exchange.heard(m.Audited).event["event"] == "exchange-done"
    finally:
        logs = keys.stop() + exchange.stop()
        issuer.stop()
        keys_listener.close()
        agent_listener.close()
    assert CLIENT_SECRET not in logs
