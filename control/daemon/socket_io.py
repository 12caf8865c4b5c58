"""
The Unix sockets between our processes: make, bind and look at them.

In: paths and modes.  Out: SOCK_SEQPACKET sockets.  Small, because the supervisor imports it and nothing else of the channels.
"""

import os
import socket
import struct
from pathlib import Path

_SNDBUF = 4 << 20


def seqpacket() -> socket.socket:
    """Make an unconnected, non-blocking, close-on-exec SEQPACKET socket with room for MAX_MESSAGE."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    make_roomy(sock)
    return sock


def make_roomy(sock: socket.socket) -> None:
    """Give the socket room for the largest message."""
    for option in (
        32,
        socket.SO_SNDBUF,
    ):  # 32 = SO_SNDBUFFORCE, which needs CAP_NET_ADMIN; then what wmem_max allows
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, _SNDBUF)
        except OSError:
            continue
        return


def listen(path: Path, *, mode: int, uid: int = 0, gid: int = 0) -> socket.socket:
    """Bind a SEQPACKET listener at ``path``, replacing a dead one; the supervisor calls this and hands the descriptor down."""
    path.unlink(missing_ok=True)
    sock = seqpacket()
    sock.bind(str(path))
    os.chown(path, uid, gid)
    path.chmod(mode)
    sock.listen(64)
    return sock


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Give (pid, uid, gid) of the far end as of connect(): SO_PEERCRED of unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", raw)
    return pid, uid, gid
