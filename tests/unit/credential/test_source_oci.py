"""The OCI exchange as bytes: what is asked, and what each strange answer becomes."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.binding.model import OciSource, Source
from control.credential.source import oci
from control.credential.source.model import Answered, Failed, Yielded
from control.reason import Reason
from control.secret import Secret

NOW = 1_800_000_000.0
SECRET, ASSERTION = Secret("client+secret/of=the%test"), Secret("eyJhbGciOiJSUzI1NiJ9.cGF5bG9hZA.c2lnbmF0dXJl")
SOURCE = Source("oci-prod-upst", OciSource("https://idcs-1.identity.cloud.test", "cid", "/x"), "prod", 3600, "oci-prod", "svc")
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
DER = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(key: rsa.RSAPrivateKey = KEY) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "e": "AQAB", "n": b64(numbers.n.to_bytes(256, "big"))}


def upst(**changes: Any) -> str:
    claims: dict[str, Any] = {"sub": "svc", "exp": int(NOW) + 3600, "jwk": json.dumps(jwk())} | changes
    claims = {k: v for k, v in claims.items() if v is not None}
    return f"{b64(b'{}')}.{b64(json.dumps(claims).encode())}.{b64(b'sig')}"


def parsed(status: int, body: bytes, content_type: str = "application/json", retry_after: str = "") -> Yielded | Failed:
    return oci.parse(SOURCE, Answered(status, content_type, retry_after, body), DER, NOW, (SECRET, ASSERTION))


def token_answer(token: Any) -> bytes:
    return json.dumps({"token": token}).encode()


def test_the_request_is_oracles() -> None:
    """Form, names and values as documented; the secret goes into Basic, form-encoded as RFC 6749 says."""
    ask = oci.build(SOURCE, SECRET, ASSERTION, DER)
    assert (ask.host, ask.port, ask.target) == ("idcs-1.identity.cloud.test", 443, "/oauth2/v1/token")
    form = parse_qs(ask.body.reveal().decode(), strict_parsing=True)
    assert form == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "requested_token_type": ["urn:oci:token-type:oci-upst"],
        "subject_token": [ASSERTION.reveal().decode()],
        "subject_token_type": ["jwt"],
        "public_key": [base64.b64encode(DER).decode()],
    }
    basic = base64.b64decode(ask.authorization.reveal().removeprefix(b"Basic "))
    assert basic == b"cid:client%2Bsecret%2Fof%3Dthe%25test"
    assert "client" not in repr(ask)


@pytest.mark.parametrize("form", [json.dumps(jwk()), jwk()])
def test_a_good_answer_yields_the_token(form: Any) -> None:
    """The key inside may be a string of JSON, as Oracle writes it, or an object."""
    outcome = parsed(200, token_answer(upst(jwk=form)))
    assert isinstance(outcome, Yielded)
    assert (outcome.principal, outcome.expires_at) == ("svc", NOW + 3600)


OTHER = jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.mark.parametrize(
    ("status", "body", "reason", "says"),
    [
        (200, b"<html>hello</html>", Reason.EXCHANGE_MALFORMED, "token"),
        (200, b"", Reason.EXCHANGE_MALFORMED, "token"),
        (200, b'{"token": "a.b', Reason.EXCHANGE_MALFORMED, "token"),
        (200, b"[" * 50_000, Reason.EXCHANGE_MALFORMED, "token"),
        (200, b'{"access_token": "a.b.c"}', Reason.EXCHANGE_MALFORMED, "token"),
        (200, token_answer(7), Reason.EXCHANGE_MALFORMED, "token"),
        (200, token_answer("x" * 20_000), Reason.EXCHANGE_MALFORMED, "token"),
        (200, token_answer('a.b.c",keyId="other'), Reason.EXCHANGE_MALFORMED, "not a JWT"),
        (200, token_answer("a.b"), Reason.EXCHANGE_MALFORMED, "not a JWT"),
        (200, token_answer("a.@@.c"), Reason.EXCHANGE_MALFORMED, "not a JWT"),
        (200, token_answer("a.AAAAA.c"), Reason.EXCHANGE_MALFORMED, "payload"),
        (200, token_answer(upst(exp="soon")), Reason.EXCHANGE_MALFORMED, "exp"),
        (200, token_answer(upst(exp=None)), Reason.EXCHANGE_MALFORMED, "exp"),
        (200, token_answer(upst(exp=NOW - 1)), Reason.EXCHANGE_MALFORMED, "exp"),
        (200, token_answer(upst(exp=NOW + 10**9)), Reason.EXCHANGE_MALFORMED, "exp"),
        (200, token_answer(upst(sub=None)), Reason.EXCHANGE_MALFORMED, "sub"),
        (200, token_answer(upst(sub=["svc"])), Reason.EXCHANGE_MALFORMED, "sub"),
        (200, token_answer(upst(jwk=None)), Reason.EXCHANGE_MALFORMED, "jwk"),
        (200, token_answer(upst(jwk="{}")), Reason.EXCHANGE_MALFORMED, "jwk"),
        (200, token_answer(upst(jwk="[1]")), Reason.EXCHANGE_MALFORMED, "jwk"),
        (200, token_answer(upst(jwk="[" * 10_000)), Reason.EXCHANGE_MALFORMED, "jwk"),
        (200, token_answer(upst(jwk={"kty": "RSA", "n": 5, "e": []})), Reason.EXCHANGE_MALFORMED, "jwk"),
        (200, token_answer(upst(jwk=OTHER)), Reason.EXCHANGE_MALFORMED, "jwk"),
        (201, token_answer(upst()), Reason.EXCHANGE_MALFORMED, "201"),
        (302, b"", Reason.EXCHANGE_MALFORMED, "redirect"),
        (404, b"<html></html>", Reason.EXCHANGE_MALFORMED, "404"),
        (500, b'{"error": 5}', Reason.EXCHANGE_MALFORMED, "500"),
        (401, b'{"error": "invalid_client", "error_description": "who?"}', Reason.EXCHANGE_REFUSED, "invalid_client: who?"),
        (400, b'{"error": "invalid_grant"}', Reason.EXCHANGE_REFUSED, "invalid_grant"),
        (400, b'{"error": "a b\\n"}', Reason.EXCHANGE_REFUSED, "unreadable"),
    ],
)
def test_a_strange_answer_becomes_a_reason(status: int, body: bytes, reason: Reason, says: str) -> None:
    """Typed, naming source and field, never raising."""
    outcome = parsed(status, body)
    assert isinstance(outcome, Failed)
    assert outcome.reason is reason
    assert says in outcome.detail
    assert 'source "oci-prod-upst"' in outcome.detail
    assert len(outcome.detail) < 500


def test_what_was_told_never_comes_back_in_a_detail() -> None:
    """A domain that echoes secret, Basic credential or assertion in its error is not quoted (attacks: C4)."""
    secret, assertion = SECRET.reveal(), ASSERTION.reveal()
    for echo in (secret, base64.b64encode(secret), b"client%2Bsecret%2Fof%3Dthe%25test", assertion, assertion.split(b".")[2]):
        for body in ({"error": "x", "error_description": "you sent " + echo.decode()}, {"error": echo.decode()}):
            outcome = parsed(400, json.dumps(body).encode())
            assert isinstance(outcome, Failed)
            assert echo.decode() not in outcome.detail
    control = parsed(400, b'{"error": "x", "error_description": "harmless words"}')
    assert isinstance(control, Failed)
    assert "harmless words" in control.detail


@pytest.mark.parametrize(("header", "wait"), [("", 0.0), ("7", 7.0), ("-1", 0.0), ("nan", 0.0), ("1" * 50, 0.0)])
def test_retry_after_is_a_small_number_or_nothing(header: str, wait: float) -> None:
    """The lease bounds it again."""
    outcome = parsed(429, b'{"error": "slow_down"}', retry_after=header)
    assert isinstance(outcome, Failed)
    assert outcome.retry_after_s == wait
