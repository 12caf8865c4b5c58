"""
One proxy worker: takes the connections of bound processes, and puts credentials on what may bear them.

In: one JSON argument (ProxySetup) and, inherited, the listeners and the beat pipe; the sockets of agent and keys.
Out: answers to clients, requests to verified destinations, notes for the audit.
It believes nothing about a connection that the agent did not say, holds no key but its leaves', and signs nothing: keys does, per request.
While agent or keys is away, connections are refused with the reason and nothing is injected; it reconnects by itself.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Hashable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from bpf.abi import KernelReason
from bpf.record_io import NoRecord, read_answer
from control.binding.decide import Table
from control.binding.model import Asked
from control.daemon import message as m
from control.daemon.beat_io import beat
from control.daemon.channel_io import Channel, connect
from control.daemon.confine_io import confine
from control.daemon.id_io import new_id
from control.daemon.log_io import log
from control.errors import Refusal
from control.reason import Reason
from control.wire.ask import Denied, Grant, Headers, Note, Signed, SignedThen
from control.wire.client_io import Client
from control.wire.hello import Hello, Malformed, NotTls
from control.wire.hello_io import Gone, Silent, peek_hello
from control.wire.leaf_io import LeafKey, LeafName, Leaves
from control.wire.limits import DEFAULT, Limits
from control.wire.refuse import tls_alert
from control.wire.splice_io import OnFirst, Splice, reset
from control.wire.tcp_io import has_ended, read_all_and_ended
from control.wire.tls_fault import client_fault
from control.wire.upstream_io import Upstreams

_SPEAKER = "proxy"
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5)
"""Waits before reconnecting to agent or keys; the last one repeats.  A restarted process is back within a second."""
_ACCEPTED_PER_WAKE = 32
_FULL_PAUSE_S = 0.1
"""Rest after EMFILE: the next accept would fail in the same way."""
_STOP_S = 2.0
"""Grace for requests under way at SIGTERM."""

_TRUSTED_MOST = 4096
"""(process, name) pairs that are known to trust us; the oldest goes first."""

Answered = Callable[[Any], None]


class Reach(NamedTuple):
    """What an identity's connections may be for."""

    table: Table
    """Destinations of both modes: the most specific wins, whatever its mode."""
    observed: frozenset[str]
    """Bindings in mode observe."""
    ports: frozenset[int]
    """Ports at which something is enforced."""

    def bound(self, name: str, port: int) -> tuple[str, bool] | None:
        """
        Find the binding of a name, and whether it enforces; None where no binding names it.

        A name at which both modes have paths is terminated: which of them a request belongs to is only known then.
        """
        place = self.table.at(name, port) if name else None
        if place is None:
            return None
        enforcing = next((row.binding for row in place.rows if row.binding not in self.observed), None)
        return (place.rows[0].binding, False) if enforcing is None else (enforcing, True)


def _reach(grant: Grant) -> Reach:
    ports = frozenset(port for _, destination in grant.destinations for port in destination.ports)
    return Reach(Table((*grant.destinations, *grant.observed)), frozenset(name for name, _ in grant.observed), ports)


class ProxySetup(msgspec.Struct, frozen=True):
    """What the supervisor tells; other fields of the common part are none of ours."""

    run: str
    worker: int
    listeners: list[int]
    beat_fd: int
    uids: dict[str, int]
    stale_s: float = 2.0
    """Seconds without a beat of the agent after which nothing is injected."""


