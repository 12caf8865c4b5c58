"""
Verified connections to bound destinations, and the answers that come back on them.

In: a Key, a Destination, addresses; then request bytes from the client's side.  Out: the answer, piece by piece, to the Owner.
A connection is verified for the bound name against the destination's roots before anything is written to it (H2, H16), and carries
requests of one Key only (H6).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from control.binding.decide import network_allowed
from control.binding.model import Destination
from control.errors import Refusal
from control.reason import Reason
from control.wire.framing import Body, CloseBody, FramingError, answer_body
from control.wire.head import AnswerHead, HeadError, read_answer
from control.wire.limits import Limits
from control.wire.pool import Key, Pool
from control.wire.tls_fault import upstream_fault


class Owner(Protocol):
    """The client's side of the request that an upstream connection is busy with."""

    def answer_interim(self, head: AnswerHead) -> None:
        """A 1xx arrived."""

    def answer_began(self, head: AnswerHead, until_close: bool, payload: bytes, done: bool) -> None:
        """The final head arrived, with the first of its body."""

    def answer_continued(self, payload: bytes, done: bool) -> None:
        """More of the body arrived."""

    def upstream_failed(self, refusal: Refusal, *, answered: bool) -> None:
        """The connection is gone or broken; ``answered`` when any byte of an answer had arrived."""

    def upstream_full(self, full: bool) -> None:
        """The destination reads slower than the client writes, or no longer does."""


