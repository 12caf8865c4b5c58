"""The test cloud's token endpoint refuses what Oracle's refuses, each refusal beside the exchange that works.  Needs loopback only."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.talk import Issuer, Reply, Signed, exchange


@dataclass
class Scene:
    """An issuer, a cloud that trusts it, the caller's key."""

    issuer: Issuer
    cloud: RunningCloud
    key: rsa.RSAPrivateKey

    def refused(self, reply: Reply, error: str, *words: str, status: int = 400) -> None:
        """Say that ``reply`` is this refusal, in OAuth2's shape, and was recorded as one."""
        assert (reply.status, reply.json()["error"]) == (status, error), reply.body
        assert all(word in reply.json()["error_description"] for word in words), reply.body
        assert self.cloud.records()[-1].verdict == "refused"
        assert self.cloud.records()[-1].principal == ""


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    with Issuer(tmp_path_factory.mktemp("issuer")) as made:
        yield made


def _mapping(issuer: Issuer, name: str, rule: str, user: str) -> dict[str, Any]:
    return issuer.trust(name=name, issuer=f"https://{name}.test", impersonationServiceUsers=[{"rule": rule, "value": user}])


@pytest.fixture(scope="module")
def scene(issuer: Issuer, key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    trusts = [
        issuer.trust(),
        issuer.trust(name="asleep", issuer="https://asleep.test", active=False),
        issuer.trust(name="no-impersonation", issuer="https://no-impersonation.test", allowImpersonation=False),
        _mapping(issuer, "wild", "sub eq spiffe://corp.test/*", "svc-oci-cli"),
        _mapping(issuer, "person", "sub co corp", "alice"),
        _mapping(issuer, "gone", "sub co corp", "svc-gone"),
        issuer.trust(name="plaintls", issuer="https://unverified.test", publicKeyEndpointRoots=""),
        issuer.trust(name="claimed", issuer="https://claimed.test", clientClaimName="azp", clientClaimValues=["credwire"]),
    ]
    with RunningCloud(tmp_path_factory.mktemp("cloud"), issuer.cloud_config(trusts=trusts)) as cloud:
        yield Scene(issuer, cloud, key)


def test_a_good_assertion_gives_a_upst_bound_to_the_callers_key(scene: Scene) -> None:
    """The token is the service user's, lives an hour, holds our public key and signs an API request."""
    reply = exchange(scene.cloud, scene.issuer.assertion(), scene.key)
    assert reply.status == 200
    assert list(reply.json()) == ["token"]
    claims = jwt.decode(reply.json()["token"], options={"verify_signature": False})
    assert claims["sub"] == "svc-oci-cli"
    assert claims["exp"] - claims["iat"] == 3600
    assert json.loads(claims["jwk"])["n"] == Issuer.jwk(scene.key, "")["n"]
    record = scene.cloud.records()[-1]
    assert (record.kind, record.verdict, record.principal) == ("exchange", "exchanged", "svc-oci-cli")
    assert Signed(scene.key, f"ST${reply.json()['token']}").send(scene.cloud).status == 200


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"aud": "somebody-else"}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://issuer.corp.test/"}, "issuer"),
        ({"iss": "https://stranger.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"sub": "spiffe://corp.test/ops/oci-cli2"}, "rule"),
        ({"sub": "spiffe://corp.test/ops/OCI-CLI"}, "rule"),
        ({"sub": None}, "sub"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": 4_000_000_000}, "future"),
        ({"iat": None}, "iat"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iss": "https://asleep.test"}, "not active"),
        ({"iss": "https://gone.test"}, "no active user"),
        ({"iss": "https://unverified.test"}, "cannot be fetched"),
        ({"iss": "https://claimed.test"}, "azp"),
        ({"iss": "https://claimed.test", "azp": "another"}, "azp"),
    ],
)
def test_a_wrong_assertion_is_an_invalid_grant(scene: Scene, changed: dict[str, Any], words: str) -> None:
    """Issuer byte for byte, audience, times, subject rule, state of the trust, TLS of the key set: each alone refuses."""
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(**changed), scene.key), "invalid_grant", words)


@pytest.mark.parametrize(
    "changed", [{"iss": "https://wild.test", "sub": "spiffe://corp.test/a/b"}, {"iss": "https://claimed.test", "azp": "credwire"}]
)
def test_wildcards_and_client_claims_let_the_right_ones_in(scene: Scene, changed: dict[str, Any]) -> None:
    """``*`` stands for any characters; a listed client claim is enough."""
    assert exchange(scene.cloud, scene.issuer.assertion(**changed), scene.key).status == 200


def test_expiry_has_the_trusts_skew_and_no_more(scene: Scene) -> None:
    """Five seconds of skew: two seconds late is taken, a minute is not."""
    now = int(time.time())
    assert exchange(scene.cloud, scene.issuer.assertion(exp=now - 2, iat=now - 60), scene.key).status == 200
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(exp=now - 60, iat=now - 90), scene.key), "invalid_grant", "expired")


def test_signatures_of_other_keys_and_algorithms_are_refused(scene: Scene) -> None:
    """A key that is not the issuer's, a symmetric signature with the public key, no signature at all, a broken one."""
    good = scene.issuer.assertion()
    claims = jwt.decode(good, options={"verify_signature": False})
    forged = [
        scene.issuer.assertion(key=scene.key),
        jwt.encode(claims, "s" * 64, algorithm="HS256", headers={"kid": scene.issuer.kid}),
        jwt.encode(claims, "", algorithm="none", headers={"kid": scene.issuer.kid}),
        jwt.encode(claims, scene.issuer.key, algorithm="RS512", headers={"kid": scene.issuer.kid}),
        good[:-8] + "AAAAAAAA",
    ]
    for token in forged:
        scene.refused(exchange(scene.cloud, token, scene.key), "invalid_grant", "does not verify")
    scene.refused(exchange(scene.cloud, "not.a.jwt", scene.key), "invalid_grant", "not a JWT")
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(kid="key-2"), scene.key), "invalid_grant", "key-2")


