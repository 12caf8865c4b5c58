"""
The Unix sockets between our processes: make, bind and look at them.

In: paths and modes.  Out: SOCK_SEQPACKET sockets.  Small, because the supervisor imports it and nothing else of the channels.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection
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


def listen(path: Path, *, callers: Collection[int]) -> tuple[socket.socket, bool]:
    """
    Bind a SEQPACKET listener at ``path``, replacing a dead one; the supervisor calls this and hands the descriptor down.

    Only we and the uids of ``callers`` may connect, so that nobody else can fill the queue in which ours wait.  Gives False beside the
    listener where the file system has no access lists: then everybody may connect, and who has no role is sent away by greet_io.
    """
    path.unlink(missing_ok=True)
    sock = seqpacket()
    sock.bind(str(path))
    path.chmod(0o600)
    closed = True
    try:
        os.setxattr(path, "system.posix_acl_access", _access_list(callers))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        path.chmod(0o666)
        closed = False
    sock.listen(64)
    return sock, closed


def listen_stream(path: Path, gid: int) -> socket.socket:
    """
    Listen for people's tools at ``path``: root's, and the group's where there is one (-1: none).

    Nobody else can as much as fill the queue.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # there is no moment in which the socket is open to more than it should be
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    if gid >= 0:
        os.chown(path, -1, gid)
        path.chmod(0o660)
    sock.listen(16)
    return sock


_ACL_VERSION = 2
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_READ_WRITE, _NOTHING = 6, 0
_NOBODY_NAMED = 0xFFFFFFFF
"""linux/posix_acl_xattr.h and posix_acl.h."""


def _access_list(uids: Collection[int]) -> bytes:
    rows = [(_OWNER, _READ_WRITE, _NOBODY_NAMED), *((_USER, _READ_WRITE, uid) for uid in sorted(set(uids)))]
    rows += [(_GROUP, _NOTHING, _NOBODY_NAMED), (_MASK, _READ_WRITE, _NOBODY_NAMED), (_OTHER, _NOTHING, _NOBODY_NAMED)]
    return struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *row) for row in rows)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Give (pid, uid, gid) of the far end as of connect(): SO_PEERCRED of unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", raw)
    return pid, uid, gid
