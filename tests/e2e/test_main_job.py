"""The main job: what a bound program sends arrives signed as its principal, and nothing about the program changed.  Needs root."""

import base64
import hashlib
import json
import os

import pytest

from tests.e2e.lib import oci_cli
from tests.e2e.lib.hand import head
from tests.e2e.lib.scene import IDENTITY, STORAGE, UNBOUND, USERS, Scene
from tests.e2e.lib.stage import PRINCIPAL, USER_UID

PLACEHOLDER = 'Signature version="1",keyId="{tenancy}/user/00:11",algorithm="rsa-sha256",headers="{names}",signature="bm90IGEgc2lnbmF0dXJl"'
LONG = "date (request-target) host content-length content-type x-content-sha256"


def placeholder(names: str) -> tuple[str, str]:
    """A client's own Authorization over these headers, worth nothing."""
    return "authorization", PLACEHOLDER.format(tenancy=oci_cli.TENANCY, names=names)


def hashed(body: bytes) -> tuple[str, str]:
    """x-content-sha256 of a body."""
    return "x-content-sha256", base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_a_get_without_any_signature_is_signed(scene: Scene) -> None:
    """The program sends no Authorization at all; the cloud sees its principal."""
    with scene.watch() as seen, scene.hand() as hand:
        answer = hand.request(IDENTITY, "GET", USERS)
        assert answer.status == 200
        assert answer.json()
        (record,) = seen.valid()
        assert (record.principal, record.key_id_kind, record.path) == ("svc-main", "upst", USERS)


def test_a_post_is_signed_with_its_body(scene: Scene) -> None:
    """Without a signature of the client the body is buffered and hashed, with one it streams; both verify over there."""
    with scene.watch() as seen, scene.hand() as hand:
        for number, more in enumerate(((), (placeholder(LONG), ("date", "Thu, 01 Jan 1970 00:00:00 GMT")))):
            name = f"post-{number}-{os.getpid()}"
            body = json.dumps({"compartmentId": "ocid1.x", "name": name, "description": "d"}).encode()
            headers = [("content-type", "application/json"), *more, *([hashed(body)] if more else [])]
            answer = hand.request(IDENTITY, "POST", "/20160918/compartments", headers=headers, body=body)
            assert answer.status == 200
            assert answer.json()["name"] == name
        assert [(record.method, record.principal) for record in seen.valid()] == [("POST", "svc-main")] * 2


def test_a_chunked_body_without_a_length_is_signed(scene: Scene) -> None:
    """Its length and hash are found by buffering; the cloud sees an ordinary body."""
    body = json.dumps({"compartmentId": "ocid1.x", "name": f"chunked-{os.getpid()}", "description": "d"}).encode()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with scene.watch() as seen, scene.hand() as hand:
        headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
        number = hand.open(IDENTITY)
        answer = hand.asks(number, head(IDENTITY, "POST", "/20160918/compartments", headers) + chunks, "POST")
        assert answer.status == 200
        assert [record.body_bytes for record in seen.valid()] == [len(body)]


def test_many_requests_on_one_connection_are_each_signed(scene: Scene) -> None:
    """Keep-alive, then three pipelined in one segment: one answer for each, in order, each signed anew."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        for _ in range(20):
            assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        regions, users = head(IDENTITY, "GET", "/20160918/regions"), head(IDENTITY, "GET", USERS)
        hand.send(number, regions + users + regions)
        answers = [hand.answer(number).json() for _ in range(3)]
        assert ["key" in answer[0] for answer in answers] == [True, False, True]
        assert len(seen.valid()) == 23
        assert {record.principal for record in seen.valid()} == {"svc-main"}


def test_two_identities_get_two_principals(scene: Scene) -> None:
    """Same user, same python3, same moment; their scripts tell them apart, and no upstream connection is shared (H6)."""
    with scene.watch() as seen, scene.hand("main") as main, scene.hand("other") as other:
        for _ in range(3):
            assert main.request(IDENTITY, "GET", USERS).status == 200
            assert other.request("identity.test-1.cloud.test", "GET", USERS).status == 200
        by_host = {(record.host, record.principal) for record in seen.valid()}
        assert by_host == {(IDENTITY, "svc-main"), ("identity.test-1.cloud.test", "svc-other")}
        ports = {principal: {r.client_port for r in seen.valid() if r.principal == principal} for principal in ("svc-main", "svc-other")}
        assert not ports["svc-main"] & ports["svc-other"]


def test_an_object_goes_up_and_comes_back(scene: Scene) -> None:
    """1 MB with Expect: 100-continue, streamed under the client's announced hash."""
    body = os.urandom(1 << 20)
    target = f"/n/{oci_cli.NAMESPACE}/b/demo/o/hand"
    with scene.watch() as seen, scene.hand() as hand:
        put = [placeholder(LONG), ("date", "x"), hashed(body), ("content-type", "application/octet-stream"), ("expect", "100-continue")]
        assert hand.request(STORAGE, "PUT", target, headers=put, body=body).status == 200
        assert hand.request(STORAGE, "GET", target).body == body
        up = next(record for record in seen.valid() if record.method == "PUT")
        assert up.body_bytes == len(body)


def test_the_real_cli_does_its_work(scene: Scene) -> None:
    """oci-cli with placeholders only: list, create, put, get back byte for byte; each verified as its own principal."""
    profile = scene.stage.profile()
    source, back = scene.stage.home / "small", scene.stage.home / "small.back"
    source.write_bytes(os.urandom(300_000))
    os.chown(source, USER_UID, USER_UID)
    with scene.watch() as seen:
        for words in (oci_cli.USER_LIST, oci_cli.object_put(source, "small"), oci_cli.object_get(back, "small")):
            done = scene.stage.client([*profile.argv, *words], env=profile.environment)
            assert done.returncode == 0, done.stderr
        assert back.read_bytes() == source.read_bytes()
        assert {record.principal for record in seen.valid()} == {PRINCIPAL}
        assert {record.method for record in seen.valid()} >= {"GET", "PUT"}


def test_the_program_believes_to_be_connected_where_it_connected(scene: Scene) -> None:
    """getpeername() shows the service, and the certificate names exactly the host; an unbound name shows the cloud's own."""
    with scene.hand() as hand:
        number = hand.connect()
        bound = hand.tls(number, IDENTITY)
        assert hand.do("peer", number=number) == [scene.stage.subnet.there4, 443]
        assert bound["names"] == [IDENTITY]
        assert "credwire" in bound["issuer"].lower()
        other = hand.tls(hand.connect(), UNBOUND)
        assert "test cloud" in other["issuer"]


@pytest.mark.parametrize("address", ["there4", "there6"])
def test_both_address_families_are_signed(scene: Scene, address: str) -> None:
    """A native IPv6 connection is no way around (R1)."""
    with scene.watch() as seen, scene.hand() as hand:
        assert hand.request(IDENTITY, "GET", USERS, address=getattr(scene.stage.subnet, address)).status == 200
        assert len(seen.valid()) == 1
