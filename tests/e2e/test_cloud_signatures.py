"""The test cloud's API takes the request signatures that Oracle's takes and no others.  Needs loopback only."""

import base64
import hashlib
import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.cloud.record_io import Record
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.talk import IDENTITY, LONG, SHORT, STORAGE, Issuer, Reply, Signed, exchange, send

COMPARTMENT = b'{"compartmentId": "ocid1.tenancy.oc99..x", "name": "%s", "description": "test"}'
API_KEY_ID = "ocid1.tenancy.oc99..x/ocid1.user.oc99..known/aa:bb"


@dataclass
class Scene:
    """A cloud and a caller with a live token."""

    issuer: Issuer
    cloud: RunningCloud
    key: rsa.RSAPrivateKey
    key_id: str

    def get(self) -> Signed:
        return Signed(self.key, self.key_id)

    def post(self, name: bytes = b"c") -> Signed:
        return Signed(self.key, self.key_id, method="POST", target="/20160918/compartments", body=COMPARTMENT % name)

    def put(self, name: str = "o") -> Signed:
        return Signed(self.key, self.key_id, host=STORAGE, method="PUT", target=f"/n/credwiretest/b/b/o/{name}", body=b"bytes", names=SHORT)

    def last(self) -> Record:
        return self.cloud.records()[-1]

    def refused(self, reply: Reply, *words: str) -> None:
        """Say that ``reply`` is Oracle's 401 and that the record says why."""
        assert (reply.status, reply.json()["code"]) == (401, "NotAuthenticated"), reply.body
        assert "opc-request-id" in reply.headers
        assert self.last().verdict == "invalid"
        assert all(word in self.last().why for word in words), self.last().why


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with Issuer(tmp_path_factory.mktemp("issuer")) as issuer:
        config = issuer.cloud_config(apiKeys=[{"keyId": API_KEY_ID, "publicKey": public}])
        with RunningCloud(tmp_path_factory.mktemp("cloud"), config) as cloud:
            token = exchange(cloud, issuer.assertion(), key).json()["token"]
            yield Scene(issuer, cloud, key, f"ST${token}")


def test_good_signatures_of_each_kind_are_taken(scene: Scene) -> None:
    """GET, POST, object PUT with three headers, x-date in place of date, an API key that is known."""
    assert scene.get().send(scene.cloud).status == 200
    assert (scene.last().verdict, scene.last().principal, scene.last().key_id_kind) == ("valid", "svc-oci-cli", "upst")
    assert scene.post().send(scene.cloud).status == 200
    assert scene.put().send(scene.cloud).status == 200
    dated = scene.get()
    dated.fields, dated.names = {"x-date": formatdate(usegmt=True)}, ("x-date", "(request-target)", "host")
    assert dated.send(scene.cloud).status == 200
    known = Signed(scene.key, API_KEY_ID).send(scene.cloud)
    assert (known.status, scene.last().key_id_kind, scene.last().principal) == (200, "api-key", "ocid1.user.oc99..known")


def test_no_authorization_is_told_from_a_bad_one(scene: Scene) -> None:
    """Both are 401; the record says unsigned or invalid, and an unknown API key is invalid."""
    assert send(scene.cloud, IDENTITY, "GET", "/20160918/users").status == 401
    assert scene.last().verdict == "unsigned"
    scene.refused(send(scene.cloud, IDENTITY, "GET", "/20160918/users", [("authorization", "Bearer x")]), "scheme")
    scene.refused(Signed(scene.key, "t/u/ff:ff").send(scene.cloud), "unknown key id")
    assert scene.last().principal == ""


@pytest.mark.parametrize("name", LONG)
def test_each_header_that_must_be_covered_is_missed_when_it_is_not(scene: Scene, name: str) -> None:
    """POST wants six; httpsig alone would take any of these."""
    short = scene.post()
    short.names = tuple(entry for entry in LONG if entry != name)
    scene.refused(short.send(scene.cloud), "not covered", name)


@pytest.mark.parametrize("name", SHORT)
def test_get_and_object_put_need_three(scene: Scene, name: str) -> None:
    """Never fewer than date, target and host."""
    for signed in (scene.get(), scene.put()):
        signed.names = tuple(entry for entry in SHORT if entry != name)
        scene.refused(signed.send(scene.cloud), "not covered", name)


