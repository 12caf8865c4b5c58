"""Mode observe: looked at, noted once, never touched; played over real sockets."""

import socket
import threading

import msgspec
import pytest

from control.binding.model import Destination
from control.daemon import message as m
from control.reason import Reason
from control.wire.hello import FirstBytes, Hello, Malformed, NotTls
from tests.unit.wire.world import FAR, HOST, Peer, World, answer, get, hello_of, post, server_context, world

WATCHED = "report.cloud.test"
OBSERVER = "report-watched"


def _observe(here: World, *hosts: str, **more: object) -> None:
    here.observed = ((OBSERVER, Destination(hosts or (WATCHED,), ports=(here.port,), networks=("127.0.0.0/8",), **more)),)


def _far(here: World, host: str = WATCHED) -> None:
    def script(peer: Peer) -> None:
        request = peer.message()
        peer.send(answer(request.body, "200 OK", f"x-got-authorization: {dict(request.fields).get('authorization', '')}"))

    here.far(script, context=server_context(here.far_ca, host, here.directory))


@pytest.mark.parametrize("alone", [True, False], ids=["observed only", "beside one that enforces"])
def test_an_observed_name_is_spliced_untouched_and_noted_once(here: World, alone: bool) -> None:
    """The client shakes hands with the destination itself; the note names binding, host, port and grant; the grant is given back."""
    _observe(here)
    if alone:
        here.whose = here.watched
    _far(here)
    client = here.tls(WATCHED, trust=here.far_ca.pem)
    got = client.send(get("/x", "authorization: Bearer own", host=WATCHED, port=here.port)).message()
    assert got.one("x-got-authorization") == "Bearer own"
    note = here.noted("connection-observed")
    assert (note.binding, note.host, note.port, note.grant) == (OBSERVER, WATCHED, here.port, here.grants[0])
    client.sock.close()
    here.until(lambda: here.closed == here.grants)
    assert [n.event for n in here.notes] == ["connection-observed"]
    assert not here.wanted
    assert not here.leaves
    assert not here.proxy._grants


def test_every_byte_of_an_observed_connection_is_the_clients(here: World) -> None:
    """The hello arrives as it was sent, in whatever pieces."""
    _observe(here)
    here.whose = here.watched
    hello = hello_of(WATCHED)
    arrived: list[bytes] = []
    over = threading.Event()

    def script(peer: Peer) -> None:
        arrived.append(peer.exactly(len(hello)))
        peer.send(b"back")
        over.set()

    here.far(script, tls=False)
    sock = here.tcp()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(hello), 60):
        sock.sendall(hello[start : start + 60])
    assert Peer(sock).rest() == b"back"
    assert over.wait(10)
    assert arrived == [hello]
    assert here.noted("connection-observed").host == WATCHED


def test_a_server_that_speaks_first_is_heard_at_once(here: World) -> None:
    """Nobody waits for the client: the greeting is there long before a hello would be given up, and half-close is kept."""
    _observe(here)
    here.whose = here.watched

    def script(peer: Peer) -> None:
        peer.send(b"220 ready\r\n")
        heard = peer.rest()
        peer.send(b"221 " + heard)

    here.far(script, tls=False)
    sock = here.tcp()
    sock.settimeout(here.limits.hello_s / 2)
    client = Peer(sock)
    assert client.line() == b"220 ready"
    sock.sendall(b"quit")
    sock.shutdown(socket.SHUT_WR)
    assert client.rest() == b"221 quit"
    here.until(lambda: here.closed == here.grants)
    assert here.notes == []


def test_at_a_port_where_nothing_is_enforced_a_server_may_speak_first(here: World) -> None:
    """The identity has a binding that enforces, at another port: here nothing waits either, and the note is as ever."""
    _observe(here)
    here.destination = msgspec.structs.replace(here.destination, ports=(1,))
    here.far(lambda peer: peer.send(b"220 ready\r\n") and None, tls=False)
    sock = here.tcp()
    sock.settimeout(here.limits.hello_s / 2)
    assert Peer(sock).rest() == b"220 ready\r\n"
    sock.close()
    note = here.noted("connection-spliced", Reason.NOT_TLS)
    assert note.host == FAR
    here.until(lambda: here.closed == here.grants)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"", hello_of("other.cloud.test")], ids=["no TLS", "nothing", "another name"])
def test_what_no_observer_names_is_passed_without_a_word(here: World, first: bytes) -> None:
    """Nothing beyond what such a connection was always told."""
    _observe(here)
    here.whose = here.watched
    here.far(lambda peer: peer.send(b"seen:" + peer.rest()) and None, tls=False)
    sock = here.tcp()
    sock.sendall(first)
    sock.shutdown(socket.SHUT_WR)
    assert Peer(sock).rest() == b"seen:" + first
    here.until(lambda: here.closed == here.grants)
    assert here.notes == []


def test_observing_outlives_agent_and_keys(here: World) -> None:
    """What is spliced goes on when either dies; without keys new ones are observed as well, because keys is not needed."""
    _observe(here)
    here.whose = here.watched

    def script(peer: Peer) -> None:
        while True:
            peer.send(answer(peer.message().first.encode()))

    here.far(script, context=server_context(here.far_ca, WATCHED, here.directory))
    client = here.tls(WATCHED, trust=here.far_ca.pem)
    assert client.send(get("/1", host=WATCHED, port=here.port)).message().status == 200
    here.stop_role("keys")
    assert client.send(get("/2", host=WATCHED, port=here.port)).message().status == 200
    second = here.tls(WATCHED, trust=here.far_ca.pem)
    assert second.send(get("/3", host=WATCHED, port=here.port)).message().status == 200
    here.stop_role("agent")
    for each in (client, second):
        assert each.send(get("/4", host=WATCHED, port=here.port)).message().status == 200


