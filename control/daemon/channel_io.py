"""
Typed messages over a SOCK_SEQPACKET Unix socket, with descriptors.

In: an event loop (asyncio or uvloop: both know add_reader), a connected socket, who speaks at the far end and who we are.
Out: ``on_message(message, descriptors)`` for each datagram, ``on_closed(why)`` once.
A datagram that is garbage, too large, truncated or not that speaker's to send closes the channel: our processes do not make mistakes, so
whoever sends one is not ours.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from control.daemon.message import MAX_MESSAGE, Greeted, Message, decode, encode
from control.daemon.socket_io import make_roomy, seqpacket

MAX_FDS = 4
_RECV_PER_WAKE = 64
"""Datagrams read before other work gets its turn."""


QUEUE_MOST = 32 << 20
"""Bytes that may wait for a peer that does not read: a set of a thousand bindings is a tenth of it."""


class Channel:
    """One connected SEQPACKET socket.  Sends never block: what does not fit waits in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        peer: str,
        own: str,
        on_message: Callable[["Channel", Any, list[int]], None],
        on_closed: Callable[["Channel", str], None],
        on_greeted: Callable[["Channel"], None] | None = None,
    ) -> None:
        """``peer`` and ``own`` are roles of message.SPEAKERS.  Descriptors in ``on_message`` belong to the callee."""
        sock.setblocking(False)
        make_roomy(sock)
        self.loop, self.sock, self.peer, self.own = loop, sock, peer, own
        self.worker = 0
        self.closed = False
        self._greeted = False
        self._on_message, self._on_closed, self._on_greeted = on_message, on_closed, on_greeted
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        self._queued = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count(1 if own < peer else 1 << 32)  # both ends may ask: a question must not look like the answer to one of ours
        loop.add_reader(sock.fileno(), self._readable)

    # -- sending

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send or queue ``message``; a closed channel swallows it (on_closed has told).  ``fds`` stay the caller's until it returns."""
        if self.closed:
            return
        raw = encode(message)
        if len(raw) > MAX_MESSAGE:
            raise ValueError(f"message of {len(raw)} bytes to {self.peer} is over the limit of {MAX_MESSAGE}")
        if self._queue:
            self._later(raw, fds)
            return
        try:
            self._send_now(raw, fds)
        except BlockingIOError:
            self._later(raw, fds)
            self.loop.add_writer(self.sock.fileno(), self._writable)
        except OSError as error:
            self.close(f"send: {error.strerror}")

    async def ask(self, make: Callable[[int], Message], timeout_s: float) -> Any:
        """
        Send ``make(call)`` and wait for the message that carries the same ``call``.

        Raises TimeoutError, or ConnectionResetError when the channel closes first.
        """
        if self.closed:
            raise ConnectionResetError(f"the channel to {self.peer} is closed")
        call = next(self._numbers)
        future: asyncio.Future[Any] = self.loop.create_future()
        self._calls[call] = future
        try:
            self.send(make(call))
            return await asyncio.wait_for(future, timeout_s)
        finally:
            self._calls.pop(call, None)

    def _send_now(self, raw: bytes, fds: Sequence[int]) -> None:
        if fds:
            socket.send_fds(self.sock, [raw], list(fds))
        else:
            self.sock.send(raw)

    def _later(self, raw: bytes, fds: Sequence[int]) -> None:
        self._queued += len(raw)
        if self._queued > QUEUE_MOST:
            self.close(f"{self.peer} does not read: {self._queued} bytes wait")
            return
        self._queue.append((raw, [os.dup(fd) for fd in fds]))

    def _writable(self) -> None:
        while self._queue:
            raw, fds = self._queue[0]
            try:
                self._send_now(raw, fds)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"send: {error.strerror}")
                return
            self._queue.popleft()
            self._queued -= len(raw)
            for fd in fds:
                os.close(fd)
        self.loop.remove_writer(self.sock.fileno())

    # -- receiving

    def _readable(self) -> None:
        for _ in range(_RECV_PER_WAKE):
            if self.closed:
                return
            fds = array.array("i")
            try:
                raw, ancillary, flags, _ = self.sock.recvmsg(MAX_MESSAGE + 1, socket.CMSG_SPACE(MAX_FDS * fds.itemsize))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(f"receive: {error.strerror}")
                return
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if not raw:
                self._drop(fds)
                self.close("the far end closed")
                return
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(raw) > MAX_MESSAGE:
                self._drop(fds)
                self.close("a datagram was over the limit")
                return
            try:
                message = decode(self.peer, self.own, raw)
            except msgspec.DecodeError:
                self._drop(fds)
                self.close(f"{self.peer} sent what it may not say")
                return
            self._deliver(message, list(fds))

    def _deliver(self, message: Any, fds: list[int]) -> None:
        if isinstance(message, Greeted):
            self._drop(fds)
            if self._greeted:  # a second one would move what was granted to one worker out of its name
                self.close(f"{self.peer} greeted twice")
                return
            self._greeted, self.worker = True, message.worker
            if self._on_greeted is not None:
                self._on_greeted(self)
            return
        future = self._calls.get(getattr(message, "call", 0))
        if future is not None and not future.done():
            self._drop(fds)
            future.set_result(message)
            return
        self._on_message(self, message, fds)

    @staticmethod
    def _drop(fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)

    # -- the end

    def close(self, why: str = "closed by us") -> None:
        """Close once; waiting calls get ConnectionResetError."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        self.sock.close()
        for _, fds in self._queue:
            self._drop(fds)
        self._queue.clear()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ConnectionResetError(f"the channel to {self.peer} closed: {why}"))
        self._on_closed(self, why)


async def connect(path: Path) -> socket.socket:
    """
    Connect to a SEQPACKET listener.  Raises OSError when nobody listens or its queue is full.

    Not loop.sock_connect(): a Unix socket's connect() never goes on in the background, EAGAIN means that the queue is full (connect(2)),
    and the loop would take the socket for a connected one.
    """
    sock = seqpacket()
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock
