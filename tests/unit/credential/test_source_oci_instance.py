"""The instance principal as bytes: what is asked, judged by the stand-in's auth service, and what each strange answer becomes."""

import base64
import datetime
import json
import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.binding.model import OciSource, Source
from control.credential.source import oci, oci_instance
from control.credential.source.model import Answered, Ask
from control.credential.source.oci_instance import Held
from control.errors import FarSideError
from control.reason import Reason
from control.secret import Secret
from tests.e2e.cloud.instance import FederationRefused, read_federation
from tests.e2e.cloud.metadata_io import INSTANCE, REGION, TENANCY, InstanceAuthority, pem
from tests.e2e.cloud.request_signature import Head, Keyring, Verdict, judge
from tests.e2e.cloud.upst import mint_upst

AUTHORITY = InstanceAuthority()
LEAF, LEAF_KEY = AUTHORITY.leaf()
SESSION, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
NOW = time.time()
METADATA = "http://169.254.169.254/opc/v2"


def shown(**changed: bytes | int) -> list[Answered]:
    """The four answers; a number is a status, bytes a body."""
    good: dict[str, bytes | int] = {
        "region": json.dumps(REGION).encode(), "leaf": pem(LEAF), "key": pem(LEAF_KEY), "chain": pem(AUTHORITY.intermediate), **changed,
    }  # fmt: skip
    return [Answered(what, "", "", b"") if isinstance(what, int) else Answered(200, "text/plain", "", what) for what in good.values()]


def on_the_wire(ask: Ask) -> Head:
    """What the far side sees: https_io adds authorization and length."""
    more = (("authorization", ask.authorization.reveal().decode()), ("content-length", str(len(ask.body))))
    return Head("POST", ask.target, (*ask.headers, *more))


def test_the_looks_are_those_of_imds_v2() -> None:
    """Four documents, the header that v2 wants, the port in the host when it is not 80, brackets for IPv6."""
    looks = oci_instance.looks(METADATA)
    assert [look.target for look in looks] == [
        "/opc/v2/instance/regionInfo", "/opc/v2/identity/cert.pem", "/opc/v2/identity/key.pem", "/opc/v2/identity/intermediate.pem",
    ]  # fmt: skip
    assert {(look.host, look.port) for look in looks} == {("169.254.169.254", 80)}
    assert all(("authorization", "Bearer Oracle") in look.headers for look in looks)
    far = oci_instance.looks("http://[fd00:c1::a9fe:a9fe]:8080/opc/v2")[0]
    assert (far.host, far.port, dict(far.headers)["host"]) == ("fd00:c1::a9fe:a9fe", 8080, "[fd00:c1::a9fe:a9fe]:8080")


def test_the_federation_request_is_one_that_an_auth_service_takes() -> None:
    """Chain, purpose, key id, covered headers, freshness, body hash: judged by the stand-in, which also takes the SDK's own."""
    instance = oci_instance.read_instance(shown(), NOW)
    assert (instance.auth_host, instance.tenancy) == ("auth.test-1.cloud.test", TENANCY)
    ask = oci_instance.ask_token(instance, SESSION, "", NOW)
    assert (ask.host, ask.port, ask.target) == ("auth.test-1.cloud.test", 443, "/v1/x509")
    found = read_federation(on_the_wire(ask), ask.body.reveal(), AUTHORITY.roots(), NOW)
    assert (found.instance, found.tenancy) == (INSTANCE, TENANCY)
    assert found.public_key.public_numbers() == SESSION.public_key().public_numbers()
    assert 'headers="date (request-target) content-length content-type x-content-sha256"' in ask.authorization.reveal().decode()


