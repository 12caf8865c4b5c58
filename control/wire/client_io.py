"""
The client's side of a terminated connection: reads requests, has each decided and signed, and passes it on.

In: decrypted bytes of the client, the Grant of its connection, the name in its hello.  Out: answers; Notes for the audit.
Each request is decided anew (H5): the agent alive? same process, same program (the kernel's live answer)? Host the name of the hello?
method and path in the binding?  Right before the signed head leaves, agent and kernel are asked again.  A table says which step may
follow which; whatever arrives at the wrong step ends the connection.
A request of a binding in mode observe, and one that keys passes for want of a credential, go out as the client made them.
"""

import asyncio
import base64
import hashlib
import socket
from collections.abc import Callable, Hashable
from enum import Enum, auto

from control.binding.decide import Table
from control.binding.model import Asked, Destination
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import BODY_HASH_WANTED
from control.wire.ask import Denied, Grant, Note, Services, Signed
from control.wire.dialect import dialect, dialect_of_bytes
from control.wire.framing import FramingError, end_chunks, wrap_chunk
from control.wire.head import AnswerHead, HeadError, partial_fault, read_request
from control.wire.pool import Key
from control.wire.refuse import refusal_answer, status_of
from control.wire.rewrite import (
    BadSignature,
    as_headers,
    forwarded_fields,
    sent_target,
    sign_fields,
    with_body_hash,
    write_answer,
    write_request,
)  # fmt: skip
from control.wire.splice_io import reset_on_close
from control.wire.tcp_io import has_left
from control.wire.tls_fault import silent_fault
from control.wire.turn import SENT_TWICE, BodyHashMismatch, Turn, host_fault
from control.wire.upstream_io import Upstream, Upstreams


class Step(Enum):
    """Where a connection stands."""

    HEAD = auto()
    """Waits for a request."""
    HOLD = auto()
    """Gathers a body whose hash must be signed."""
    SIGN = auto()
    """Waits for keys."""
    DIAL = auto()
    """Waits for a connection to the destination."""
    SEND = auto()
    """The request is going out; the answer may be coming in."""
    LINGER = auto()
    """The last answer is out; what still arrives is thrown away."""
    OVER = auto()


_NEXT = {
    Step.HEAD: {Step.HEAD, Step.HOLD, Step.SIGN, Step.DIAL, Step.SEND, Step.LINGER, Step.OVER},
    Step.HOLD: {Step.SIGN, Step.HEAD, Step.LINGER, Step.OVER},
    Step.SIGN: {Step.HOLD, Step.DIAL, Step.SEND, Step.HEAD, Step.LINGER, Step.OVER},
    Step.DIAL: {Step.SEND, Step.HEAD, Step.LINGER, Step.OVER},
    Step.SEND: {Step.DIAL, Step.SEND, Step.HEAD, Step.LINGER, Step.OVER},
    Step.LINGER: {Step.OVER},
    Step.OVER: set(),
}

_BY_INBOX = 1
_BY_UPSTREAM = 2
"""Why reading from the client is held."""

_PASSED = "sent as the client made it: there is no credential, and the binding says passthrough"
_OBSERVED = "sent as the client made it: the binding is in mode observe"


