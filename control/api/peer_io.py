"""
Who is at the other end of a Unix socket.

In: an accepted socket.  Out: a Peer: uid, groups and pid as the kernel froze them at connect(), and whether that process still runs the
same program.  The frozen values cannot be changed by what the caller does later (setuid, exec, handing the socket on), so a role given for
them is a role of whoever connected; ``unchanged`` then ends the conversation when that process has exec'd or ended, so that a copy of the
socket kept by somebody else is worth nothing.
"""

import os
import select
import socket
import struct
from contextlib import suppress

SO_PEERPIDFD = 77
"""asm-generic/socket.h, Linux 6.5 (7b26952a91cf); older kernels: ENOPROTOOPT."""
SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13 (28b5ba2aa0f5): supplementary groups at connect()."""

_UCRED = struct.Struct("iII")
_GID = struct.Struct("I")


class Peer:
    """One caller.  Owns descriptors: close it."""

    def __init__(self, sock: socket.socket) -> None:
        """
        Ask the kernel.

        Raises OSError when the caller has ended, lives in a pid namespace we cannot see, or may not be looked at.
        """
        self._pidfd = self._maps = -1
        self.pid, self.uid, self.gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if self.pid <= 0:
            raise ProcessLookupError("the caller's pid is not visible from here")
        self.gids = frozenset({self.gid, *_groups(sock)})
        try:
            self._pidfd = _pidfd(sock, self.pid)
            # Opened now it stays with the memory of this program: it reads as empty after an exec, whatever the pid does next.
            self._maps = os.open(f"/proc/{self.pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
            if not self.unchanged():  # so that /proc/<pid> was the pidfd's process when we opened it
                raise ProcessLookupError("the caller ended")
        except OSError:
            self.close()
            raise

    def unchanged(self) -> bool:
        """Whether the process that connected still runs the program it ran when we accepted."""
        try:
            ended = select.poll()  # not select(): descriptors over 1023 are ordinary here
            ended.register(self._pidfd, select.POLLIN)
            return not ended.poll(0) and bool(os.pread(self._maps, 1, 0))
        except (OSError, ValueError):  # ValueError: closed, so the descriptor is -1
            return False

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self._pidfd, self._maps):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._maps = -1


def _pidfd(sock: socket.socket, pid: int) -> int:
    with suppress(OSError):
        fd = int(sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        os.set_inheritable(fd, False)
        return fd
    # Before 6.5 the pid may have been given to another process since connect(); the uid and groups are still those of the caller,
    # so the role stands, and only the pid that is shown can be wrong.
    return os.pidfd_open(pid)


def _groups(sock: socket.socket) -> list[int]:
    for most in (64, 65536):  # NGROUPS_MAX
        with suppress(OSError):  # ERANGE: more groups than room
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, most * _GID.size)
            return [gid for (gid,) in _GID.iter_unpack(raw)]
    return []