def test_the_auth_service_of_the_tests_refuses_what_is_not_an_instances() -> None:
    """Another authority, another purpose, an old leaf, a changed body, another target, another time: each alone."""
    now = time.time()  # the old leaf below ended half a minute ago, whenever this runs
    instance = oci_instance.read_instance(shown(), now)
    ask = oci_instance.ask_token(instance, SESSION, "", now)
    head, body, roots = on_the_wire(ask), ask.body.reveal(), AUTHORITY.roots()
    server, server_key = AUTHORITY.leaf(usage=ExtendedKeyUsageOID.SERVER_AUTH)
    old, old_key = AUTHORITY.leaf(age=datetime.timedelta(hours=2, seconds=30))
    other = oci_instance.ask_token(oci_instance.read_instance(shown(leaf=pem(server), key=pem(server_key)), now), SESSION, "", now)
    late = oci_instance.ask_token(oci_instance.read_instance(shown(leaf=pem(old), key=pem(old_key)), now - 60), SESSION, "", now)
    purpose = json.dumps({**json.loads(body), "purpose": "SERVICE_PRINCIPAL"}).encode()
    stranger = replace(instance, key=OTHER)
    forged = oci_instance.ask_token(stranger, SESSION, "", now)
    for wrong_head, wrong_body, wrong_roots, at, says in (
        (head, body, InstanceAuthority().roots(), now, "does not verify"),
        (on_the_wire(other), other.body.reveal(), roots, now, "does not verify"),
        (on_the_wire(late), late.body.reveal(), roots, now, "does not verify"),
        (head, purpose, roots, now, "purpose"),
        (head, body.replace(b"publicKey", b"publicKez"), roots, now, "cannot be read"),
        (replace(head, target="/v1/x509?"), body, roots, now, "signature does not verify"),
        (on_the_wire(forged), body, roots, now, "signature does not verify"),
        (head, body, roots, now + 400, "s off"),
        (head, body + b" ", roots, now, "hash"),
    ):
        with pytest.raises(FederationRefused, match=says):
            read_federation(wrong_head, wrong_body, wrong_roots, at)


def _short() -> bytes:
    return pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505  # the point of the test


def _curve() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _region(**changed: Any) -> bytes:
    return json.dumps({**REGION, **changed}).encode()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"region": 404}, "regionInfo is answered with 404; instancePrincipal works on OCI instances only"),
        ({"key": 401}, "key.pem is answered with 401"),
        ({"leaf": 302}, "cert.pem is answered with 302"),
        ({"region": b"test-1"}, "regionInfo cannot be read"),
        ({"region": b"[" * 60_000}, "regionInfo cannot be read"),
        ({"region": b"{}"}, "regionInfo cannot be read"),
        ({"region": _region(realmDomainComponent="evil.test/x?")}, "no region and domain"),
        ({"region": _region(realmDomainComponent="evil.test:8443")}, "no region and domain"),
        ({"region": _region(realmDomainComponent="cloud.test\r\nx: y")}, "no region and domain"),
        ({"region": _region(realmDomainComponent="cloud")}, "no region and domain"),
        ({"region": _region(regionIdentifier="a@b")}, "no region and domain"),
        ({"region": _region(regionIdentifier="10", realmDomainComponent="0.1")}, "no region and domain"),
        ({"region": _region(regionIdentifier="x" * 64)}, "cannot be read"),
        ({"leaf": b"<html>"}, "cert.pem is no certificate"),
        ({"leaf": b""}, "cert.pem is no certificate"),
        ({"leaf": pem(LEAF) + pem(AUTHORITY.root)}, "holds 2 certificates"),
        ({"leaf": pem(AUTHORITY.leaf(age=datetime.timedelta(hours=3))[0])}, "not valid at this time"),
        ({"key": b"<html>"}, "no private key"),
        ({"key": _curve()}, "not RSA"),
        ({"key": _short()}, "not RSA of 2048"),
        ({"key": pem(OTHER)}, "not the key of identity/cert.pem"),
        ({"chain": b"x"}, "intermediate.pem is no certificate"),
        ({"chain": pem(AUTHORITY.intermediate) * 6}, "holds 6 certificates"),
    ],
)
def test_a_strange_metadata_service_becomes_a_reason(changed: dict[str, bytes | int], says: str) -> None:
    """Typed, naming the document, quoting nothing of it; the region's domain can only be host labels, never a port, path or line."""
    with pytest.raises(FarSideError) as raised:
        oci_instance.read_instance(shown(**changed), NOW)
    assert raised.value.reason is Reason.EXCHANGE_MALFORMED
    assert says in raised.value.message
    assert "PRIVATE KEY" not in raised.value.message


def test_a_leaf_without_a_tenancy_or_with_an_odd_one_is_refused() -> None:
    """The tenancy goes into a key id in quotes: nothing but letters, digits, dots, - and _."""
    for tenancy in ('x",keyId="y', "", "a b"):
        leaf, key = AUTHORITY.leaf(tenancy=tenancy)
        with pytest.raises(FarSideError, match="names no tenancy"):
            oci_instance.read_instance(shown(leaf=pem(leaf), key=pem(key)), NOW)


DOMAIN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def token(key: rsa.RSAPrivateKey = SESSION, life_s: int = 1200) -> str:
    return mint_upst(
        DOMAIN_KEY, kid="k", subject=INSTANCE, tenancy=TENANCY, public_key=key.public_key(), now=NOW, life_s=life_s, token_id="t",
        kind=("instance", "x509"),
    )  # fmt: skip


