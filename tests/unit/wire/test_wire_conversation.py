"""
The worker, played from outside: what a client, a destination, agent and keys see.

Every conversation is over loopback with real TLS and real channels; nothing in the worker is replaced but the kernel's answer.
"""

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from control.daemon import message as m
from control.reason import Reason
from tests.unit.wire.world import BINDING, FAR, FAST, HOST, Peer, World, answer, get, hello_of, post, server_context, world


def refused(message: object, status: int, reason: Reason) -> None:
    """An answer of ours, in the shape that the real client prints."""
    assert message.status == status, message
    assert message.one("x-credwire-reason") == reason
    told = json.loads(message.body)
    assert told["code"] == reason
    assert message.one("x-credwire-id") in told["message"]
    assert message.one("opc-request-id") == message.one("x-credwire-id")


# ---- a request goes through ---------------------------------------------------------------------------------------------------------


def test_a_get_is_signed_and_its_answer_comes_back(here: World) -> None:
    """The placeholder goes, the signature comes, the answer streams back, the agent hears of it."""
    here.echo()
    client = here.tls().send(
        get("/things?limit=1", 'Authorization: Signature keyId="placeholder"', "Connection: keep-alive", port=here.port)
    )
    got = client.message()
    assert got.status == 200
    assert got.one("x-first") == "GET /things?limit=1 HTTP/1.1"
    assert got.one("x-got-authorization") == "Signed 1"
    assert not got.all("x-got-connection")
    asked = here.wanted[0]
    assert (asked.binding, asked.asked.host, asked.asked.method, asked.asked.path) == (BINDING, HOST, "GET", "/things")
    assert ("Authorization", 'Signature keyId="placeholder"') in asked.headers
    note = here.noted("request-answered")
    assert (note.status, note.method, note.path, note.binding, note.grant) == (200, "GET", "/things", BINDING, here.grants[0])


def test_requests_on_one_connection_are_decided_and_signed_each(here: World) -> None:
    """Keep-alive and pipelining: three requests, three signatures, one connection upstream."""
    far = here.echo()
    client = here.tls().send(get("/1", port=here.port) + get("/2", port=here.port) + post(b"three", path="/3", port=here.port))
    answers = [client.message() for _ in range(3)]
    assert [a.one("x-got-authorization") for a in answers] == ["Signed 1", "Signed 2", "Signed 3"]
    assert answers[2].body == b"three"
    assert far.connections == 1
    assert [w.asked.path for w in here.wanted] == ["/1", "/2", "/3"]


def test_requests_client_that_we_did_not_write(here: World) -> None:
    """The library that most Python programs use."""
    import requests
    from requests.adapters import HTTPAdapter

    here.echo()
    ca = here.directory / "ca.pem"
    ca.write_text(here.client_ca.pem)

    class Named(HTTPAdapter):
        def init_poolmanager(self, *args: object, **kwargs: object) -> None:
            super().init_poolmanager(*args, server_hostname=HOST, assert_hostname=HOST, **kwargs)

    with requests.Session() as session:
        session.mount("https://", Named())
        session.trust_env = False
        for size in (0, 10, 300_000):
            body = b"x" * size
            got = session.post(
                f"https://127.0.0.1:{here.port}/p", data=body, headers={"Host": f"{HOST}:{here.port}"}, verify=str(ca), timeout=10
            )
            assert got.status_code == 200
            assert got.content == body


