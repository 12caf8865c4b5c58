"""
Let a caller in by what the kernel says of it, not by what it says of itself.

In: an accepted SEQPACKET socket and the uid of each role.  Out: the socket with its role, or closed.
The first datagram is looked at, not taken (MSG_PEEK): the channel that follows reads it again.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping

import msgspec

from control.daemon.message import Greeted
from control.daemon.socket_io import peer_credentials
from control.daemon.throttle import Throttle, with_held

GREETING_S = 2.0
"""Time for the first datagram; a caller of ours sends it at once."""
_GREETING_MOST = 256
_decoder = msgspec.msgpack.Decoder(Greeted)
_lines = Throttle(burst=5, per_s=0.2)
"""By uid: strangers connect as fast as they like, the log is not theirs to fill."""


def greet(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    *,
    roles: Mapping[str, int],
    on_greeted: Callable[[socket.socket, str], None],
    on_stranger: Callable[[str], None],
) -> None:
    """
    Wait for the greeting of a fresh connection.

    ``on_greeted(sock, role)`` takes the socket over when the greeted role's uid is the peer's; in every other case the socket is closed and
    ``on_stranger(why)`` hears of it, not more than now and then for one uid.  Peer credentials are of connect(): see unix(7), SO_PEERCRED.
    """
    _, uid, _ = peer_credentials(sock)

    def tell(why: str) -> None:
        if (held := _lines.passes(uid, loop.time())) is not None:
            on_stranger(with_held(why, held))

    if uid not in roles.values():
        sock.close()
        tell(f"uid {uid} has no role here")
        return
    sock.setblocking(False)

    def close(why: str) -> None:
        loop.remove_reader(sock.fileno())
        sock.close()
        tell(why)

    def readable() -> None:
        try:
            raw = sock.recv(_GREETING_MOST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raw = b""
            late.cancel()
            close(f"uid {uid} is gone: {error.strerror}")
            return
        late.cancel()
        try:
            role = _decoder.decode(raw).role
        except msgspec.DecodeError:
            close(f"uid {uid} did not greet")
            return
        if roles.get(role) != uid:
            close(f"uid {uid} claims a role that is not its own")
            return
        loop.remove_reader(sock.fileno())
        on_greeted(sock, role)

    late = loop.call_later(GREETING_S, close, f"uid {uid} said nothing for {GREETING_S} s")
    loop.add_reader(sock.fileno(), readable)
