"""R1, R2, R3: other families, other ways to connect, other protocols.  Each is governed or refused, none goes around.  Needs root."""

from ipaddress import ip_address

import pytest

from tests.e2e.lib.hand import HandError, head
from tests.e2e.lib.scene import IDENTITY, USERS, Scene
from tests.e2e.test_bad_input import HELLO


@pytest.mark.parametrize("address", ["{0.there4}", "{0.there6}", "::ffff:{0.there4}"])
def test_every_form_of_an_address_is_redirected(scene: Scene, address: str) -> None:
    """v4, v6, v4-mapped (R1): signed; getpeername() shows what was asked for."""
    target = address.format(scene.stage.subnet)
    with scene.watch() as seen, scene.hand("main") as hand:
        number = hand.open(IDENTITY, address=target)
        assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        assert ip_address(hand.do("peer", number=number)[0]) == ip_address(target)
        assert len(seen.valid()) == 1


_FASTOPEN_CONNECT = """
sock = socket.socket()
sock.setsockopt(socket.IPPROTO_TCP, 30, 1)
sock.settimeout(10)
sock.connect((address, 443))
result = hands.keep(sock)
"""
_FASTOPEN_SEND = """
sock = socket.socket()
sock.sendto(hello.encode("latin-1"), 0x20000000, (address, 443))
sock.settimeout(10)
result = hands.keep(sock)
"""
_MPTCP = """
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
sock.settimeout(10)
sock.connect((address, 443))
result = hands.keep(sock)
"""
_NONBLOCKING = """
import select
sock = socket.socket()
sock.setblocking(False)
sock.connect_ex((address, 443))
select.select([], [sock], [], 5)
sock.settimeout(10)
result = hands.keep(sock)
"""
_BOUND_SOURCE = """
sock = socket.socket()
sock.bind(("0.0.0.0", 0))
sock.settimeout(10)
sock.connect((address, 443))
result = hands.keep(sock)
"""


@pytest.mark.parametrize("code", [_FASTOPEN_CONNECT, _NONBLOCKING, _BOUND_SOURCE], ids=["fastopen", "nonblocking", "bound"])
def test_every_way_to_connect_is_redirected(scene: Scene, code: str) -> None:
    """TCP_FASTOPEN_CONNECT, non-blocking, a bound source (R3): the hook is at connect, not at a system call."""
    with scene.watch() as seen, scene.hand("main") as hand:
        number = hand.python(code, address=scene.stage.subnet.there4)
        hand.tls(number, IDENTITY)
        assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        assert len(seen.valid()) == 1


def test_mptcp_does_not_go_around(scene: Scene) -> None:
    """R3: served like TCP or refused, never through to the cloud by itself."""
    with scene.watch() as seen, scene.hand("main") as hand:
        try:
            number = hand.python(_MPTCP, address=scene.stage.subnet.there4)
            hand.tls(number, IDENTITY)
            assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
        except HandError as met:
            assert met.kind in (
                "BrokenPipeError",
                "ConnectionResetError",
                "ConnectionRefusedError",
                "PermissionError",
                "OSError",
                "SSLEOFError",
            )
            assert seen.records() == []
        else:
            assert len(seen.valid()) == 1


def test_data_in_the_syn_is_redirected(scene: Scene) -> None:
    """MSG_FASTOPEN: connect and send in one call."""
    with scene.hand("main") as hand:
        hello = hand.python(HELLO, name=IDENTITY)
        number = hand.python(_FASTOPEN_SEND, hello=hello, address=scene.stage.subnet.there4)
        assert hand.do("read", number=number, most=65536)
        assert hand.do("peer", number=number) == [scene.stage.subnet.there4, 443]
        assert hand.python("result = hands.sockets[n].getsockname()[0]", n=number).startswith("127.")


_UDP = """
sock = socket.socket(family, socket.SOCK_DGRAM)
if how == "connect":
    sock.connect((address, port))
    sock.send(b"x")
else:
    sock.sendto(b"x", (address, port))
result = True
"""


@pytest.mark.parametrize("how", ["connect", "sendto"])
@pytest.mark.parametrize("address", ["there4", "there6"])
def test_udp_on_a_bound_port_is_refused(scene: Scene, how: str, address: str) -> None:
    """QUIC is no way around (R2); other ports and other processes are free."""
    target = getattr(scene.stage.subnet, address)
    family = 10 if ":" in target else 2
    with scene.hand("main") as hand, scene.hand("stranger") as stranger:
        with pytest.raises(HandError):
            hand.python(_UDP, family=family, how=how, address=target, port=443)
        assert hand.python(_UDP, family=family, how=how, address=target, port=5353)
        assert stranger.python(_UDP, family=family, how=how, address=target, port=443)
