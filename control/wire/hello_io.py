"""
Wait for a ClientHello without taking it.

In: an accepted, non-blocking socket.  Out: what hello.py says of it; every byte is still in the socket, so that the TLS layer or the far
side of a splice reads the stream from its beginning.
SO_RCVLOWAT keeps the wait quiet: the kernel wakes us only when more than what was seen has arrived (socket(7); tcp_set_rcvlowat()
widens the receive buffer where needed).
"""

import asyncio
import socket

from control.wire.hello import Hello, Malformed, NeedMore, NotTls, read_hello
from control.wire.limits import Limits


class Silent(Exception):
    """Nothing arrived in time."""


class Gone(Exception):
    """The client closed before its hello was whole."""


async def peek_hello(loop: asyncio.AbstractEventLoop, sock: socket.socket, limits: Limits) -> Hello | NotTls | Malformed:
    """Give the hello, or what stands in its place.  Raises Silent, Gone or OSError."""
    raw = b""
    try:
        async with asyncio.timeout(limits.hello_s):
            while True:
                try:
                    raw = sock.recv(limits.hello_bytes + 1, socket.MSG_PEEK)
                except (BlockingIOError, InterruptedError):
                    raw = b""
                else:
                    if not raw:
                        raise Gone
                found = read_hello(raw, limits.hello_bytes)
                if not isinstance(found, NeedMore):
                    return found
                if not await _more(loop, sock, len(raw), found.at_least):
                    raise Gone
    except TimeoutError:
        if raw:
            return Malformed("the hello did not arrive in time")
        raise Silent from None
    finally:
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _more(loop: asyncio.AbstractEventLoop, sock: socket.socket, seen: int, at_least: int) -> bool:
    """Wait until more than ``seen`` bytes are there; False when the client closed instead."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(at_least, seen + 1))
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    loop.add_reader(sock.fileno(), wake)
    try:
        await woken
    finally:
        loop.remove_reader(sock.fileno())
    if not seen:
        return True
    return len(sock.recv(seen + 1, socket.MSG_PEEK)) > seen