class Client(asyncio.Protocol):
    """One terminated connection."""

    def __init__(
        self,
        services: Services,
        upstreams: Upstreams,
        grant: Grant,
        *,
        table: Table,
        observed: frozenset[str],
        host: str,
        sock: socket.socket,
        process: Hashable,
        still: Callable[[socket.socket], Reason],
        on_end: Callable[["Client"], None],
    ) -> None:
        """
        Wait for requests.

        ``table`` holds the destinations of both modes, ``observed`` names the bindings in mode observe; ``host`` is the bound name of the
        hello, ``process`` whoever opened the connection, ``still`` asks the kernel whether the owner of ``sock`` is still who it was.
        """
        self.grant = grant
        self._services, self._upstreams = services, upstreams
        self._limits = services.limits
        self._table, self._observed, self._host, self._still, self._on_end = table, observed, host, still, on_end
        self._host_line = host if grant.port == 443 else f"{host}:{grant.port}"
        self._destinations: dict[str, Destination] = {}
        self._sock, self._process = sock, process
        self._transport: asyncio.Transport | None = None
        self._step = Step.HEAD
        self._in = b""
        self._turn: Turn | None = None
        self._upstream: Upstream | None = None
        self._held = 0
        self._slow = False
        """The client does not read what we write."""
        self._busy = False
        """_advance is running further up the stack."""
        self._made_at = services.now()
        self._heard = False
        """Any byte of a request."""
        self.deadline = services.now() + services.limits.idle_s
        grant.on_withdrawn = self._withdrawn

    # -- the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        self._made_at = self._services.now()
        transport.set_write_buffer_limits(high=self._limits.write_high)  # type: ignore[attr-defined]  # same
        if self.grant.withdrawn is not Reason.GRANTED:
            self._withdrawn(self.grant.withdrawn)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._step is Step.LINGER or self._step is Step.OVER:
            return
        if not self._heard:
            self._heard = True
            self._services.trusted(self._process, self._host)
        self._in = self._in + data if self._in else data
        self._advance()

    def eof_received(self) -> bool:
        """The client closed: TLS has no half-close that anybody uses."""
        return False

    def pause_writing(self) -> None:
        """The client reads slowly: slow the destination."""
        self._slow = True
        if self._upstream is not None:
            self._upstream.hold(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._slow = False
        if self._upstream is not None:
            self._upstream.hold(False)

    def connection_lost(self, error: BaseException | None) -> None:
        """The client is gone: whatever is under way is dropped, never completed on its behalf."""
        self._transport = None
        if not self._heard and self._step is Step.HEAD:
            self._note_silent(error)
        turn = self._turn
        if turn is not None and not turn.answer_done:
            reason = Reason.REQUEST_BODY_INCOMPLETE if not turn.body_done else Reason.GRANTED
            self._note(turn, "request-refused" if reason is not Reason.GRANTED else "request-answered", reason, "the client left")
        self._end()

    # -- time

    def look_at_clock(self, now: float) -> None:
        """End what takes too long; called every limits.tick_s."""
        if now < self.deadline:
            return
        step, turn = self._step, self._turn
        if step is Step.LINGER or (step is Step.HEAD and not self._in):
            self._close()
        elif step is Step.HEAD:
            self._refuse_head(Refusal(Reason.REQUEST_TIMEOUT), 408, self._in)
        elif turn is None:
            self._cut()
        elif step is Step.SIGN:
            self._refuse(turn, Refusal(Reason.KEYS_UNAVAILABLE, "the keys process did not answer in time"))
        elif turn.answering:
            self._note(turn, "request-refused", Reason.UPSTREAM_TIMEOUT, "the answer came to a halt")
            self._cut()
        elif not turn.body_done and not self._held & _BY_UPSTREAM:
            self._refuse(turn, Refusal(Reason.REQUEST_TIMEOUT, "the body came to a halt"))
        else:
            self._refuse(turn, Refusal(Reason.UPSTREAM_TIMEOUT))

    def _wait(self, seconds: float) -> None:
        self.deadline = self._services.now() + seconds

    # -- reading requests

    def _advance(self) -> None:
        """Use what is in the inbox as far as the step allows; pipelined requests take their turns here."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._in and self._take():
                pass
        finally:
            self._busy = False
        self._hold_reading(_BY_INBOX, len(self._in) > self._limits.inbox_bytes)

    def _take(self) -> bool:
        """Take one step with the inbox; whether another may follow at once."""
        if self._step is Step.HEAD:
            return self._take_head()
        if self._step is Step.HOLD:
            return self._take_held_body()
        if self._step is Step.SEND and self._turn is not None and not self._turn.body_done:
            return self._take_body()
        return False

    def _take_head(self) -> bool:
        raw = self._in
        end = raw.find(b"\r\n\r\n", 0, self._limits.head_bytes)
        if end < 0:
            if fault := partial_fault(raw[: self._limits.head_bytes]):
                self._refuse_head(Refusal(Reason.REQUEST_MALFORMED, fault), 400, raw)
            elif len(raw) >= self._limits.head_bytes:
                refusal = Refusal(Reason.REQUEST_HEAD_TOO_LARGE, f"the head is over the limit of {self._limits.head_bytes} bytes")
                self._refuse_head(refusal, 431, raw)
            elif self.deadline > self._services.now() + self._limits.head_s:
                self._wait(self._limits.head_s)
            return False
        self._in = raw[end + 4 :]
        try:
            head = read_request(raw[: end + 4], max_fields=self._limits.headers, max_target=self._limits.target_bytes)
        except HeadError as error:
            self._refuse_head(Refusal(error.reason, error.detail), error.status, raw)
            return False
        asked = Asked(self._host, self.grant.port, head.method, head.path)
        turn = Turn(self._services.new_id(), head, asked, self._limits)
        self._turn = turn
        if (no := self._decide(turn)) is not None:
            self._refuse(turn, no)
            return self._step is Step.HEAD
        if turn.passed:
            self._pass(turn)
        else:
            turn.fields = forwarded_fields(head, self._host_line)
            self._ask_keys(turn)
        return False

    def _decide(self, turn: Turn) -> Refusal | None:
        """Say why the request may not go on; sets its binding, and whether it goes without a credential."""
        if (reason := self._reason_now()) is not Reason.GRANTED:
            turn.close = True
            return Refusal(reason)
        if (refusal := host_fault(turn.head, self._host, self.grant.port)) is not None:
            turn.close = True
            return refusal
        decision = self._table.decide(turn.asked)
        turn.binding = decision.binding
        if decision.binding in self._observed and decision.reason in (Reason.GRANTED, Reason.METHOD_NOT_ALLOWED):
            turn.passed = _OBSERVED  # its methods would refuse, were it to enforce
        elif not decision.granted:
            return Refusal(decision.reason, decision.detail)
        turn.destination = self._destination_of(decision.binding)
        if turn.destination is None:
            return Refusal(Reason.DESTINATION_UNKNOWN)
        return None

    def _reason_now(self) -> Reason:
        """Ask everybody who may say no: the agent's withdrawal, its heartbeat, the kernel."""
        if self.grant.withdrawn is not Reason.GRANTED:
            return self.grant.withdrawn
        if (reason := self._services.may_inject()) is not Reason.GRANTED:
            return reason
        return self._still(self._sock)

    def _destination_of(self, binding: str) -> Destination | None:
        """Find the destination of ``binding`` that names our host; its networks and roots hold for the connection."""
        found = self._destinations.get(binding)
        if found is None:
            observed = binding in self._observed  # the name is terminated for a binding that enforces: its networks and roots hold
            own = Table(pair for pair in self.grant.destinations if observed or pair[0] == binding).find(self._host, self.grant.port)
            if own is None:
                return None
            found = self._destinations[binding] = own[1]
        return found

    # -- signing

    def _ask_keys(self, turn: Turn) -> None:
        self._go(Step.SIGN)
        self._wait(self._limits.sign_s)

        def signed(answer: Signed | Denied) -> None:
            if self._turn is turn and self._step is Step.SIGN:
                self._keys_answered(turn, answer)

        self._services.sign(
            self.grant, turn.asked, binding=turn.binding, target=turn.head.target, headers=as_headers(turn.fields), then=signed
        )

    def _keys_answered(self, turn: Turn, answer: Signed | Denied) -> None:
        if isinstance(answer, Denied):
            if answer.refusal.detail == BODY_HASH_WANTED and turn.held is None:
                self._hold_body(turn)
            else:
                self._refuse(turn, answer.refusal, refusal_id=answer.id)
            return
        length = None if turn.chunked else turn.head.length if turn.held is None else len(turn.held)
        try:
            if answer.passed:
                if answer.remove or answer.set or answer.target or answer.body_sha256:
                    raise BadSignature("keys passed a request and signed it")  # noqa: TRY301  # one place says what cannot be used
                turn.passed = _PASSED
                self._pass(turn)
                return
            target = sent_target(turn.head, answer)
            turn.own = answer.target.replace("?", "&").rpartition("&")[2]
            fields = sign_fields(turn.fields, answer, length)
            if turn.head.chunked:
                turn.gone = frozenset(name.lower().replace("_", "-") for name in (*answer.remove, *(name for name, _ in answer.set)))
            if answer.body_sha256:
                turn.expect_hash(answer.body_sha256)
        except (BadSignature, ValueError) as error:
            self._refuse(turn, Refusal(Reason.KEYS_UNAVAILABLE, f"the keys process answered what cannot be used: {error}"))
            return
        turn.signed_head = write_request(turn.head.method, target, fields, chunked=turn.chunked)
        self._find_upstream(turn)

    def _pass(self, turn: Turn) -> None:
        """Let the request go as the client made it: its own Host, its own placeholder, its own framing."""
        head = turn.head
        fields = forwarded_fields(head, head.host)
        if turn.held is not None:  # the client has had its 100 already
            fields = [field for field in fields if field[0].lower() != "expect"]
        turn.chunked = head.chunked
        turn.signed_head = write_request(head.method, head.target, fields, chunked=head.chunked)
        self._find_upstream(turn)

    def _hold_body(self, turn: Turn) -> None:
        """Gather the body, because its hash must be signed and the client did not announce one."""
        if turn.head.length > self._limits.buffered_body_bytes:
            self._refuse(turn, self._too_large())
            return
        turn.held = bytearray()
        self._go(Step.HOLD)
        if turn.body is None:
            self._body_held(turn)
            return
        self._wait(self._limits.body_idle_s)
        if turn.head.expects and not self._in and self._transport is not None:
            # the far side cannot be asked first: without the hash there is nothing to send it
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._advance()

    def _too_large(self) -> Refusal:
        return Refusal(Reason.REQUEST_BODY_TOO_LARGE, f"a body over {self._limits.buffered_body_bytes} bytes came without its hash")

    def _take_held_body(self) -> bool:
        turn = self._turn
        assert turn is not None and turn.body is not None and turn.held is not None  # noqa: S101  # step HOLD
        data, self._in = self._in, b""
        try:
            took = turn.body.take(data)
        except FramingError as error:
            self._refuse(turn, Refusal(Reason.REQUEST_MALFORMED, f"the body: {error}"))
            return False
        self._in = took.rest
        turn.held += took.payload
        self._wait(self._limits.body_idle_s)
        if len(turn.held) > self._limits.buffered_body_bytes:
            self._refuse(turn, self._too_large())
        elif took.done:
            self._body_held(turn)
        return False

    def _body_held(self, turn: Turn) -> None:
        assert turn.held is not None  # noqa: S101  # the caller made it
        turn.body_done = True
        turn.chunked = False
        digest = base64.b64encode(hashlib.sha256(turn.held).digest()).decode()
        turn.fields = with_body_hash(turn.fields, digest, len(turn.held))
        self._ask_keys(turn)

    # -- sending

    def _find_upstream(self, turn: Turn) -> None:
        key = Key(turn.binding, self.grant.identity, self._host, self.grant.port, self.grant.revision, not turn.passed)
        upstream = None if turn.retried else self._upstreams.take(key, fresh=turn.head.method not in SENT_TWICE)
        if upstream is not None:
            self._send(turn, upstream)
            return
        self._go(Step.DIAL)
        self._wait(self._limits.upstream_connect_s * (self._limits.upstream_addresses + 2))
        assert turn.destination is not None  # noqa: S101  # _decide found it

        def dialled(answer: Upstream | Refusal) -> None:
            if self._turn is not turn or self._step is not Step.DIAL:
                if isinstance(answer, Upstream):
                    answer.release(whole=True)
            elif isinstance(answer, Upstream):
                self._send(turn, answer)
            else:
                self._refuse(turn, answer)

        self._upstreams.dial(key, turn.destination, self.grant.peer, dialled)

    def _send(self, turn: Turn, upstream: Upstream) -> None:
        """Ask once more, then let the signed head go, with as much of the body as is here."""
        reason = self._reason_now()
        if reason is not Reason.GRANTED:
            upstream.release(whole=True)
            turn.close = True
            self._refuse(turn, Refusal(reason))
            return
        data = turn.signed_head
        try:
            if turn.held is not None:
                held = bytes(turn.held)
                turn.check(held, True)
                data += turn.frame(held, True)
            elif not turn.body_done and self._in:
                data += self._next_of_body(turn)
            elif turn.body_done:
                turn.check(b"", True)
        except (BodyHashMismatch, FramingError) as error:
            upstream.release(whole=True)
            self._refuse(turn, _body_refusal(error))
            return
        self._go(Step.SEND)
        self._wait(self._limits.answer_s if turn.body_done else self._limits.body_idle_s)
        self._upstream = upstream
        turn.sent = True
        if self._slow:
            upstream.hold(True)
        upstream.begin(self, turn.head.method, data)
        self._advance()

    def _next_of_body(self, turn: Turn) -> bytes:
        """Take the inbox as body.  Raises FramingError or BodyHashMismatch."""
        assert turn.body is not None  # noqa: S101  # the caller looked at body_done
        data, self._in = self._in, b""
        took = turn.body.take(data)
        self._in = took.rest
        turn.body_done = took.done
        turn.check(took.payload, took.done)
        return turn.frame(took.payload, took.done)

    def _take_body(self) -> bool:
        turn, upstream = self._turn, self._upstream
        assert turn is not None and upstream is not None  # noqa: S101  # step SEND
        try:
            data = self._next_of_body(turn)
        except (BodyHashMismatch, FramingError) as error:
            self._refuse(turn, _body_refusal(error))
            return False
        if data:
            upstream.write(data)
        self._wait(self._limits.answer_s if turn.body_done else self._limits.body_idle_s)
        if turn.body_done and turn.answer_done:
            self._finish(turn)
            return self._step is Step.HEAD
        return False

    def upstream_full(self, full: bool) -> None:
        """The destination reads slowly: slow the client."""
        self._hold_reading(_BY_UPSTREAM, full)
        if not full and self._turn is not None:
            self._wait(self._limits.answer_s if self._turn.body_done else self._limits.body_idle_s)

    # -- answers

    def answer_interim(self, head: AnswerHead) -> None:
        """Relay a 100 or another 1xx."""
        if self._transport is not None:
            self._transport.write(write_answer(head, chunked=False, close=False, own=self._turn.own if self._turn is not None else ""))

    def answer_began(self, head: AnswerHead, until_close: bool, payload: bytes, done: bool) -> None:
        """Relay the head, framed for this connection."""
        turn = self._turn
        if turn is None or self._transport is None:
            return
        turn.answering, turn.status = True, head.status
        if until_close or not turn.body_done:
            turn.close = True
        turn.answer_chunked = head.chunked and turn.head.method != "HEAD" and head.status not in (204, 304)
        data = write_answer(head, chunked=turn.answer_chunked, close=turn.close, own=turn.own)
        self._transport.write(data + self._framed(turn, payload, done))
        self._answered(turn, done)

    def answer_continued(self, payload: bytes, done: bool) -> None:
        """Relay more of the body."""
        turn = self._turn
        if turn is None or self._transport is None:
            return
        data = self._framed(turn, payload, done)
        if data:
            self._transport.write(data)
        self._answered(turn, done)

    def _framed(self, turn: Turn, payload: bytes, done: bool) -> bytes:
        if not turn.answer_chunked:
            return payload
        if not done:
            return wrap_chunk(payload)
        return wrap_chunk(payload) + end_chunks(self._upstream.trailers if self._upstream is not None else [])

    def _answered(self, turn: Turn, done: bool) -> None:
        if done:
            turn.answer_done = True
            self._finish(turn)
        else:
            self._wait(self._limits.body_idle_s)

    def _finish(self, turn: Turn) -> None:
        """The answer is out: give the upstream connection back, go on or close."""
        self._drop_upstream(whole=turn.body_done)
        self._note(turn, "request-answered", Reason.GRANTED, turn.passed)
        self._turn = None
        self._after_answer(close=turn.close, unread=not turn.body_done)

    def _after_answer(self, *, close: bool, unread: bool) -> None:
        """Wait for the next request, or close; ``unread`` bytes are thrown away first, because closing on them would reset the answer."""
        if not close:
            self._go(Step.HEAD)
            self._wait(self._limits.idle_s)
            self._advance()
        elif unread:
            self._in = b""
            self._go(Step.LINGER)
            self._hold_reading(_BY_INBOX | _BY_UPSTREAM, False)
            self._wait(self._limits.linger_s)
        else:
            self._close()

    def upstream_failed(self, refusal: Refusal, *, answered: bool) -> None:
        """The destination's connection is gone: try once more where that is safe, else say so."""
        turn, upstream = self._turn, self._upstream
        self._drop_upstream(whole=False)
        if turn is None:
            return
        if upstream is not None and upstream.reused and not answered and turn.repeatable:
            turn.retried = True
            self._find_upstream(turn)
            return
        self._refuse(turn, refusal)

    # -- refusing

    def _refuse(self, turn: Turn, refusal: Refusal, *, refusal_id: str = "") -> None:
        """Answer no; where an answer has begun, a reset is the only honest end."""
        self._drop_upstream(whole=False)
        turn.answer_done = True
        turn.id = refusal_id or turn.id
        if self._transport is None:
            return
        if turn.answering:
            self._note(turn, "request-refused", refusal.reason, refusal.detail)
            self._cut()
            return
        unread = not turn.body_done
        close = turn.close or unread
        turn.status = status_of(refusal.reason)
        to = dialect(turn.head.fields, turn.head.target, self._host)
        data = refusal_answer(
            turn.id, refusal, status=turn.status, close=close, method=turn.head.method, to=to, identity=self.grant.identity
        )
        self._note(turn, "request-refused", refusal.reason, refusal.detail)
        self._transport.write(data)
        self._turn = None
        self._after_answer(close=close, unread=unread)

    def _refuse_head(self, refusal: Refusal, status: int, raw: bytes) -> None:
        """Answer no to bytes that are no request; nothing after them can be trusted to be one."""
        refusal_id = self._services.new_id()
        method = raw[:32].decode("latin-1").partition(" ")[0]
        note = Note(
            refusal_id, "request-refused", refusal.reason, self.grant.id, "", self._host, self.grant.port, "", "", status, refusal.detail
        )
        self._services.note(note)
        if self._transport is not None:
            to = dialect_of_bytes(raw, self._host)
            identity = self.grant.identity
            self._transport.write(refusal_answer(refusal_id, refusal, status=status, close=True, method=method, to=to, identity=identity))
        self._after_answer(close=True, unread=True)

    def _withdrawn(self, reason: Reason) -> None:
        """The agent took the grant back: nothing more, also in the middle."""
        turn = self._turn
        if self._step is Step.OVER or self._transport is None:
            return
        if turn is not None and not turn.answer_done:
            turn.close = True
            self._refuse(turn, Refusal(reason))
        elif self._step is Step.HEAD and not self._in:
            if reason is Reason.PROCESS_CHANGED and not self._heard and has_left(self._sock):
                self._note_silent(None)  # it left and ended, and the agent heard of the end before we read of the leaving
            self._close()
        else:
            self._cut()

    # -- small

    def _note_silent(self, error: BaseException | None) -> None:
        """Tell of a client that left after the handshake, if that means that it does not trust us."""
        services, grant = self._services, self.grant
        trusted = services.was_trusted(self._process, self._host)
        detail = silent_fault(error, within_s=services.now() - self._made_at, limit_s=self._limits.distrust_s, trusted=trusted)
        if detail is not None:
            place = Table(grant.destinations).find(self._host, grant.port)
            binding, reason = place[0] if place else "", Reason.CLIENT_DOES_NOT_TRUST_CA
            services.note(Note(services.new_id(), "connection-failed", reason, grant.id, binding, self._host, grant.port, detail=detail))

    def _note(self, turn: Turn, event: str, reason: Reason, detail: str = "") -> None:
        asked = turn.asked
        self._services.note(
            Note(turn.id, event, reason, self.grant.id, turn.binding, asked.host, asked.port, asked.method, asked.path, turn.status, detail)
        )

    def _go(self, step: Step) -> None:
        if step not in _NEXT[self._step]:
            raise RuntimeError(f"{self._step.name} cannot become {step.name}")
        self._step = step

    def _drop_upstream(self, *, whole: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self._slow and whole:
            upstream.hold(False)
        upstream.release(whole=whole)
        self._hold_reading(_BY_UPSTREAM, False)

    def _hold_reading(self, why: int, hold: bool) -> None:
        """Hold or let go of reading for one reason; the socket is read when there is none."""
        before = self._held
        self._held = before | why if hold else before & ~why
        if self._transport is None or bool(before) == bool(self._held):
            return
        if self._held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self._step is Step.OVER

    def close_if_idle(self) -> bool:
        """Close between two requests; whether it was."""
        if self._step is Step.HEAD and not self._in:
            self._close()
            return True
        return False

    def _close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()
        self._end()

    def _cut(self) -> None:
        """Reset."""
        if self._transport is not None:
            reset_on_close(self._sock)
            self._transport.abort()
        self._end()

    def cut(self) -> None:
        """Reset, whatever is under way."""
        self._cut()

    def _end(self) -> None:
        if self._step is Step.OVER:
            return
        self._step = Step.OVER
        self._drop_upstream(whole=False)
        self.grant.on_withdrawn = None
        self._turn, self._in = None, b""
        self._on_end(self)


def _body_refusal(error: BodyHashMismatch | FramingError) -> Refusal:
    if isinstance(error, BodyHashMismatch):
        return Refusal(Reason.BODY_HASH_MISMATCH)
    return Refusal(Reason.REQUEST_MALFORMED, f"the body: {error}")