class Calls:
    """Questions on one channel that wait for their answers; a callback each, no task and no future."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._numbers = count(1)
        self._waiting: dict[int, tuple[float, Answered]] = {}

    def new(self, deadline: float, then: Answered) -> int:
        """Give the number of a question; ``then`` gets its answer, or None when it does not come."""
        number = next(self._numbers)
        self._waiting[number] = (deadline, then)
        return number

    def answer(self, message: Any) -> bool:
        """Hand an answer to whoever asked; False when nobody waits for it any more."""
        waiting = self._waiting.pop(message.call, None)
        if waiting is None:
            return False
        waiting[1](message)
        return True

    def expire(self, now: float) -> None:
        """Give up what is overdue."""
        for number in [n for n, (deadline, _) in self._waiting.items() if now >= deadline]:
            self._waiting.pop(number)[1](None)

    def fail(self) -> None:
        """The channel is gone: nobody will answer."""
        waiting, self._waiting = self._waiting, {}
        for _, then in waiting.values():
            then(None)


class Proxy:
    """One worker.  Implements wire.ask.Services."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        run: Path,
        worker: int,
        still: Callable[[socket.socket], Reason],
        opener: Callable[[socket.socket], Hashable],
        limits: Limits = DEFAULT,
        stale_s: float = 2.0,
    ) -> None:
        """``opener`` asks the kernel who opened an accepted socket's connection, ``still`` whether that is still who it was."""
        self.loop, self.limits = loop, limits
        self._run, self._worker, self._still, self._opener, self._stale_s = run, worker, still, opener, stale_s
        self.agent: Channel | None = None
        self.keys: Channel | None = None
        self._agent_beat = float("-inf")
        self._agent_calls, self._keys_calls = Calls(limits), Calls(limits)
        self._grants: dict[str, Grant] = {}
        self._reaches: dict[tuple[str, int], Reach] = {}
        self._trusted: dict[tuple[Hashable, str], None] = {}
        self._clients: set[Client] = set()
        self._splices: set[Splice] = set()
        self._leaves = Leaves(limits)
        self._minting: dict[LeafName, asyncio.Future[Any]] = {}
        self._upstreams = Upstreams(loop, limits)
        self._open = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listeners: list[socket.socket] = []
        self._stopping = False
        self.now = loop.time

    # -- life

    def start(self, listeners: list[socket.socket]) -> None:
        """Begin to accept, to keep in touch and to look at the clock."""
        self._listeners = listeners
        self.spawn(self._keep_in_touch("agent"))
        self.spawn(self._keep_in_touch("keys"))
        for listener in listeners:
            listener.setblocking(False)
            self.loop.add_reader(listener.fileno(), self._accept, listener)
        self._tick()

    async def stop(self, grace_s: float = _STOP_S) -> None:
        """Accept no more, let requests under way end for a while, then cut."""
        self._stopping = True
        for listener in self._listeners:
            self.loop.remove_reader(listener.fileno())
        end = self.now() + grace_s
        while self.now() < end:
            for client in tuple(self._clients):
                client.close_if_idle()
            if not self._clients:
                break
            await asyncio.sleep(0.02)
        for client in tuple(self._clients):
            client.cut()
        for splice in tuple(self._splices):
            splice.cut()
        self._upstreams.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in (self.agent, self.keys):
            if channel is not None:
                channel.close("the worker ends")

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine beside the rest; what it raises is logged, never lost."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log(_SPEAKER, "task-failed", worker=self._worker, error=type(error).__name__, detail=str(error))

    def _tick(self) -> None:
        """Look at every time limit."""
        if self._stopping:
            return
        now = self.now()
        for client in tuple(self._clients):
            client.look_at_clock(now)
        for splice in tuple(self._splices):
            if now - splice.last_moved > self.limits.splice_idle_s:
                splice.cut()
        self._agent_calls.expire(now)
        self._keys_calls.expire(now)
        self._upstreams.expire()
        self.loop.call_later(self.limits.tick_s, self._tick)

    # -- agent and keys

    async def _keep_in_touch(self, peer: str) -> None:
        """Stay connected to ``peer``; its socket outlives it, so a restart is only a wait."""
        failures = 0
        while not self._stopping:
            closed: asyncio.Future[str] = self.loop.create_future()
            try:
                sock = await connect(self._run / f"{peer}.sock")
            except OSError:
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                continue
            failures = 0
            channel = Channel(
                self.loop,
                sock,
                peer=peer,
                own="proxy",
                on_message=self._agent_said if peer == "agent" else self._keys_said,
                on_closed=lambda _, why, closed=closed: None if closed.done() else closed.set_result(why),  # type: ignore[misc]  # default binds it
            )
            channel.send(m.Greeted("proxy", self._worker))
            if peer == "agent":
                self.agent, self._agent_beat = channel, float("-inf")
            else:
                self.keys = channel
            why = await closed
            log(_SPEAKER, "channel-closed", worker=self._worker, peer=peer, why=why)
            self._lost(peer)
            await asyncio.sleep(_BACKOFF_S[0])

    def _lost(self, peer: str) -> None:
        if peer == "agent":
            self.agent, self._agent_beat = None, float("-inf")
            self._agent_calls.fail()
            # the next agent will not know these grants: what is under way ends, nothing more is signed under them
            for grant in tuple(self._grants.values()):
                if grant.withdrawn is Reason.GRANTED:
                    grant.withdrawn = Reason.DAEMON_DOWN
        else:
            self.keys = None
            self._keys_calls.fail()

    def may_inject(self) -> Reason:
        """Say whether agent and keys are there and alive."""
        if self.agent is None or self.now() - self._agent_beat > self._stale_s:
            return Reason.DAEMON_DOWN
        return Reason.GRANTED if self.keys is not None else Reason.KEYS_UNAVAILABLE

    def _agent_said(self, channel: Channel, message: Any, fds: list[int]) -> None:
        for fd in fds:  # the agent sends none
            os.close(fd)
        match message:
            case m.Beat():
                self._agent_beat = self.now()
            case m.ConnectionGranted():
                if not self._agent_calls.answer(message):
                    channel.send(m.ConnectionClosed(message.grant))
            case m.GrantWithdrawn():
                self._withdraw(message)
            case m.ConnectionPassed():
                if not self._agent_calls.answer(message) and message.grant:
                    channel.send(m.ConnectionClosed(message.grant))
            case m.Refused():
                self._agent_calls.answer(message)

    def _withdraw(self, message: m.GrantWithdrawn) -> None:
        grant = self._grants.get(message.grant)
        if grant is None:
            return
        grant.withdrawn = message.reason if message.reason is not Reason.GRANTED else Reason.REVOKED
        if grant.on_withdrawn is not None:
            grant.on_withdrawn(grant.withdrawn)

    def _keys_said(self, _: Channel, message: Any, fds: list[int]) -> None:
        for fd in fds:  # keys sends none
            os.close(fd)
        self._keys_calls.answer(message)

    # -- wire.ask.Services

    def new_id(self) -> str:
        """Give an id for a refusal or an audit line."""
        return new_id()

    def sign(self, grant: Grant, asked: Asked, *, binding: str, target: str, headers: Headers, then: SignedThen) -> None:
        """Ask keys to sign; ``then`` is called once, never before this returns."""
        keys = self.keys
        if keys is None:
            self.loop.call_soon(then, Denied(new_id(), Refusal(Reason.KEYS_UNAVAILABLE)))
            return

        def answered(message: Any) -> None:
            match message:
                case m.RequestSigned():
                    then(Signed(message.remove, message.set, message.body_sha256, message.target, message.passed))
                case m.Refused():
                    then(Denied(message.id, Refusal(message.reason, message.detail, message.hint)))
                case _:
                    then(Denied(new_id(), Refusal(Reason.KEYS_UNAVAILABLE)))

        call = self._keys_calls.new(self.now() + self.limits.sign_s, answered)
        keys.send(m.SignatureWanted(call, grant.id, binding, asked, target, headers))

    def note(self, note: Note) -> None:
        """Tell the agent; without one the log has it."""
        if self.agent is None:
            log(_SPEAKER, note.event, worker=self._worker, id=note.id, reason=note.reason, host=note.host, detail=note.detail)
            return
        n = note
        self.agent.send(m.ProxyNoted(n.id, n.event, n.reason, n.grant, n.binding, n.host, n.port, n.method, n.path, n.status, n.detail))

    def trusted(self, process: Hashable, host: str) -> None:
        """Remember that ``process`` sent a request to ``host``."""
        key = (process, host)
        if key not in self._trusted:
            while len(self._trusted) >= _TRUSTED_MOST:
                del self._trusted[next(iter(self._trusted))]
            self._trusted[key] = None

    def was_trusted(self, process: Hashable, host: str) -> bool:
        """Say whether it ever did."""
        return (process, host) in self._trusted

    # -- connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_PER_WAKE):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log(_SPEAKER, "accept-paused", worker=self._worker, why=error.strerror, open=self._open)
                    self.loop.remove_reader(listener.fileno())
                    self.loop.call_later(_FULL_PAUSE_S, self._accept_again, listener)
                    return
                continue  # that one connection ended before it was taken (accept(2))
            sock.setblocking(False)
            if self._open >= self.limits.connections:
                reset(sock)
                self.note(Note(new_id(), "connection-failed", Reason.QUOTA_EXCEEDED, detail=f"{self._open} connections in one worker"))
                continue
            self._open += 1
            self.spawn(self._serve(sock))

    def _accept_again(self, listener: socket.socket) -> None:
        if not self._stopping:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    async def _serve(self, sock: socket.socket) -> None:
        """Take one connection to where callbacks carry it on."""
        grant: Grant | None = None
        handed_over = False
        try:
            answer = await self._whose(sock)
            match answer:
                case m.ConnectionGranted():
                    grant = self._grants[answer.grant]
                    handed_over = await self._serve_granted(sock, grant)
                case m.ConnectionPassed():
                    grant = self._grants.get(answer.grant) if answer.grant else None
                    handed_over = True
                    on_first = partial(self._note_observed, grant, _reach(grant)) if grant is not None and grant.observed else None
                    await self._splice(sock, grant, (answer.peer, answer.port), on_first=on_first)
                case m.Refused():
                    self._say_no(sock, answer.reason)
                case _:
                    reason = Reason.DAEMON_DOWN if self.agent is None else Reason.ATTESTATION_TIMEOUT
                    self._fail(sock, None, reason, "", "the agent did not answer")
        except Gone:
            pass  # the client closed before it said anything: nothing happened
        except OSError as error:
            self._note_failed(grant, Reason.HELLO_MALFORMED, "", error.strerror or type(error).__name__)
        finally:
            if not handed_over:
                sock.close()
                self._closed(grant)

    def _closed(self, grant: Grant | None) -> None:
        """A connection has ended: give its grant back."""
        self._open -= 1
        if grant is not None:
            self._grants.pop(grant.id, None)
            if self.agent is not None:
                self.agent.send(m.ConnectionClosed(grant.id))

    async def _whose(self, sock: socket.socket) -> Any:
        """Hand the descriptor to the agent and wait for its answer; None when there is none."""
        agent = self.agent
        if agent is None:
            return None
        told: asyncio.Future[Any] = self.loop.create_future()

        def answered(message: Any) -> None:
            match message:  # now, so that a withdrawal right behind it finds the grant
                case m.ConnectionGranted() as g:
                    self._grants[g.grant] = Grant(
                        g.grant, g.identity, g.egress, g.revision, g.peer, g.port, g.destinations, g.observed
                    )  # fmt: skip
                case m.ConnectionPassed() as p if p.grant:
                    self._grants[p.grant] = Grant(p.grant, "", "open", 0, p.peer, p.port, (), p.observed)
            if not told.done():
                told.set_result(message)

        call = self._agent_calls.new(self.now() + self.limits.grant_s, answered)
        agent.send(m.ConnectionAccepted(call), (sock.fileno(),))
        return await told

    async def _serve_granted(self, sock: socket.socket, grant: Grant) -> bool:
        """Look at the hello and do what it calls for; whether somebody else owns the socket now."""
        reach = self._reach(grant)
        if grant.egress == "open" and grant.port not in reach.ports:  # only observed here: a server may speak first, so nothing waits
            await self._splice(sock, grant, (grant.peer, grant.port), on_first=partial(self._note_passing, grant, reach))
            return True
        try:
            hello = await peek_hello(self.loop, sock, self.limits)
        except Silent:
            if grant.egress == "open":
                await self._splice(sock, grant, (grant.peer, grant.port), note=self._passing(grant, reach, None))
                return True
            self._fail(sock, grant, Reason.NOT_TLS, "", "the client sent nothing")
            return False
        if isinstance(hello, Malformed):
            self._fail(sock, grant, Reason.HELLO_MALFORMED, "", hello.what)
            return False
        name = (hello.server_name or "") if isinstance(hello, Hello) else ""
        bound = reach.bound(name, grant.port)
        if bound is not None and bound[1]:
            return await self._terminate(sock, grant, reach, bound[0], name)
        note = self._passing(grant, reach, hello)
        if bound is None and grant.egress != "open":
            self._fail(sock, grant, note.reason, name, f'identity "{grant.identity}" may reach bound names only')
            return False
        await self._splice(sock, grant, (grant.peer, grant.port), note=note)
        return True

    def _reach(self, grant: Grant) -> Reach:
        """Give what an identity's connections may be for, built once for each revision."""
        key = (grant.identity, grant.revision)
        reach = self._reaches.get(key)
        if reach is None:
            for old in [k for k in self._reaches if k[1] < grant.revision]:
                del self._reaches[old]
            reach = self._reaches[key] = _reach(grant)
        return reach

    @staticmethod
    def _passing(grant: Grant, reach: Reach, began: Hello | NotTls | Malformed | None) -> Note:
        """Say what passed through untouched: what a binding in mode observe names, another name, or no TLS."""
        hello = began if isinstance(began, Hello) else None
        name = (hello.server_name or "") if hello is not None else ""
        bound = reach.bound(name, grant.port)
        if bound is not None:
            return Note(new_id(), "connection-observed", Reason.GRANTED, grant.id, bound[0], name, grant.port)
        reason = Reason.DESTINATION_UNKNOWN if hello is not None else Reason.NOT_TLS
        return Note(new_id(), "connection-spliced", reason, grant.id, "", name or grant.peer, grant.port)

    def _note_passing(self, grant: Grant, reach: Reach, began: Hello | NotTls | Malformed | None) -> None:
        self.note(self._passing(grant, reach, began))

    def _note_observed(self, grant: Grant, reach: Reach, began: Hello | NotTls | Malformed | None) -> None:
        """Note a name that is observed, and nothing else: the connection is nobody's but the observer's."""
        note = self._passing(grant, reach, began)
        if note.binding:
            self.note(note)

    async def _terminate(self, sock: socket.socket, grant: Grant, reach: Reach, binding: str, name: str) -> bool:
        """Shake hands as ``name`` and let a Client carry on."""
        context = await self._context(grant, binding, name)
        if isinstance(context, Refusal):
            self._fail(sock, grant, context.reason, name, context.detail)
            return False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(
            self, self._upstreams, grant, table=reach.table, observed=reach.observed, host=name, sock=sock, process=self._opener(sock),
            still=self._still, on_end=self._client_ended,
        )  # fmt: skip
        left_before = has_ended(sock)
        kept = sock.dup()  # so that the kernel can still be asked when the loop has closed its own
        try:
            await self.loop.connect_accepted_socket(
                lambda: client, sock, ssl=context, ssl_handshake_timeout=self.limits.handshake_s, ssl_shutdown_timeout=self.limits.linger_s
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            reason, detail = client_fault(error, looked=not left_before and read_all_and_ended(kept))
            self._note_failed(grant, reason, name, detail, binding)
            grant.on_withdrawn = None
            return False
        finally:
            kept.close()
        if not client.over:
            self._clients.add(client)
        return True

    def _client_ended(self, client: Client) -> None:
        self._clients.discard(client)
        self._closed(client.grant)

    async def _context(self, grant: Grant, binding: str, name: str) -> Any:
        """Give the TLS context for a bound name, minting its leaf when there is none; one flight for all who wait."""
        leaf = LeafName(binding, name, grant.revision)
        context = self._leaves.get(leaf, time.time())
        if context is not None:
            return context
        flight = self._minting.get(leaf)
        if flight is None:
            flight = self._minting[leaf] = self.loop.create_future()
            try:
                flight.set_result(await self._mint(grant, leaf))
            finally:
                del self._minting[leaf]
                if not flight.done():
                    flight.set_result(Refusal(Reason.KEYS_UNAVAILABLE))
        return await asyncio.shield(flight)

    async def _mint(self, grant: Grant, leaf: LeafName) -> Any:
        keys = self.keys
        if keys is None:
            return Refusal(Reason.KEYS_UNAVAILABLE)
        told: asyncio.Future[Any] = self.loop.create_future()
        call = self._keys_calls.new(self.now() + self.limits.leaf_s, lambda message: None if told.done() else told.set_result(message))
        key = LeafKey()
        keys.send(m.LeafWanted(call, grant.id, leaf.binding, leaf.name, key.public_der()))
        match await told:
            case m.LeafMinted() as minted:
                try:
                    context = key.context(minted.certificate_pem)
                except OSError as error:  # ssl.SSLError is one: not the certificate of our key
                    return Refusal(Reason.KEYS_UNAVAILABLE, f"the leaf cannot be used: {error}")
                self._leaves.put(leaf, minted.expires_at, context)
                return context
            case m.Refused() as refused:
                return Refusal(refused.reason, refused.detail, refused.hint)
        return Refusal(Reason.KEYS_UNAVAILABLE)

    async def _splice(
        self, sock: socket.socket, grant: Grant | None, to: tuple[str, int], *, note: Note | None = None, on_first: OnFirst | None = None
    ) -> None:
        """Carry the connection on untouched; it never bears a credential.  ``note`` is told once the far side is reached."""

        def ended(splice: Splice) -> None:
            self._splices.discard(splice)
            self._closed(grant)

        address, port = to
        splice = Splice(self.loop, self.limits, on_end=ended, on_first=on_first)
        self._splices.add(splice)
        far = await splice.run(sock, address, port)
        if far is not Reason.GRANTED:
            self._note_failed(grant, far, note.host if note is not None else address, f"{address} port {port}")
        elif note is not None:
            self.note(note)

    # -- refusing before HTTP has begun

    def _fail(self, sock: socket.socket, grant: Grant | None, reason: Reason, name: str, detail: str) -> None:
        self._note_failed(grant, reason, name, detail)
        self._say_no(sock, reason)

    def _note_failed(self, grant: Grant | None, reason: Reason, name: str, detail: str, binding: str = "") -> None:
        grant_id, port = (grant.id, grant.port) if grant is not None else ("", 0)
        self.note(Note(new_id(), "connection-failed", reason, grant_id, binding, name, port, detail=detail))

    @staticmethod
    def _say_no(sock: socket.socket, reason: Reason) -> None:
        """Send an alert if the client speaks TLS; it is the only word it understands before the handshake."""
        with contextlib.suppress(OSError):  # a client that is gone needs no answer
            begun = b""
            with contextlib.suppress(BlockingIOError):
                begun = sock.recv(DEFAULT.hello_bytes)  # taken, because closing on unread bytes would reset the alert away
            if begun[:1] == b"\x16":
                sock.send(tls_alert(reason))
            sock.shutdown(socket.SHUT_WR)


_WORDS = {reason: Reason(reason.slug) for reason in KernelReason}
"""The kernel's reasons by their number, looked up once per request."""


_REASONS = {kernel: Reason(kernel.slug) for kernel in KernelReason}


def kernel_still(sock: socket.socket) -> Reason:
    """Ask the kernel (0.7 µs, no round trip): same process, same program, still attested, agent alive?"""
    try:
        answer = read_answer(sock)
    except NoRecord:
        return Reason.NO_RECORD
    if answer.reason is KernelReason.GRANTED and not answer.bound:
        return Reason.PROCESS_CHANGED
    return _REASONS[answer.reason]


def kernel_opener(sock: socket.socket) -> Hashable:
    """Say which program in which process opened the connection; its own number where the kernel has no record."""
    try:
        record = read_answer(sock).record
    except NoRecord:
        return sock.fileno()
    return record.tgid, record.start_ns, record.exec_id


async def _main(setup: ProxySetup) -> None:
    loop = asyncio.get_running_loop()
    proxy = Proxy(loop, run=Path(setup.run), worker=setup.worker, still=kernel_still, opener=kernel_opener, stale_s=setup.stale_s)
    proxy.start([socket.socket(fileno=fd) for fd in setup.listeners])
    log(_SPEAKER, "proxy-ready", worker=setup.worker)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    beating = loop.create_task(beat(setup.beat_fd))
    beating.add_done_callback(lambda _: stop.set())  # the pipe broke: the supervisor is gone, and so are we
    await stop.wait()
    beating.cancel()
    await proxy.stop()


def main() -> int:
    """Entry of a worker: argv[1] is ProxySetup."""
    setup = msgspec.json.decode(sys.argv[1], type=ProxySetup)
    uid = setup.uids["proxy"]
    for line in confine("proxy", uid, uid, parent=os.getppid()):
        log(_SPEAKER, "not-here", what=line)
    uvloop.run(_main(setup))
    return 0


if __name__ == "__main__":
    sys.exit(main())