def test_only_object_bodies_may_go_unsigned(scene: Scene) -> None:
    """Three headers are enough for PUT of an object, not for POST, not for PUT elsewhere, not for a look-alike path of another host."""
    elsewhere = [
        (IDENTITY, "POST", "/20160918/compartments"),
        (IDENTITY, "PUT", "/20160918/users/x"),
        (STORAGE, "POST", "/n/credwiretest/b/b/u"),
        (IDENTITY, "PUT", "/n/a/b/c/o/d"),
    ]
    for host, method, target in elsewhere:
        signed = Signed(scene.key, scene.key_id, host=host, method=method, target=target, body=b"{}", names=SHORT)
        scene.refused(signed.send(scene.cloud), "not covered")


def _stale(signed: Signed) -> None:
    signed.fields = {"date": formatdate(time.time() - 301, usegmt=True)}


def _early(signed: Signed) -> None:
    signed.fields = {"date": formatdate(time.time() + 301, usegmt=True)}


def _undated(signed: Signed) -> None:
    signed.fields = {"date": "yesterday"}


def _other_key(signed: Signed) -> None:
    signed.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _weak(signed: Signed) -> None:
    signed.algorithm = "rsa-sha1"


def _hmac(signed: Signed) -> None:
    signed.algorithm = "hmac-sha256"


def _cut_token(signed: Signed) -> None:
    signed.key_id = signed.key_id[:-4]


def _repeated(signed: Signed) -> None:
    signed.names = (*SHORT, "host")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_stale, "s off"),
        (_early, "s off"),
        (_undated, "cannot be read"),
        (_other_key, "does not verify"),
        (_weak, "algorithm"),
        (_hmac, "algorithm"),
        (_cut_token, "token"),
        (_repeated, "repeats"),
    ],
)
def test_a_spoilt_signature_is_refused(scene: Scene, spoil: Callable[[Signed], None], why: str) -> None:
    """Freshness of five minutes, the key of the token, the one algorithm, a whole token, no header named twice."""
    signed = scene.get()
    spoil(signed)
    scene.refused(signed.send(scene.cloud), why)


def test_just_inside_the_tolerance_is_taken(scene: Scene) -> None:
    """Four and a half minutes either way."""
    for shift in (-270, 270):
        signed = scene.get()
        signed.fields = {"date": formatdate(time.time() + shift, usegmt=True)}
        assert signed.send(scene.cloud).status == 200


def test_what_was_signed_is_what_counts(scene: Scene) -> None:
    """Target, method, host, date or any covered header changed after signing: refused, though a genuine token is seen and recorded."""
    signed = scene.get()
    headers = signed.headers()
    later = formatdate(time.time() + 5, usegmt=True)
    tampered = [
        send(scene.cloud, IDENTITY, "GET", "/20160918/users?limit=1", headers),
        send(scene.cloud, IDENTITY, "GET", "/20160918/%75sers", headers),
        send(scene.cloud, IDENTITY, "DELETE", "/20160918/users", headers),
        send(scene.cloud, IDENTITY, "GET", "/20160918/users", [(name, later if name == "date" else value) for name, value in headers]),
        send(scene.cloud, "iaas.test-1.cloud.test", "GET", "/20160918/users", [pair for pair in headers if pair[0] != "host"]),
    ]
    for reply in tampered:
        assert reply.status == 401
    assert [record.why for record in scene.cloud.records()[-5:]] == ["the signature does not verify"] * 5
    assert scene.last().principal == "svc-oci-cli"
    assert send(scene.cloud, IDENTITY, "GET", "/20160918/users", headers).status == 200


def test_repeated_headers_are_refused(scene: Scene) -> None:
    """Two dates, two authorizations: which one was signed is not guessed."""
    headers = scene.get().headers()
    for name in ("date", "authorization"):
        again = next(pair for pair in headers if pair[0] == name)
        assert send(scene.cloud, IDENTITY, "GET", "/20160918/users", [*headers, again]).status in (400, 401)
        assert not scene.cloud.records() or scene.last().verdict == "invalid"