def test_a_large_body_with_expect_waits_for_the_destination(here: World) -> None:
    """50 MB: the 100 is the destination's own, the hash is verified on the way."""
    size = 50 << 20
    seen = hashlib.sha256()
    said_100 = threading.Event()

    def script(peer: Peer) -> None:
        head = peer.head()
        assert head.one("expect") == "100-continue"
        said_100.set()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(head.one("content-length"))
        while left:
            data = peer.exactly(min(left, 1 << 16))
            seen.update(data)
            left -= len(data)
        peer.send(answer(b"stored"))

    here.far(script)
    block = bytes(range(256)) * 4096
    whole = hashlib.sha256(block * (size // len(block))).digest()
    client = here.tls()
    client.send(
        f"PUT /o HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n"
        f"x-content-sha256: {base64.b64encode(whole).decode()}\r\n\r\n".encode()
    )
    assert client.head().status == 100
    assert said_100.is_set()
    for _ in range(size // len(block)):
        client.send(block)
    assert client.message().body == b"stored"
    assert seen.digest() == whole


def test_expect_is_refused_by_the_destination_without_the_body(here: World) -> None:
    """A final answer instead of the 100: the client has it, and never sent a byte of its body."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(answer(b"no", "413 Content Too Large"))

    here.far(script)
    client = here.tls()
    client.send(f"PUT /o HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n".encode())
    got = client.message()
    assert got.status == 413
    assert got.one("connection") == "close"


def test_chunked_both_ways_with_trailers(here: World) -> None:
    """Chunks are taken apart and made anew; what is in them, and their trailers, arrive."""
    here_seen: list[object] = []

    def script(peer: Peer) -> None:
        here_seen.append(peer.message())
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        peer.send(b"4;ext=1\r\ndefg\r\n0\r\nx-checksum: 7\r\n\r\n")
        peer.rest()

    here.far(script)
    client = here.tls()
    client.send(f"POST /c HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel".encode())
    client.send(b"lo\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32: AAAA\r\n\r\n")
    got = client.message()
    assert got.body == b"abcdefg"
    assert got.trailers == [("x-checksum", "7")]
    assert here_seen[0].body == b"hello world"
    assert here_seen[0].trailers == [("x-amz-checksum-crc32", "AAAA")]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_keep_the_connection(here: World, status: str) -> None:
    """No body follows 204 and 304, whatever the head says."""

    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.message()
            peer.send(f"HTTP/1.1 {status}\r\nETag: 1\r\n\r\n".encode())

    here.far(script)
    client = here.tls()
    for _ in range(2):
        assert client.send(get(port=here.port)).message(bodiless=True).status == int(status[:3])


def test_head_announces_a_length_and_sends_nothing(here: World) -> None:
    """The next request on the connection is answered, so nobody waited for a body."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        peer.message()
        peer.send(answer(b"second"))

    here.far(script)
    client = here.tls()
    client.send(get(port=here.port).replace(b"GET", b"HEAD"))
    assert client.message(bodiless=True).one("content-length") == "1000"
    assert client.send(get(port=here.port)).message().body == b"second"


def test_an_answer_that_ends_with_its_connection(here: World) -> None:
    """No length, no chunks: we close too, and the client knows."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it").sock.unwrap()

    here.far(script)
    client = here.tls().send(get(port=here.port))
    head = client.head()
    assert head.one("connection") == "close"
    assert client.rest() == b"all of it"


def test_alt_svc_and_fields_of_one_connection_are_taken_out(here: World) -> None:
    """The client must not be led around us."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(
            answer(b"", "200 OK", 'Alt-Svc: h3=":443"', "Connection: x-hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", "X-End: 2")
        )
        peer.rest()

    here.far(script)
    got = here.tls().send(get(port=here.port)).message()
    assert [name.lower() for name, _ in got.fields] == ["content-length", "x-end"]


# ---- bodies that lie ----------------------------------------------------------------------------------------------------------------


def test_a_body_that_differs_from_its_hash_never_arrives_whole(here: World) -> None:
    """400 for the client; the destination sees a request that breaks off before its last byte."""
    far_got: list[bytes] = []
    begun = threading.Event()
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        far_got.append(peer.exactly(500_000))
        begun.set()
        with contextlib.suppress(OSError):
            far_got.append(peer.rest())
        over.set()

    here.far(script)
    size = 1_000_000
    wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
    client = here.tls()
    client.send(f"PUT /o HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: {size}\r\nx-content-sha256: {wrong}\r\n\r\n".encode())
    client.send(b"x" * 900_000)
    assert begun.wait(10)
    client.send(b"x" * 100_000)
    refused(client.message(), 400, Reason.BODY_HASH_MISMATCH)
    assert over.wait(10)
    assert sum(map(len, far_got)) < size


def test_a_small_body_that_differs_is_refused_before_anything_is_sent(here: World) -> None:
    """It was all here before the head left."""
    far = here.echo()
    wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
    client = here.tls().send(post(b"body", f"x-content-sha256: {wrong}", port=here.port))
    refused(client.message(), 400, Reason.BODY_HASH_MISMATCH)
    right = base64.b64encode(hashlib.sha256(b"body").digest()).decode()
    assert client.send(post(b"body", f"x-content-sha256: {right}", port=here.port)).message().body == b"body"
    assert far.connections <= 2


def test_a_body_that_stops_is_answered_and_cut_upstream(here: World) -> None:
    """The destination sees an incomplete request, never a shorter one."""
    broken = threading.Event()

    def script(peer: Peer) -> None:
        head = peer.head()
        with contextlib.suppress(OSError, EOFError):
            peer.exactly(int(head.one("content-length")))
            return
        broken.set()

    here.far(script)
    client = here.tls()
    client.send(f"PUT /o HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: 100\r\n\r\nonly this".encode())
    refused(client.message(), 408, Reason.REQUEST_TIMEOUT)
    assert broken.wait(10)


def test_a_client_that_leaves_in_its_body_cuts_the_request(here: World) -> None:
    """Half a body is no body."""
    begun, broken = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        begun.set()
        with contextlib.suppress(OSError, EOFError):
            peer.exactly(100)
            return
        broken.set()

    here.far(script)
    client = here.tls()
    client.send(f"PUT /o HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: 100\r\n\r\nonly this".encode())
    assert begun.wait(10)
    client.sock.close()
    assert broken.wait(10)
    assert here.noted("request-refused", Reason.REQUEST_BODY_INCOMPLETE).path == "/o"


def test_a_body_whose_hash_is_wanted_is_held_and_hashed(here: World) -> None:
    """keys asks for the hash; the second question has it, and a length."""

    def sign(wanted: m.SignatureWanted) -> m.Message:
        if not any(name == "x-content-sha256" for name, _ in wanted.headers):
            return m.Refused(wanted.call, "cw-x", Reason.SIGNATURE_UNREADABLE, "body-hash-wanted")
        return here.signed(wanted)

    here.sign = sign
    here.echo()
    client = here.tls()
    client.send(f"POST /c HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
    client.send(b"3\r\ndef\r\n0\r\n\r\n")
    got = client.message()
    assert got.body == b"abcdef"
    assert got.one("x-got-content-length") == "6"
    assert got.one("x-got-x-content-sha256") == base64.b64encode(hashlib.sha256(b"abcdef").digest()).decode()
    client.send(f"POST /c HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nContent-Length: 2000000\r\n\r\n".encode())
    refused(client.message(), 413, Reason.REQUEST_BODY_TOO_LARGE)


# ---- what is refused ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, Reason.REQUEST_MALFORMED),
        (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", 400, Reason.REQUEST_MALFORMED),
        (b"\x00\x01\x02 garbage", 400, Reason.REQUEST_MALFORMED),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400, Reason.REQUEST_MALFORMED),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, Reason.REQUEST_MALFORMED),
        (b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405, Reason.METHOD_FORBIDDEN),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 400, Reason.UPGRADE_FORBIDDEN),
        (b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 421, Reason.HOST_MISMATCH),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, 431, Reason.REQUEST_HEAD_TOO_LARGE),
        (b"GET /half HTTP/1.1\r\nHost: h", 408, Reason.REQUEST_TIMEOUT),
        (b"POST / HTTP/1.1\r\nHost: api.cloud.test:PORT\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, Reason.REQUEST_MALFORMED),
    ],
)
def test_what_is_not_a_request_gets_a_typed_answer_and_no_signature(here: World, raw: bytes, status: int, reason: Reason) -> None:
    """The worker lives on, and the connection ends."""
    seen: list[str] = []

    def script(peer: Peer) -> None:
        while True:
            seen.append(peer.head().first)
            peer.send(answer())

    here.far(script)
    client = here.tls().send(raw.replace(b"PORT", str(here.port).encode()))
    refused(client.message(), status, reason)
    assert client.rest() == b""
    assert here.noted("request-refused", reason)
    assert not seen
    assert not here.wanted or raw.endswith(b"zz\r\n")  # only a broken body is found after its head was signed, and is not sent
    assert here.tls().send(get(port=here.port)).message().status == 200


