"""
What the kernel knows of a client's TCP connection.

In: a connected socket.  Out: whether the client has ended its side, and whether it had read all of ours before.
The client is on this machine, so there is no network between its close() and what is seen here.  Source: tcp(7), linux/tcp.h.
"""

import socket
import struct

_CLOSE, _CLOSE_WAIT = 7, 8
"""The client has sent its FIN; a close() with unread bytes would have sent RST, whose state is CLOSE."""
_INFO = struct.Struct("=B23xI")
"""struct tcp_info: tcpi_state first, tcpi_unacked at 24."""


def _info(sock: socket.socket) -> tuple[int, int]:
    try:
        state, unacked = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except (OSError, struct.error):  # it is gone
        return 0, 0
    return state, unacked


def has_ended(sock: socket.socket) -> bool:
    """Say whether the client will send no more."""
    return _info(sock)[0] == _CLOSE_WAIT


def has_left(sock: socket.socket) -> bool:
    """Say whether the client has gone, with an end or, where something of ours was unread, with a reset."""
    return _info(sock)[0] in (_CLOSE, _CLOSE_WAIT)


def read_all_and_ended(sock: socket.socket) -> bool:
    """Say whether the client closed in good order after it had read everything we sent."""
    return _info(sock) == (_CLOSE_WAIT, 0)