def test_a_body_that_is_not_the_announced_one_changes_nothing(scene: Scene) -> None:
    """The signature covers the hash, the hash does not cover the body: 401, nothing created, recorded as invalid."""
    signed = scene.post(b"first-name")
    headers = signed.headers()
    scene.refused(send(scene.cloud, IDENTITY, "POST", signed.target, headers, COMPARTMENT % b"other-name"), "hash")
    listed = Signed(scene.key, scene.key_id, target="/20160918/compartments").send(scene.cloud)
    assert "other-name" not in listed.body.decode()
    put = scene.put("wrong")
    put.fields = {"x-content-sha256": base64.b64encode(hashlib.sha256(b"else").digest()).decode()}
    scene.refused(put.send(scene.cloud), "hash")
    assert Signed(scene.key, scene.key_id, host=STORAGE, target="/n/credwiretest/b/b/o/wrong").send(scene.cloud).status == 404


def test_an_empty_body_is_hashed_too(scene: Scene) -> None:
    """POST with content-length 0 carries the hash of nothing; the service then misses its parameters."""
    signed = scene.post()
    signed.body = b""
    reply = signed.send(scene.cloud)
    assert (reply.status, reply.json()["code"], scene.last().verdict) == (400, "InvalidParameter", "valid")


def test_a_token_dies_and_strangers_tokens_are_nothing(scene: Scene) -> None:
    """A UPST of one second is refused when the second is over; another cloud's token is refused at once."""
    scene.cloud.misbehave(token_life_s=1)
    try:
        token = exchange(scene.cloud, scene.issuer.assertion(), scene.key).json()["token"]
    finally:
        scene.cloud.misbehave()
    deadline = time.monotonic() + 10
    while (reply := Signed(scene.key, f"ST${token}").send(scene.cloud)).status == 200:
        assert time.monotonic() < deadline
    scene.refused(reply, "expired")


def test_another_clouds_token_is_refused(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The domain's key differs, everything else is right."""
    with RunningCloud(tmp_path_factory.mktemp("other"), scene.issuer.cloud_config()) as other:
        token = exchange(other, scene.issuer.assertion(), scene.key).json()["token"]
        assert Signed(scene.key, f"ST${token}").send(other).status == 200
    scene.refused(Signed(scene.key, f"ST${token}").send(scene.cloud), "token")


def test_names_are_those_of_the_tls_session(scene: Scene) -> None:
    """Host must be the SNI; a name that is not ours gets no handshake; an open host answers anybody."""
    assert send(scene.cloud, IDENTITY, "GET", "/", sni="iaas.test-1.cloud.test").status == 421
    with pytest.raises(ssl.SSLError):
        send(scene.cloud, "stranger.cloud.test", "GET", "/")
    reply = send(scene.cloud, "open.cloud.test", "GET", "/anything")
    assert (reply.status, scene.last().kind, scene.last().verdict) == (200, "open", "open")


def test_chunked_object_bodies_are_refused(scene: Scene) -> None:
    """Object storage wants a content-length."""
    signed = scene.put()
    headers = [(name, value) for name, value in signed.headers() if name != "content-length"]
    reply = send(scene.cloud, STORAGE, "PUT", signed.target, [*headers, ("transfer-encoding", "chunked")], b"0\r\n\r\n")
    assert (reply.status, reply.json()["code"]) == (411, "MissingContentLength")


def test_api_faults_are_seen_after_the_signature_was_judged(scene: Scene) -> None:
    """A reset, a cut body, garbage: the record still says that the signature was valid."""
    try:
        for fault in ("reset", "garbage", "cut"):
            scene.cloud.misbehave(api=fault)
            with pytest.raises((OSError, http.client.HTTPException)):
                scene.get().send(scene.cloud)
            assert (scene.last().verdict, scene.last().why) == ("valid", f"fault: {fault}")
        scene.cloud.misbehave(api="error")
        assert scene.get().send(scene.cloud).json()["code"] == "InternalError"
    finally:
        scene.cloud.misbehave()
    assert scene.get().send(scene.cloud).status == 200