def test_methods_and_paths_outside_of_the_binding_are_refused(tmp_path: Path) -> None:
    """403 with the binding's own words, and the connection stays for what is allowed."""
    with world(tmp_path) as here:
        import msgspec

        here.destination = msgspec.structs.replace(here.destination, methods=("GET",), paths=("/20160918/users*",))
        here.echo()
        client = here.tls()
        assert client.send(get("/20160918/users", port=here.port)).message().status == 200
        refused(client.send(get("/20160918/groups", port=here.port)).message(), 403, Reason.PATH_NOT_ALLOWED)
        refused(client.send(get("/20160918/users/../groups", port=here.port)).message(), 403, Reason.PATH_AMBIGUOUS)
        refused(client.send(post(b"", path="/20160918/users", port=here.port)).message(), 403, Reason.METHOD_NOT_ALLOWED)
        assert client.send(get("/20160918/users/1", port=here.port)).message().status == 200
        assert len(here.wanted) == 2


def test_keys_says_no_with_its_own_id_and_hint(here: World) -> None:
    """What keys refused is told with the id under which keys audited it."""
    here.sign = lambda wanted: m.Refused(wanted.call, "cw-abc", Reason.EXCHANGE_REFUSED, "the domain said invalid_grant", "check the trust")
    far = here.echo()
    client = here.tls().send(get(port=here.port))
    got = client.message()
    refused(got, 503, Reason.EXCHANGE_REFUSED)
    assert got.one("x-credwire-id") == "cw-abc"
    assert "invalid_grant" in json.loads(got.body)["message"]
    assert far.connections == 0