class Upstream(asyncio.Protocol):
    """One verified connection; serves one request at a time."""

    def __init__(self, key: Key, pools: "Upstreams") -> None:
        self.key = key
        self.reused = False
        self.transport: asyncio.Transport | None = None
        self._pools = pools
        self._limits = pools.limits
        self._owner: Owner | None = None
        self._method = ""
        self._in = b""
        self._body: Body | None = None
        self._interims = 0
        self._heard = False
        """Any byte of an answer to the current request."""
        self._reusable = True
        self._ended = False

    # -- the client's side calls

    def begin(self, owner: Owner, method: str, data: bytes) -> None:
        """Send a request head (and what there is of its body) and give the answer to ``owner``."""
        self._owner, self._method = owner, method
        self._in, self._body, self._heard, self._reusable, self._interims = b"", None, False, True, 0
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        if self.transport is not None:
            self.transport.write(data)

    def hold(self, held: bool) -> None:
        """Stop or go on reading, because the client reads slowly."""
        if self.transport is None or self._ended:
            return
        if held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def release(self, *, whole: bool) -> None:
        """Let go after the answer; ``whole`` when the request had been sent to its end."""
        self._owner = None
        if whole and self._reusable and not self._ended:
            self.reused = True
            if self._pools.keep(self):
                return
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once: what was sent of the request stays incomplete over there."""
        self._owner = None
        self._ended = True
        if self.transport is not None:
            self.transport.abort()

    # -- the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up and verified."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        transport.set_write_buffer_limits(high=self._limits.write_high)  # type: ignore[attr-defined]  # same

    def pause_writing(self) -> None:
        """Too much waits to be sent."""
        if self._owner is not None:
            self._owner.upstream_full(True)

    def resume_writing(self) -> None:
        """It has been sent."""
        if self._owner is not None:
            self._owner.upstream_full(False)

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        if self._owner is None:  # bytes nobody asked for: nothing after them can be trusted to be an answer
            self._pools.forget(self)
            self.abort()
            return
        self._heard = True
        try:
            if self._body is None:
                self._in = self._in + data if self._in else data
                self._read_heads()
            else:
                self._read_body(data)
        except HeadError as error:
            self._fail(Refusal(Reason.UPSTREAM_MALFORMED, f"the destination's answer: {error.detail}"))
        except FramingError as error:
            self._fail(Refusal(Reason.UPSTREAM_MALFORMED, f"the body of the destination's answer: {error}"))

    def eof_received(self) -> bool:
        """The far side will send no more; the connection closes."""
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        """Tell whoever waits."""
        was_ended, self._ended = self._ended, True
        self.transport = None
        self._pools.forget(self)
        if was_ended or self._owner is None:
            return
        if isinstance(self._body, CloseBody) and error is None:
            owner, self._owner = self._owner, None
            self._reusable = False
            owner.answer_continued(b"", True)
            return
        self._fail(Refusal(Reason.UPSTREAM_RESET))

    # -- reading

    def _read_heads(self) -> None:
        """Read interim heads and the final one."""
        while self._owner is not None:
            end = self._in.find(b"\r\n\r\n", 0, self._limits.head_bytes)
            if end < 0:
                if len(self._in) >= self._limits.head_bytes:
                    raise HeadError(f"its head is over the limit of {self._limits.head_bytes} bytes")
                if not b"HTTP/1.".startswith(self._in[:7]):
                    raise HeadError("the first line is not a status line of HTTP/1")
                return
            head = read_answer(self._in[: end + 4], max_fields=self._limits.headers)
            self._in = self._in[end + 4 :]
            if head.status == 101:
                raise HeadError("a change of protocol that was not asked for")
            if head.status < 200:
                self._interims += 1
                if self._interims > self._limits.interim_heads:
                    raise HeadError(f"more than {self._limits.interim_heads} interim heads")
                self._owner.answer_interim(head)
                continue
            self._begin_body(head)
            return

    def _begin_body(self, head: AnswerHead) -> None:
        owner = self._owner
        assert owner is not None  # noqa: S101  # the caller looked
        body = answer_body(head, self._method, line_max=self._limits.chunk_line_bytes, trailer_max=self._limits.trailer_bytes)
        self._reusable = head.keep_alive and not isinstance(body, CloseBody)
        rest, self._in = self._in, b""
        if body is None:
            self._reusable = self._reusable and not rest
            owner.answer_began(head, False, b"", True)
            return
        self._body = body
        took = body.take(rest)
        self._reusable = self._reusable and not took.rest
        owner.answer_began(head, isinstance(body, CloseBody), took.payload, took.done)

    def _read_body(self, data: bytes) -> None:
        body, owner = self._body, self._owner
        assert body is not None and owner is not None  # noqa: S101  # the caller looked
        took = body.take(data)
        self._reusable = self._reusable and not took.rest
        if took.payload or took.done:
            owner.answer_continued(took.payload, took.done)

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """Trailer fields of the answer whose body has ended."""
        return self._body.trailers if self._body is not None else []

    def _fail(self, refusal: Refusal) -> None:
        owner, self._owner = self._owner, None
        self._ended = True
        if self.transport is not None:
            self.transport.abort()
        if owner is not None:
            owner.upstream_failed(refusal, answered=self._heard)


Dialled = Callable[["Upstream | Refusal"], None]


class Upstreams:
    """All upstream connections of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        """Loads the system's roots at once, while the files can still be read."""
        self.loop, self.limits = loop, limits
        self._lookup: Callable[..., Any] = loop.getaddrinfo
        self._pool: Pool[Upstream] = Pool(limits)
        self._contexts: dict[str, ssl.SSLContext] = {"": make_context("")}
        self._dials: set[asyncio.Task[None]] = set()

    def take(self, key: Key, *, fresh: bool) -> Upstream | None:
        """Give an idle connection of exactly this key."""
        while (upstream := self._pool.take(key, self.loop.time(), fresh=fresh)) is not None:
            if upstream.transport is not None and not upstream.transport.is_closing():
                return upstream
        return None

    def keep(self, upstream: Upstream) -> bool:
        """Take a connection back; False when there is no room."""
        return self._pool.put(upstream.key, upstream, self.loop.time())

    def forget(self, upstream: Upstream) -> None:
        """Drop an idle connection that ended."""
        self._pool.drop(upstream.key, upstream)

    def expire(self) -> None:
        """Close what has been idle for too long."""
        for upstream in self._pool.expire(self.loop.time()):
            upstream.abort()

    def close(self) -> None:
        """Close everything idle and give up what is being dialled."""
        for task in tuple(self._dials):
            task.cancel()
        for upstream in self._pool.clear():
            upstream.abort()

    def dial(self, key: Key, destination: Destination, address: str, then: Dialled) -> None:
        """Make a new connection: ``address`` first, then the name's others.  ``then`` is called once, never before this returns."""
        task = self.loop.create_task(self._dial(key, destination, address, then))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, key: Key, destination: Destination, address: str, then: Dialled) -> None:
        try:
            then(await self._first_that_answers(key, destination, address))
        except Exception as error:  # whoever waits must hear of it; the type says what to look for
            then(Refusal(Reason.UPSTREAM_UNREACHABLE, f"{type(error).__name__} while connecting"))
            raise

    async def _first_that_answers(self, key: Key, destination: Destination, address: str) -> Upstream | Refusal:
        if not network_allowed(destination, address):
            return Refusal(Reason.NETWORK_NOT_ALLOWED, f'"{key.host}" was connected at {address}, which its binding does not name')
        refusal = await self._try(key, destination, address)
        if isinstance(refusal, Upstream) or refusal.reason is Reason.UPSTREAM_UNVERIFIED:
            return refusal
        others = [other for other in await self._resolve(key) if other != address and network_allowed(destination, other)]
        for other in others[: self.limits.upstream_addresses - 1]:
            answer = await self._try(key, destination, other)
            if isinstance(answer, Upstream):
                return answer
            refusal = answer
        return refusal

    async def _try(self, key: Key, destination: Destination, address: str) -> Upstream | Refusal:
        limit = self.limits.upstream_connect_s
        upstream = Upstream(key, self)
        try:
            async with asyncio.timeout(limit):
                await self.loop.create_connection(
                    lambda: upstream,
                    host=address,
                    port=key.port,
                    ssl=self._context(destination.upstream_roots),
                    server_hostname=key.host,
                    ssl_handshake_timeout=limit,
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            reason, detail = upstream_fault(error)
            return Refusal(reason, f'"{key.host}" at {address} port {key.port}: {detail}')
        return upstream

    async def _resolve(self, key: Key) -> list[str]:
        try:
            async with asyncio.timeout(self.limits.upstream_connect_s):
                found: list[Any] = await self._lookup(key.host, key.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):
            return []  # the address that was recorded has been tried; its fault is the one to tell
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _context(self, roots: str) -> ssl.SSLContext:
        context = self._contexts.get(roots)
        if context is None:
            context = self._contexts[roots] = make_context(roots)
        return context


def make_context(roots: str) -> ssl.SSLContext:
    """Make a context that verifies: ``roots`` is PEM, or empty for the system's.  There is no way to make one that does not."""
    context = ssl.create_default_context(cadata=roots or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context