def held_from(status: int, body: bytes, told: tuple[Secret, ...] = ()) -> Held:
    return oci_instance.read_held(Answered(status, "application/json", "", body), SESSION, NOW, told)


def test_the_token_is_held_until_shortly_before_its_end() -> None:
    """One minute early, as the SDK does."""
    held = held_from(200, json.dumps({"token": token()}).encode())
    assert held.fresh(NOW)
    assert held.fresh(NOW + 1138)
    assert not held.fresh(NOW + 1141)
    assert repr(held.token).startswith("<secret")


@pytest.mark.parametrize(
    ("status", "body", "reason", "says"),
    [
        (200, b"<html>", Reason.EXCHANGE_MALFORMED, "field token cannot be read"),
        (200, b"[" * 60_000, Reason.EXCHANGE_MALFORMED, "field token cannot be read"),
        (200, b'{"token": ""}', Reason.EXCHANGE_MALFORMED, "field token cannot be read"),
        (200, json.dumps({"token": 'a.b.c",headers="date'}).encode(), Reason.EXCHANGE_MALFORMED, "not a JWT"),
        (200, json.dumps({"token": token(OTHER)}).encode(), Reason.EXCHANGE_MALFORMED, "not the key that was sent"),
        (200, json.dumps({"token": token(life_s=5)}).encode(), Reason.EXCHANGE_MALFORMED, "exp"),
        (302, b"", Reason.EXCHANGE_MALFORMED, "302 without a code"),
        (401, b'{"code": "NotAuthenticated", "message": "who?"}', Reason.EXCHANGE_REFUSED, "NotAuthenticated: who?"),
        (401, b'{"code": "a b\\n", "message": "\\u001b[2J"}', Reason.EXCHANGE_REFUSED, "(unreadable): ?[2J"),
        (401, b'{"code": "x", "message": "told-secret-1234"}', Reason.EXCHANGE_REFUSED, "repeats what it was told"),
    ],
)
def test_a_strange_auth_service_becomes_a_reason(status: int, body: bytes, reason: Reason, says: str) -> None:
    """A token for another key is no token; its words are quoted after a look only."""
    with pytest.raises(FarSideError) as raised:
        held_from(status, body, (Secret("told-secret-1234"),))
    assert raised.value.reason is reason
    assert says in raised.value.message
    assert "told-secret" not in raised.value.message


def test_the_exchange_is_signed_as_the_instance() -> None:
    """Six headers, the session key, the token as key id; the stand-in's judge (httpsig) takes it, and nothing changed in it."""
    of = OciSource("https://idcs-1.identity.cloud.test", client_auth="instancePrincipal")
    source = Source("s", of, "prod", 3600, "aud", "svc")
    der = OTHER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    bare = oci.build(source, Secret(""), Secret("a.b.c"), der)
    assert len(bare.authorization) == 0
    held = held_from(200, json.dumps({"token": token()}).encode())
    ask = oci_instance.signed(bare, held, NOW)
    keyring = Keyring(DOMAIN_KEY.public_key(), {})
    judgement = judge(on_the_wire(ask), keyring, NOW)
    assert (judgement.verdict, judgement.principal) == (Verdict.VALID, INSTANCE), judgement
    assert base64.b64encode(judgement.body_sha256 or b"").decode() in dict(ask.headers)["x-content-sha256"]
    moved = replace(on_the_wire(ask), target="/oauth2/v1/token?x")
    assert judge(moved, keyring, NOW).verdict is Verdict.INVALID
    assert ask.body == bare.body


def test_an_rpst_is_asked_for_by_type() -> None:
    """``oci-rpst`` with ``res_type``; a UPST's form has no such field."""
    of = OciSource("https://idcs-1.identity.cloud.test", "c", "/x", asks_for="rpst", resource_type="credwireworkload")
    source = Source("s", of, "prod", 3600, "aud", "svc")
    form = oci.build(source, Secret("s"), Secret("a.b.c"), b"der").body.reveal()
    assert b"requested_token_type=urn%3Aoci%3Atoken-type%3Aoci-rpst" in form
    assert b"res_type=credwireworkload" in form
    assert b"res_type" not in oci.build(replace_of(source, "upst"), Secret("s"), Secret("a.b.c"), b"der").body.reveal()


def replace_of(source: Source, asks_for: Any) -> Source:
    return msgspec.structs.replace(source, of=msgspec.structs.replace(source.of, asks_for=asks_for))