# ---- decisions that are taken back --------------------------------------------------------------------------------------------------


def test_a_verdict_that_changes_stops_the_kept_connection(here: World) -> None:
    """The first request is signed; after an exec the same connection is not."""
    here.echo()
    client = here.tls()
    assert client.send(get(port=here.port)).message().status == 200
    here.verdict = lambda: Reason.PROCESS_CHANGED
    got = client.send(get(port=here.port)).message()
    refused(got, 403, Reason.PROCESS_CHANGED)
    assert got.one("connection") == "close"
    assert len(here.wanted) == 1


def test_a_verdict_that_changes_while_keys_signs_stops_the_signed_head(here: World) -> None:
    """Asked again right before the head leaves: nothing is sent."""
    seen: list[object] = []

    def script(peer: Peer) -> None:
        seen.append(peer.message())

    here.far(script)

    def sign(wanted: m.SignatureWanted) -> m.Message:
        here.verdict = lambda: Reason.PROCESS_CHANGED
        return here.signed(wanted)

    here.sign = sign
    refused(here.tls().send(get(port=here.port)).message(), 403, Reason.PROCESS_CHANGED)
    assert len(here.wanted) == 1
    assert not seen


def test_a_withdrawn_grant_cuts_a_stream(here: World) -> None:
    """In the middle of an answer: reset, not an ending that looks whole."""
    more = threading.Event()

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegin")
        more.wait(10)

    here.far(script)
    client = here.tls().send(get(port=here.port))
    client.head()
    assert client.exactly(5) == b"begin"
    here.withdraw(here.grants[0], Reason.REVOKED)
    with pytest.raises((ConnectionResetError, ssl.SSLError, EOFError)):
        client.exactly(995)
    more.set()
    here.until(lambda: here.closed == here.grants)


def test_a_withdrawn_grant_is_answered_where_no_answer_has_begun(here: World) -> None:
    """403 with the reason, and the destination's connection is dropped."""
    got_request, gone = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.message()
        got_request.set()
        with contextlib.suppress(OSError):
            peer.rest()
        gone.set()

    here.far(script)
    client = here.tls().send(get(port=here.port))
    assert got_request.wait(10)
    here.withdraw(here.grants[0], Reason.REVOKED)
    refused(client.message(), 403, Reason.REVOKED)
    assert gone.wait(10)


def test_the_agent_gone_means_no_signature_and_its_return_mends_it(here: World) -> None:
    """503 on the kept connection, an alert on a new one, and all is well once it is back."""
    here.echo()
    client = here.tls()
    assert client.send(get(port=here.port)).message().status == 200
    here.stop_role("agent")
    refused(client.send(get(port=here.port)).message(), 503, Reason.DAEMON_DOWN)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        here.tls()
    here.start_role("agent")
    assert here.tls().send(get(port=here.port)).message().status == 200
    assert len(here.wanted) == 2


def test_an_agent_that_hangs_is_as_good_as_gone(here: World) -> None:
    """No heartbeat, no signature, although its socket is open."""
    here.echo()
    client = here.tls()
    assert client.send(get(port=here.port)).message().status == 200
    here.beating = False
    here.until(lambda: here.proxy.may_inject() is Reason.DAEMON_DOWN)
    refused(client.send(get(port=here.port)).message(), 503, Reason.DAEMON_DOWN)


