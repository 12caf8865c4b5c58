"""
Carry bytes both ways without looking.

In: an accepted socket whose bytes are all still there, and the address the client had asked for.  Out: how it ended, and on request what
the client began with: looked at in passing, so that a server that speaks first is not kept waiting.
What the kernel would have told the client, it is told: a far side that cannot be reached or that resets gives a reset, half-close stays
half-close, a slow reader slows its writer.  No credential ever comes near this file.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from control.reason import Reason
from control.wire.hello import FirstBytes, Hello, Malformed, NotTls
from control.wire.limits import Limits

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close() sends RST (socket(7))."""


OnFirst = Callable[[Hello | NotTls | Malformed | None], None]


def reset_on_close(sock: socket.socket) -> None:
    """Let the far end see a reset when ``sock`` is closed."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:  # it is gone already
        pass


def reset(sock: socket.socket) -> None:
    """Close so that the far end sees a reset."""
    reset_on_close(sock)
    sock.close()


class _Side(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self, splice: "Splice", sock: socket.socket) -> None:
        self.splice, self.sock = splice, sock
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.ended = False
        """It will send no more."""
        self.closed = False
        self.look: FirstBytes | None = None
        """Where the first bytes of the client are looked at as they pass."""
        self._early: list[bytes] = []
        """What arrived before the other side was up: uvloop reads once even when connection_made() pauses."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; hand over what waited for it."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        transport.set_write_buffer_limits(high=self.splice.limits.write_high)  # type: ignore[attr-defined]  # same
        if self.other is not None:
            self.other.hand_over(self.transport)  # type: ignore[arg-type]  # set above

    def hand_over(self, transport: asyncio.Transport) -> None:
        """The other side is up: give it what came before."""
        for data in self._early:
            transport.write(data)
        self._early.clear()
        if self.ended:
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        self.splice.moved()
        if self.look is not None and (found := self.look.take(data)) is not None:
            self.look = None
            self.splice.seen(found)
        other = self.other
        if other is None or other.closed:
            return
        if other.transport is None:
            self._early.append(data)
        else:
            other.transport.write(data)

    def eof_received(self) -> bool:
        """Hand the half-close on; keep the other direction."""
        self.ended = True
        other = self.other
        if other is None or other.closed:
            return False
        if other.transport is not None:
            other.transport.write_eof()
        if other.ended:
            self.splice.finish()
        return True

    def pause_writing(self) -> None:
        """This side reads slowly: slow the other."""
        if self.other is not None and self.other.transport is not None and not self.other.closed:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if self.other is not None and self.other.transport is not None and not self.other.closed:
            self.other.transport.resume_reading()

    def connection_lost(self, error: BaseException | None) -> None:
        """A close is a close, anything else is a reset for the other side."""
        self.closed = True
        self.splice.lost(self, error)


class Splice:
    """One client and its far side."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: Limits, *, on_end: Callable[["Splice"], None], on_first: OnFirst | None = None
    ) -> None:
        """``on_first`` hears once what the client began with; None when it ended before that was known.  Nothing waits for it."""
        self.loop, self.limits = loop, limits
        self.last_moved = loop.time()
        self._on_end, self._on_first = on_end, on_first
        self._sides: tuple[_Side, ...] = ()
        self._finished = False

    async def run(self, client: socket.socket, address: str, port: int) -> Reason:
        """Connect and start; the client's socket is ours from here.  Says GRANTED, or why the far side could not be reached."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        far = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(self.limits.splice_connect_s):
                await self.loop.sock_connect(far, (address, port))
            for sock in (client, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, TimeoutError) as error:
            far.close()
            reset(client)
            self._end()
            return Reason.UPSTREAM_TIMEOUT if isinstance(error, TimeoutError) else Reason.UPSTREAM_UNREACHABLE
        except BaseException:  # cancelled: neither socket may live on
            far.close()
            reset(client)
            raise
        near_side, far_side = _Side(self, client), _Side(self, far)
        near_side.other, far_side.other = far_side, near_side
        near_side.look = FirstBytes(self.limits.hello_bytes) if self._on_first is not None else None
        self._sides = (near_side, far_side)
        self.moved()
        await self.loop.connect_accepted_socket(lambda: far_side, far)
        await self.loop.connect_accepted_socket(lambda: near_side, client)
        return Reason.GRANTED

    def seen(self, found: Hello | NotTls | Malformed | None) -> None:
        """Tell what the client began with."""
        on_first, self._on_first = self._on_first, None
        if on_first is not None:
            on_first(found)

    def moved(self) -> None:
        """Note that bytes moved."""
        self.last_moved = self.loop.time()

    def finish(self) -> None:
        """Both directions have ended: close once all is flushed."""
        for side in self._sides:
            if side.transport is not None and not side.closed:
                side.transport.close()

    def cut(self) -> None:
        """Reset both sides."""
        for side in self._sides:
            if side.transport is not None and not side.closed:
                reset_on_close(side.sock)
                side.transport.abort()

    def lost(self, side: _Side, error: BaseException | None) -> None:
        """One side is gone."""
        other = side.other
        if other is not None and not other.closed and other.transport is not None:
            if error is not None or not side.ended:
                self.cut()
            else:
                other.transport.close()
        if all(s.closed for s in self._sides):
            self._end()

    def _end(self) -> None:
        if not self._finished:
            self._finished = True
            if self._sides:
                self.seen(None)
            self._on_end(self)