def test_a_grant_that_is_withdrawn_cuts_no_observed_connection(here: World) -> None:
    """There is nothing to take back: it never bore a credential."""
    _observe(here)
    here.whose = here.watched

    def script(peer: Peer) -> None:
        while True:
            peer.send(answer(peer.message().first.encode()))

    here.far(script, context=server_context(here.far_ca, WATCHED, here.directory))
    client = here.tls(WATCHED, trust=here.far_ca.pem)
    assert client.send(get("/1", host=WATCHED, port=here.port)).message().status == 200
    here.withdraw(here.grants[0], Reason.REVISION_OLD)
    assert client.send(get("/2", host=WATCHED, port=here.port)).message().status == 200


def test_a_late_answer_of_the_agent_gives_its_grant_back(here: World) -> None:
    """The connection is gone when the agent says that it is observed: nothing may keep the grant."""
    _observe(here)
    here.whose = lambda call: here.watched(call + 1000)
    sock = here.tcp()
    here.until(lambda: here.closed == ["grant-1"])
    sock.close()


# ---- both modes -------------------------------------------------------------------------------------------------------------------------


def test_the_longer_host_decides_whatever_its_mode(tmp_path) -> None:
    """Observed exactly under an enforced wildcard: spliced.  Enforced exactly under an observed wildcard: terminated."""
    with world(tmp_path, hosts=("*.cloud.test",)) as here:
        _observe(here, WATCHED)
        _far(here)
        here.tls(WATCHED, trust=here.far_ca.pem).sock.close()
        assert here.noted("connection-observed").binding == OBSERVER
        assert here.tls("other.cloud.test").sock.getpeercert()  # by the binding's own CA
    other = tmp_path / "other"
    other.mkdir()
    with world(other) as here:
        _observe(here, "*.cloud.test")
        here.echo()
        assert here.tls().send(get(port=here.port)).message().one("x-got-authorization") == "Signed 1"
        assert not [n for n in here.notes if n.event == "connection-observed"]


def test_at_one_host_the_more_specific_path_decides(here: World) -> None:
    """Terminated for the binding that enforces; what belongs to the observed one goes out as the client made it, on a connection apart."""
    here.destination = msgspec.structs.replace(here.destination, paths=("/a/*",))
    _observe(here, HOST, paths=("/a/watched*", "/b/*"), methods=("GET",))
    far = here.echo()
    client = here.tls()
    own = "Authorization: Bearer own"
    assert client.send(get("/a/x", own, port=here.port)).message().one("x-got-authorization") == "Signed 1"
    for path in ("/a/watched", "/b/x"):
        assert client.send(get(path, own, port=here.port)).message().one("x-got-authorization") == "Bearer own"
    posted = client.send(post(b"body", own, path="/b/x", port=here.port)).message()  # its methods do not refuse while it only looks
    assert (posted.one("x-got-authorization"), posted.body) == ("Bearer own", b"body")
    assert client.send(get("/c", port=here.port)).message().one("x-credwire-reason") == Reason.PATH_NOT_ALLOWED
    assert len(here.wanted) == 1
    assert far.connections == 2
    here.until(lambda: len([n for n in here.notes if n.event == "request-answered"]) == 4)
    notes = [(n.binding, n.path, "observe" in n.detail) for n in here.notes if n.event == "request-answered"]
    assert notes[1:] == [(OBSERVER, "/a/watched", True), (OBSERVER, "/b/x", True), (OBSERVER, "/b/x", True)]


def test_bound_only_reaches_what_is_observed(tmp_path) -> None:
    """A binding names it, so it is a bound name; others are refused as before."""
    with world(tmp_path, egress="bound-only") as here:
        _observe(here)
        _far(here)
        client = here.tls(WATCHED, trust=here.far_ca.pem)
        assert client.send(get("/x", host=WATCHED, port=here.port)).message().status == 200
        sock = here.tcp()
        sock.sendall(hello_of("other.cloud.test"))
        assert sock.recv(100)[:1] == b"\x15"


# ---- the look in passing ----------------------------------------------------------------------------------------------------------------


def test_first_bytes_in_any_pieces() -> None:
    """Whole, halved, byte by byte in reason; what is no TLS is known at its first bytes; a hello in a thousand pieces is given up."""
    hello = hello_of(WATCHED)
    assert FirstBytes(1 << 16).take(hello) == Hello(WATCHED, ())
    for cut in range(1, len(hello)):
        first = FirstBytes(1 << 16)
        assert first.take(hello[:cut]) is None
        assert first.take(hello[cut:]) == Hello(WATCHED, ())
    assert isinstance(FirstBytes(1 << 16).take(b"GET / HTTP"), NotTls)
    slow = FirstBytes(1 << 16)
    hostile = b"".join(b"\x16\x03\x01\x00\x01" + bytes((byte,)) for byte in hello[5:])  # a record for each byte
    told = [found for found in (slow.take(bytes((byte,))) for byte in hostile) if found is not None]
    assert isinstance(told[0], Malformed)
    assert isinstance(FirstBytes(100).take(hello), Malformed)


def test_a_splice_that_nobody_observes_is_not_looked_at(here: World) -> None:
    """As before: no grant, no note."""
    here.whose = lambda call: m.ConnectionPassed(call, Reason.IDENTITY_NONE, here.peer, here.port)
    _far(here)
    assert here.tls(WATCHED, trust=here.far_ca.pem).send(get(host=WATCHED, port=here.port)).message().status == 200
    assert here.notes == []
    assert here.closed == []
