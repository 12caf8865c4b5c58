"""
What is wrong, on any side, gets a clean answer with id, reason and hint, an audit line, and every process lives on.  Needs root.

Sides: the listener, TLS, heads and bodies of the client, the issuer, the destination.  After each test the daemon has the same pids.
"""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import HandError, head
from tests.e2e.lib.scene import IDENTITY, STORAGE, UNBOUND, USERS, Scene, refused
from tests.e2e.lib.stage import STRANGER_UID
from tests.e2e.test_main_job import LONG, hashed, placeholder

HELLO = """
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
except ssl.SSLWantReadError:
    pass
result = outgoing.read().decode("latin-1")
"""
"""Leaves the bytes of a whole ClientHello for ``name``."""


@pytest.fixture(autouse=True)
def nobody_died(scene: Scene) -> Iterator[None]:
    """The same processes before and after."""
    before = scene.workers()
    yield
    assert scene.workers() == before


# -- the listener


@pytest.mark.parametrize("who", ["main", "stranger"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_connection_without_a_record_is_closed(scene: Scene, who: str, address: str) -> None:
    """Straight to the listener, bound process or not, valid hello or garbage (R11): closed, and the audit says from where."""
    with scene.watch() as seen, scene.hand(who) as hand:
        for bytes_ in (hand.python(HELLO, name=IDENTITY).encode("latin-1"), b"GET / HTTP/1.1\r\n\r\n", b""):
            number = hand.connect(address, scene.stage.listen_port)
            if bytes_:
                hand.send(number, bytes_)
            ended = hand.do("drain", number=number)
            assert ended["bytes"] <= 7  # nothing, or an alert
        line = seen.audit(event="connection-refused", reason=Reason.NO_RECORD)
        assert "straight to the listener" in line["detail"]
        assert seen.records() == []


# -- TLS


def test_a_malformed_hello_is_refused(scene: Scene) -> None:
    """A handshake record that is no ClientHello."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.connect()
        hand.send(number, b"\x16\x03\x01\x00\x05\xff\x00\x00\x01a")
        assert hand.do("drain", number=number)["bytes"] == 7
        line = seen.audit(event="connection-failed", reason=Reason.HELLO_MALFORMED)
        assert (line["pid"], line["id"][:3]) == (hand.pid, "cw-")
        assert line["hint"]
        assert seen.records() == []


def test_half_a_hello_is_given_up(scene: Scene) -> None:
    """Ten seconds after accept, with a reason; a byte at a time is in time."""
    with scene.watch() as seen, scene.hand() as hand:
        hello = hand.python(HELLO, name=IDENTITY).encode("latin-1")
        number = hand.connect()
        hand.send(number, hello[:100])
        began = time.monotonic()
        ended = hand.do("drain", number=number)
        assert 8 < time.monotonic() - began < 13
        assert ended["bytes"] <= 7
        assert "in time" in seen.audit(event="connection-failed", reason=Reason.HELLO_MALFORMED)["detail"]


@pytest.mark.parametrize(
    ("after", "reason"), [(b"\x17\x03\x03\x00\x02hi", Reason.CLIENT_TLS_FAILED), (b"", Reason.CLIENT_DOES_NOT_TRUST_CA)]
)
def test_half_a_handshake_is_refused(scene: Scene, after: bytes, reason: Reason) -> None:
    """A good hello, then garbage, or nothing but the end."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.connect()
        hand.send(number, hand.python(HELLO, name=IDENTITY).encode("latin-1"))
        assert hand.do("read", number=number, most=65536)
        if after:
            hand.send(number, after)
        else:
            hand.do("half_close", number=number)
        hand.do("drain", number=number)
        line = seen.audit(event="connection-failed", reason=reason)
        assert (line["host"], line["pid"]) == (IDENTITY, hand.pid)
        assert seen.records() == []


def test_a_client_that_does_not_trust_us_is_told_what_to_do(scene: Scene) -> None:
    """The alert is read, the audit names the command; with the bundle it works."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.connect()
        with pytest.raises(HandError) as met:
            hand.do("tls", number=number, name=IDENTITY, trust=[str(scene.cloud.ca)])
        assert met.value.kind == "SSLCertVerificationError"
        line = seen.audit(event="connection-failed", reason=Reason.CLIENT_DOES_NOT_TRUST_CA)
        assert "credwire ca env" in line["hint"]
        assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_what_is_no_tls_is_passed_or_refused_as_egress_says(scene: Scene) -> None:
    """Plain HTTP on 443: with open egress the far side may say what it thinks of it, with bound-only it is refused; never a credential."""
    with scene.watch() as seen:
        with scene.hand("main") as hand:
            number = hand.connect()
            hand.send(number, head(IDENTITY, "GET", USERS))
            hand.do("drain", number=number)
            seen.audit(event="connection-spliced", reason=Reason.NOT_TLS)
        with scene.hand("narrow") as hand:
            number = hand.connect()
            hand.send(number, head(IDENTITY, "GET", USERS))
            assert hand.do("drain", number=number)["bytes"] == 0
            seen.audit(event="connection-failed", reason=Reason.NOT_TLS)
        assert seen.nothing_given()


# -- heads


def _many_lines() -> bytes:
    return head(IDENTITY, "GET", USERS, [(f"x-{n}", "y") for n in range(200)])


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (
            b"GET " + USERS.encode() + b" HTTP/1.1\r\nhost: " + IDENTITY.encode() + b"\r\nx: " + b"a" * (80 << 10),
            431,
            Reason.REQUEST_HEAD_TOO_LARGE,
        ),
        (_many_lines(), 431, Reason.REQUEST_HEAD_TOO_LARGE),
        (head(IDENTITY, "GET", USERS + "?" + "a" * (20 << 10)), 414, Reason.REQUEST_HEAD_TOO_LARGE),
        (b"\x00\x01\x02garbage\r\n\r\n", 400, Reason.REQUEST_MALFORMED),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, Reason.REQUEST_MALFORMED),
        (head(IDENTITY, "TRACE", USERS), 405, Reason.METHOD_FORBIDDEN),
        (head(IDENTITY, "CONNECT", f"{IDENTITY}:443"), 405, Reason.METHOD_FORBIDDEN),
        (head(IDENTITY, "GET", USERS, [("connection", "upgrade"), ("upgrade", "websocket")]), 400, Reason.UPGRADE_FORBIDDEN),
    ],
    ids=["one line", "lines", "target", "garbage", "h2", "trace", "connect", "upgrade"],
)
def test_a_wrong_head_is_answered_and_the_connection_ends(scene: Scene, request_: bytes, status: int, reason: Reason) -> None:
    """Typed, with id and hint; nothing of it reaches the cloud; the next connection works."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        answer = hand.asks(number, request_)
        refused(scene, seen, answer, status, reason)
        assert answer.headers["connection"] == "close"
        assert seen.records() == []
        assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_an_oversized_head_at_the_limit_is_served(scene: Scene) -> None:
    """60 KB of harmless header lines go through to the end of our limits; what the cloud says of it is the cloud's."""
    with scene.hand() as hand:
        answer = hand.request(IDENTITY, "GET", USERS, headers=[(f"x-{n}", "y" * 600) for n in range(100)])
        assert not answer.id


# -- bodies


def test_a_short_body_is_no_request(scene: Scene) -> None:
    """Announced 100, sent 10, then the end: buffered or streamed, the cloud never answers one, and the audit has it."""
    with scene.hand() as hand:
        for more in ([], [placeholder(LONG), ("date", "x"), hashed(b"a" * 100)]):
            with scene.watch() as seen:
                number = hand.open(IDENTITY)
                headers = [("content-type", "application/json"), ("content-length", "100"), *more]
                hand.send(number, head(IDENTITY, "POST", "/20160918/compartments", headers) + b"a" * 10)
                hand.close(number)
                line = seen.audit(reason=Reason.REQUEST_BODY_INCOMPLETE)
                assert (line["event"], line["method"], line["host"]) == ("request-refused", "POST", IDENTITY)
                assert not [record for record in seen.records() if record.status == 200]
        assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_what_follows_a_whole_body_is_judged_as_a_request(scene: Scene) -> None:
    """Ten bytes announced, more sent: the rest is a malformed request, refused by itself."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        body = json.dumps({"compartmentId": "ocid1.x", "name": f"long-{time.time_ns()}", "description": "d"}).encode()
        first = head(IDENTITY, "POST", "/20160918/compartments", [("content-type", "application/json")], body)
        assert hand.asks(number, first + b"and then some\r\n\r\n", "POST").status == 200
        assert hand.answer(number).reason == Reason.REQUEST_MALFORMED
        assert len(seen.valid()) == 1


def test_a_body_that_differs_from_its_announced_hash_never_completes(scene: Scene) -> None:
    """400 with the reason; the cloud has the head at most and keeps nothing; the same with the right hash works."""
    name = f"hash-{time.time_ns()}"
    body, other = (json.dumps({"compartmentId": "ocid1.x", "name": n, "description": "d"}).encode() for n in (name, name[::-1]))
    more = [("content-type", "application/json"), placeholder(LONG), ("date", "x"), hashed(body)]
    with scene.watch() as seen, scene.hand() as hand:
        answer = hand.request(IDENTITY, "POST", "/20160918/compartments", headers=more, body=other)
        assert (answer.status, answer.reason) == (400, Reason.BODY_HASH_MISMATCH)
        seen.audit(id=answer.id, reason=Reason.BODY_HASH_MISMATCH)
        assert not [record for record in seen.records() if record.status == 200]
        assert hand.request(IDENTITY, "POST", "/20160918/compartments", headers=more, body=body).status == 200


def test_a_body_too_large_to_be_buffered_is_refused_at_once(scene: Scene) -> None:
    """2 MB without a hash: 413 with the hint, before any of it was sent; with the client's hash the same streams."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        headers = [("content-type", "application/json"), ("content-length", str(2 << 20))]
        refused(
            scene,
            seen,
            hand.asks(number, head(IDENTITY, "POST", "/20160918/compartments", headers), "POST"),
            413,
            Reason.REQUEST_BODY_TOO_LARGE,
        )


def test_garbage_in_chunks_is_refused(scene: Scene) -> None:
    """A chunk size that is none."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
        answer = hand.asks(number, head(IDENTITY, "POST", "/20160918/compartments", headers) + b"5\r\nhello\r\nxyz\r\n", "POST")
        refused(scene, seen, answer, 400, Reason.REQUEST_MALFORMED)


# -- the issuer


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("html", 503, Reason.EXCHANGE_MALFORMED),
        ("error", 503, Reason.EXCHANGE_MALFORMED),
        ("garbage", 503, Reason.EXCHANGE_MALFORMED),
        ("huge", 503, Reason.EXCHANGE_MALFORMED),
        ("no-token", 503, Reason.EXCHANGE_MALFORMED),
        ("reset", 503, Reason.EXCHANGE_UNREACHABLE),
        ("foreign-key", 503, Reason.EXCHANGE_MALFORMED),
        ("foreign-principal", 403, Reason.PRINCIPAL_MISMATCH),
        ("slow", 503, Reason.EXCHANGE_TIMEOUT),
    ],
)
def test_an_issuer_that_fails_gives_a_typed_refusal(scene: Scene, fault: str, status: int, reason: Reason) -> None:
    """The request is refused with the exchange's reason, status turns red for that source, others work; and it heals."""
    scene.fresh_lease("victim")
    with scene.watch() as seen, scene.hand("victim") as hand:
        with scene.misbehaving(exchange=fault, delay_s=15):
            refused(scene, seen, hand.request(IDENTITY, "GET", USERS), status, reason)
            seen.audit(event="exchange-failed", source="victim-upst", reason=reason)
            told = json.loads(scene.stage.credwire("status", "-o", "json").stdout)
            assert any(line["level"] == "red" and "victim-upst" in line["says"] for line in told["health"]), told["health"]
            with scene.hand("main") as other:
                assert other.request(IDENTITY, "GET", USERS).status == 200
        scene.fresh_lease("victim")
        assert hand.request(IDENTITY, "GET", USERS).status == 200


# -- the destination


@pytest.mark.parametrize(("fault", "reason"), [("reset", Reason.UPSTREAM_RESET), ("garbage", Reason.UPSTREAM_MALFORMED)])
def test_a_destination_that_breaks_before_its_answer_is_reported(scene: Scene, fault: str, reason: Reason) -> None:
    """502 with the reason; a POST is sent once and never again by itself."""
    with scene.hand() as hand:
        for method, body in (("GET", b""), ("POST", b"{}")):
            with scene.watch() as seen, scene.misbehaving(api=fault):
                answer = hand.request(IDENTITY, method, USERS, headers=[("content-type", "application/json")], body=body)
                assert (answer.status, answer.reason) == (502, reason)
                assert answer.id in answer.json()["message"]
                assert seen.audit(id=answer.id)["reason"] == reason
                assert len(seen.valid()) == 1
            assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_an_answer_that_is_cut_is_never_completed_by_us(scene: Scene) -> None:
    """Half an answer, then the end: the client sees a reset, not a whole answer; the audit says who broke it."""
    with scene.watch() as seen, scene.hand() as hand:
        with scene.misbehaving(api="cut"), pytest.raises(HandError) as met:
            hand.request(IDENTITY, "GET", USERS)
        assert met.value.kind in ("IncompleteRead", "ConnectionResetError", "SSLEOFError")
        seen.audit(event="request-refused", reason=Reason.UPSTREAM_RESET)
        assert hand.request(IDENTITY, "GET", USERS).status == 200


def test_an_error_of_the_destination_is_its_own(scene: Scene) -> None:
    """HTML with 502, JSON with 500: passed on as they are, without an id of ours."""
    with scene.hand() as hand:
        for fault, status in (("html", 502), ("error", 500)):
            with scene.misbehaving(api=fault):
                answer = hand.request(IDENTITY, "GET", USERS)
                assert (answer.status, answer.id) == (status, "")


def test_a_dead_recorded_address_is_tried_at_the_names_others(scene: Scene) -> None:
    """
    A redirected connect() succeeds at once, so somebody must try further: a closed port at once, a silent host within its limit.

    An unbound name has no other address: its client is reset, as the kernel would have done.
    """
    number = scene.stage.subnet.number
    with scene.hand() as hand:
        for dead, within_s in ((scene.stage.subnet.here4, 2.0), (f"10.77.{number}.99", 9.0)):
            with scene.watch() as seen:
                began = time.monotonic()
                assert hand.request(IDENTITY, "GET", USERS, address=dead).status == 200
                assert time.monotonic() - began < within_s
                assert len(seen.valid()) == 1
                began = time.monotonic()
                with pytest.raises(HandError) as met:
                    hand.open(UNBOUND, address=dead)
                assert met.value.kind == "ConnectionResetError"
                assert time.monotonic() - began < 12
                line = seen.audit(event="connection-failed", host=UNBOUND)
                assert line["reason"] in (Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT)


def test_a_name_with_no_living_address_is_refused(scene: Scene) -> None:
    """All addresses dead: 502 with the reason, within the limits, never a hang."""
    with scene.watch() as seen, scene.hand() as hand:
        scene.stage.hosts.write_text(f"127.0.0.1 localhost\n{scene.stage.subnet.here4} {STORAGE}\n")
        try:
            began = time.monotonic()
            answer = hand.request(STORAGE, "GET", "/n/", address=scene.stage.subnet.here4)
            assert time.monotonic() - began < 15
        finally:
            scene.stage.hosts = scene.cloud.write_hosts(scene.stage.hosts)
        refused(scene, seen, answer, 502, Reason.UPSTREAM_UNREACHABLE)


def test_a_stranger_who_holds_many_connections_disturbs_nobody(scene: Scene) -> None:
    """200 connections of nobody, straight to the listener and silent: closed, and the main job goes on."""
    held: list[socket.socket] = []
    with scene.hand() as hand, scene.hand("stranger", uid=STRANGER_UID):
        try:
            for _ in range(200):
                held.append(socket.create_connection(("127.0.0.1", scene.stage.listen_port), 5))
            assert hand.request(IDENTITY, "GET", USERS).status == 200
            for sock in held:
                sock.settimeout(10)
                assert sock.recv(1) == b""
        finally:
            for sock in held:
                sock.close()
