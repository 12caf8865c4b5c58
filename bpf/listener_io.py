"""
Open the sockets that redirected connections arrive at.

In: a port.  Out: an IPv4 and an IPv6 listener.  IPv4 connections are sent to 127.1.h.h (h.h from the original destination: one source
port can then still reach several destinations), IPv6 ones to ::1; so both listen on the wildcard address, bound to the device lo,
which no other machine can reach.
"""

import errno
import socket

BACKLOG = 1024
"""Connections that wait for accept(); the kernel caps it at net.core.somaxconn."""
_LO = b"lo\0"


def _listener(family: socket.AddressFamily, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LO)
        sock.bind(("::" if family is socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104  # the device keeps others out
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def open_listeners(port: int, *, shared: bool = False) -> tuple[socket.socket, socket.socket | None]:
    """
    Listen on ``port`` (0: any free one) for redirected connections; the IPv6 one is None where the kernel has no IPv6.

    ``shared`` sets SO_REUSEPORT for several workers of one uid.  Raises OSError; needs CAP_NET_RAW to bind to the device.
    """
    four = _listener(socket.AF_INET, port, shared=shared)
    try:
        six = _listener(socket.AF_INET6, four.getsockname()[1], shared=shared)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return four, None
        four.close()
        raise
    return four, six