def test_keys_gone_means_503_and_its_return_mends_it(here: World) -> None:
    """A cached leaf still lets the refusal speak HTTP."""
    here.echo()
    client = here.tls()
    assert client.send(get(port=here.port)).message().status == 200
    here.stop_role("keys")
    refused(client.send(get(port=here.port)).message(), 503, Reason.KEYS_UNAVAILABLE)
    refused(here.tls().send(get(port=here.port)).message(), 503, Reason.KEYS_UNAVAILABLE)
    here.start_role("keys")
    here.until(lambda: here.proxy.may_inject() is Reason.GRANTED)
    assert here.tls().send(get(port=here.port)).message().status == 200


def test_a_stranger_on_the_listener_gets_nothing(here: World) -> None:
    """No record: closed, and nothing was asked of keys."""
    here.whose = lambda call: m.Refused(call, "cw-1", Reason.NO_RECORD)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        here.tls()
    assert not here.leaves
    here.until(lambda: not here.proxy._open)


# ---- TLS with the client ------------------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_trust_us_is_reported(here: World) -> None:
    """Its alert is read for what it means."""
    with pytest.raises(ssl.SSLCertVerificationError):
        here.tls(trust=here.far_ca.pem)
    note = here.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA)
    assert note.binding == BINDING
    assert "unknown ca" in note.detail
    here.until(lambda: here.closed == here.grants)


def test_half_a_hello_ends_in_time(here: World) -> None:
    """Slow-loris before TLS."""
    sock = here.tcp()
    sock.sendall(hello_of(HOST)[:100])
    assert sock.recv(100) == bytes((21, 3, 3, 0, 2, 2, 50))
    assert sock.recv(100) == b""
    assert here.noted("connection-failed", Reason.HELLO_MALFORMED)


def test_a_hello_in_single_bytes_is_read(here: World) -> None:
    """Any segmentation will do, and the TLS layer still sees every byte."""
    here.echo()
    context = ssl.create_default_context(cadata=here.client_ca.pem)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    sock = here.tcp()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    for byte in outgoing.read():
        sock.sendall(bytes((byte,)))
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(1 << 16))
    assert tls.selected_alpn_protocol() is None


def test_the_leaf_is_minted_once_for_its_name(here: World) -> None:
    """Later connections find it; the key in it is the worker's own."""
    here.echo()
    first, second = here.tls(), here.tls()
    assert len(here.leaves) == 1
    assert first.sock.getpeercert()["subjectAltName"] == (("DNS", HOST),)
    assert first.sock.getpeercert() == second.sock.getpeercert()


def test_no_leaf_is_told_by_an_alert(here: World) -> None:
    """keys says no: nothing to shake hands with."""
    here.mint = lambda wanted: m.Refused(wanted.call, "cw-2", Reason.GRANT_UNKNOWN)
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        here.tls()
    assert here.noted("connection-failed", Reason.GRANT_UNKNOWN)


# ---- the destination ----------------------------------------------------------------------------------------------------------------


def test_a_destination_with_the_wrong_name_gets_no_byte(here: World) -> None:
    """Verified for the bound name before anything is written."""
    here.far(lambda _: None, context=server_context(here.far_ca, "other.cloud.test", here.directory))
    refused(here.tls().send(get(port=here.port)).message(), 502, Reason.UPSTREAM_UNVERIFIED)


def test_a_destination_of_another_ca_gets_no_byte(here: World) -> None:
    """upstreamRoots are the only roots then."""
    here.far(lambda _: None, context=server_context(here.client_ca, HOST, here.directory))
    refused(here.tls().send(get(port=here.port)).message(), 502, Reason.UPSTREAM_UNVERIFIED)


def test_a_destination_outside_of_its_networks_is_not_called(here: World) -> None:
    """An answer of a hostile resolver does not lead the credential into a private network."""
    import msgspec

    far = here.echo()
    here.destination = msgspec.structs.replace(here.destination, networks=())
    refused(here.tls().send(get(port=here.port)).message(), 403, Reason.NETWORK_NOT_ALLOWED)
    assert far.connections == 0


def test_a_dead_address_is_answered_in_time(here: World) -> None:
    """Nobody listens there and the name has no other address."""
    refused(here.tls().send(get(port=here.port)).message(), 502, Reason.UPSTREAM_UNREACHABLE)