def test_a_rotated_key_is_fetched_afresh_and_broken_key_sets_are_refused(scene: Scene) -> None:
    """An unknown kid makes the domain look again; HTML, errors, redirects, huge answers and private members give no token."""
    issuer, fresh = scene.issuer, rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer.keys.append(issuer.jwk(fresh, "key-9"))
    assert exchange(scene.cloud, issuer.assertion(key=fresh, kid="key-9"), scene.key).status == 200
    issuer.keys.pop()
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(issuer.key))
    leaked = json.dumps({"keys": [{**private, "kid": issuer.kid}]}).encode()
    answers = [(200, b"<html>"), (500, b""), (302, b""), (200, b'{"keys": 1}'), (200, b" " * (1 << 17)), (200, leaked)]
    try:
        for answer in answers:
            issuer.answer = answer
            scene.refused(exchange(scene.cloud, issuer.assertion(), scene.key), "invalid_grant", "issuer")
    finally:
        issuer.answer = None
    assert exchange(scene.cloud, issuer.assertion(), scene.key).status == 200


@pytest.mark.parametrize("client", ["exchange-app:wrong", "exchange-app:", "nobody:exchange-secret", "", "exchange-app"])
def test_a_client_that_does_not_authenticate_is_refused(scene: Scene, client: str) -> None:
    """Wrong secret, unknown client, no credentials: invalid_client."""
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(), scene.key, client=client), "invalid_client", status=401)


def test_unlisted_clients_and_users_that_are_no_service_users_are_unauthorized(scene: Scene) -> None:
    """The client must stand in oauthClients, the trust must allow impersonation, the user must be a service user."""
    asked = exchange(scene.cloud, scene.issuer.assertion(), scene.key, client="other-app:other-secret")
    scene.refused(asked, "unauthorized_client", "not listed", status=401)
    for name, word in (("no-impersonation", "impersonation"), ("person", "not a service user")):
        asked = exchange(scene.cloud, scene.issuer.assertion(iss=f"https://{name}.test"), scene.key)
        scene.refused(asked, "unauthorized_client", word, status=401)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"requested_token_type": "urn:oci:token-type:oci-rpst"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"subject_token_type": "JWT"}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"public_key": None}, "invalid_request"),
        ({"public_key": "AAAA"}, "invalid_request"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----"}, "invalid_request"),
        ({"content_type": "application/json"}, "invalid_request"),
    ],
)
def test_a_form_that_is_not_to_the_letter_is_refused(scene: Scene, changed: dict[str, Any], error: str) -> None:
    """Literal values only; the public key is base64 of a DER SubjectPublicKeyInfo."""
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(), scene.key, **changed), error)


def test_session_keys_that_are_short_or_not_rsa_are_refused(scene: Scene) -> None:
    """RSA of 2048 bits or more."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # the point of the test
    scene.refused(exchange(scene.cloud, scene.issuer.assertion(), short), "invalid_request", "2048")
    curve = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    asked = exchange(scene.cloud, scene.issuer.assertion(), scene.key, public_key=base64.b64encode(curve).decode())
    scene.refused(asked, "invalid_request", "RSA")


def test_fault_switches_take_effect_at_once_and_end(scene: Scene) -> None:
    """HTML, errors, garbage, resets, foreign tokens: on by a file, off by another write."""
    try:
        for fault, status in (("html", 200), ("error", 500), ("garbage", 200), ("huge", 200), ("no-token", 200)):
            scene.cloud.misbehave(exchange=fault)
            reply = exchange(scene.cloud, scene.issuer.assertion(), scene.key)
            assert reply.status == status, fault
            assert b'"token": "ey' not in reply.body, fault
        scene.cloud.misbehave(exchange="reset")
        with pytest.raises(OSError, match=r"(?i)reset|EOF|closed"):
            exchange(scene.cloud, scene.issuer.assertion(), scene.key)
        scene.cloud.misbehave(exchange="foreign-principal", token_life_s=60)
        claims = jwt.decode(exchange(scene.cloud, scene.issuer.assertion(), scene.key).json()["token"], options={"verify_signature": False})
        assert (claims["sub"], claims["exp"] - claims["iat"]) == ("somebody-else", 60)
        scene.cloud.misbehave(exchange="foreign-key")
        token = exchange(scene.cloud, scene.issuer.assertion(), scene.key).json()["token"]
        assert Signed(scene.key, f"ST${token}").send(scene.cloud).status == 401
    finally:
        scene.cloud.misbehave()
    assert exchange(scene.cloud, scene.issuer.assertion(), scene.key).status == 200


def test_a_misspelt_configuration_is_refused(tmp_path: Path, issuer: Issuer) -> None:
    """``Active`` is no ``active``: the cloud does not start on a guess."""
    from tests.e2e.cloud.model import ConfigError, parse_config

    with pytest.raises(ConfigError, match="Active"):
        parse_config(json.dumps(issuer.cloud_config(trusts=[{**issuer.trust(), "Active": True}])))
    with pytest.raises(ConfigError, match="https"):
        parse_config(json.dumps(issuer.cloud_config(trusts=[issuer.trust(publicKeyEndpoint="http://issuer.corp.test/jwks")])))