def test_a_dead_address_is_replaced_by_another_of_the_name(tmp_path: Path) -> None:
    """A live, verified address wins over the recorded dead one; one outside of the networks is not even tried."""
    with world(tmp_path, hosts=("localhost",)) as here:
        asked: list[str] = []

        async def resolve(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("10.9.9.9", FAR, "127.0.0.3")]

        context = server_context(here.far_ca, "localhost", here.directory)
        here.far(lambda peer: peer.send(answer(peer.message().first.encode())) and None, address="127.0.0.3", context=context)
        here.proxy._upstreams._lookup = resolve
        client = here.tls("localhost").send(get("/over", host="localhost", port=here.port))
        assert client.message().body == b"GET /over HTTP/1.1"
        assert asked == ["localhost"]


@pytest.mark.parametrize(
    ("bytes_back", "status", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", 502, Reason.UPSTREAM_MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 502, Reason.UPSTREAM_MALFORMED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 502, Reason.UPSTREAM_MALFORMED),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, Reason.UPSTREAM_MALFORMED),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40, 502, Reason.UPSTREAM_MALFORMED),
        (b"", 502, Reason.UPSTREAM_RESET),
    ],
)
def test_a_destination_that_answers_nonsense(here: World, bytes_back: bytes, status: int, reason: Reason) -> None:
    """502 with the reason, and the worker lives on."""

    def script(peer: Peer) -> None:
        peer.message()
        if bytes_back:
            peer.send(bytes_back)
            peer.rest()

    here.far(script)
    client = here.tls().send(post(b"x", port=here.port))
    refused(client.message(), status, reason)


def test_a_destination_that_stays_silent_is_504(here: World) -> None:
    """The client is not left waiting."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.rest()

    here.far(script)
    refused(here.tls().send(get(port=here.port)).message(), 504, Reason.UPSTREAM_TIMEOUT)


def test_a_destination_that_breaks_off_in_its_answer_is_a_reset(here: World) -> None:
    """Bytes have gone out already: nothing that looks whole may follow."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    here.far(script)
    client = here.tls().send(get(port=here.port))
    client.head()
    with pytest.raises((OSError, EOFError)):
        client.exactly(100)


def test_a_stale_connection_is_retried_once_for_a_get_and_never_for_a_post(here: World) -> None:
    """The destination closed while we wrote: GET goes again on a fresh one; POST is told."""
    first = threading.Event()

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(answer(b"one"))
        if not first.is_set():
            first.set()
            peer.message()  # the second request arrives and gets no answer
            return
        peer.message()

    far = here.far(script)
    client = here.tls()
    assert client.send(get(port=here.port)).message().body == b"one"
    assert client.send(get(port=here.port)).message().body == b"one"
    assert far.connections == 2
    refused(client.send(post(b"x", port=here.port)).message(), 502, Reason.UPSTREAM_RESET)
    assert far.connections == 2


def test_bytes_nobody_asked_for_end_the_upstream_connection(here: World) -> None:
    """A second answer waiting for the next request would be an answer to somebody else's."""

    def script(peer: Peer) -> None:
        peer.message()
        peer.send(answer(b"one") + answer(b"poison"))
        peer.rest()

    far = here.far(script)
    client = here.tls()
    for _ in range(3):
        assert client.send(get(port=here.port)).message().body == b"one"
    assert far.connections == 3


# ---- what is not ours ---------------------------------------------------------------------------------------------------------------


def splice_script(peer: Peer) -> None:
    """Greets first, echoes, and says goodbye after the client's half-close."""
    peer.send(b"hello from afar\n")
    while data := peer.sock.recv(1 << 16):
        peer.send(data)
    peer.send(b"bye")


def test_an_unattested_connection_is_spliced_byte_for_byte(here: World) -> None:
    """Server first, large both ways, half-close kept."""
    here.whose = here.passed
    here.far(splice_script, tls=False)
    sock = here.tcp()
    payload = bytes(range(256)) * 8192
    sender = threading.Thread(target=lambda: (sock.sendall(payload), sock.shutdown(socket.SHUT_WR)))
    sender.start()
    got = Peer(sock).rest()
    sender.join()
    assert got == b"hello from afar\n" + payload + b"bye"
    assert not here.leaves


def test_an_unbound_name_is_spliced_with_its_own_certificate(here: World) -> None:
    """The client shakes hands with the real destination: nothing of ours is in between."""
    context = server_context(here.far_ca, "other.cloud.test", here.directory)
    here.far(lambda peer: peer.send(answer(peer.message().first.encode())) and None, context=context)
    client = here.tls("other.cloud.test", trust=here.far_ca.pem)
    assert client.send(get("/x", host="other.cloud.test", port=here.port)).message().body == b"GET /x HTTP/1.1"
    note = here.noted("connection-spliced", Reason.DESTINATION_UNKNOWN)
    assert note.host == "other.cloud.test"
    assert not here.wanted
    client.sock.close()
    here.until(lambda: here.closed == here.grants)


def test_bytes_that_are_no_tls_are_spliced_and_counted(here: World) -> None:
    """Plain HTTP to a bound port gets no credential."""
    here.far(lambda peer: peer.send(b"plain:" + peer.line()) and None, tls=False)
    sock = here.tcp()
    sock.sendall(b"GET / HTTP/1.1\r\n")
    assert Peer(sock).rest() == b"plain:GET / HTTP/1.1"
    assert here.noted("connection-spliced", Reason.NOT_TLS)


def test_a_server_that_speaks_first_is_reached_after_a_while(here: World) -> None:
    """A silent client is no TLS client."""
    here.far(lambda peer: peer.send(b"220 ready") and None, tls=False)
    assert Peer(here.tcp()).rest() == b"220 ready"


def test_bound_only_refuses_other_names(tmp_path: Path) -> None:
    """The alert says access denied, and nothing leaves the machine."""
    with world(tmp_path, egress="bound-only") as here:
        far = here.echo()
        with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
            here.tls("other.cloud.test")
        sock = here.tcp()
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert Peer(sock).rest() == b""
        assert here.noted("connection-failed", Reason.NOT_TLS)
        assert here.tls().send(get(port=here.port)).message().status == 200
        assert far.connections == 1


def test_a_splice_whose_far_side_is_dead_is_reset(here: World) -> None:
    """As the kernel would have told the client."""
    here.whose = here.passed
    sock = here.tcp()
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_a_splice_whose_far_side_resets_is_reset(here: World) -> None:
    """An end that was no end must not look like one."""
    here.whose = here.passed

    def script(peer: Peer) -> None:
        peer.sock.recv(10)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    here.far(script, tls=False)
    sock = here.tcp()
    sock.sendall(b"hi")
    with pytest.raises(ConnectionResetError):
        sock.recv(10)


def test_grants_are_given_back(here: World) -> None:
    """Every connection's end reaches the agent, however it ended."""
    here.echo()
    for _ in range(3):
        client = here.tls().send(get(port=here.port))
        client.message()
        client.sock.close()
    here.until(lambda: sorted(here.closed) == sorted(here.grants))
    here.until(lambda: not here.proxy._open and not here.proxy._grants)


# ---- limits of the worker -------------------------------------------------------------------------------------------------------------


def test_an_agent_that_does_not_answer_in_time_lets_nobody_in(tmp_path: Path) -> None:
    """It beats and says nothing of the connection: an alert, a note, and the next one is served."""
    with world(tmp_path, limits=replace(FAST, grant_s=0.2)) as here:
        far = here.echo()
        here.whose = lambda _: None
        with pytest.raises((ssl.SSLError, ConnectionError)):
            here.tls()
        assert here.noted("connection-failed", Reason.ATTESTATION_TIMEOUT).detail == "the agent did not answer"
        here.whose = here.granted
        assert here.tls().send(get(port=here.port)).message().status == 200
        assert far.connections == 1


def test_one_connection_too_many_is_reset_and_noted(tmp_path: Path) -> None:
    """The worker's own limit; those that are open are served on, and when one ends there is room again."""
    with world(tmp_path, limits=replace(FAST, connections=1)) as here:
        here.echo()
        client = here.tls()
        with pytest.raises(ConnectionResetError):
            here.tcp().recv(1)
        assert here.noted("connection-failed", Reason.QUOTA_EXCEEDED)
        assert client.send(get(port=here.port)).message().status == 200
        client.sock.close()
        here.until(lambda: not here.proxy._open)
        assert here.tls().send(get(port=here.port)).message().status == 200
