"""
Whose is an accepted connection, and what may it do: from the kernel's record to a grant or a refusal.

In: a descriptor that a proxy accepted.  Out: ConnectionGranted once keys has taken the grant, ConnectionPassed for connections that get
nothing, or Refused with an id that the audit knows.  The descriptor is asked, never the proxy; nothing is read from it.
A process that is only observed (the kernel's flag in its record) is never refused: what would have stopped it is written down instead.
"""

import asyncio
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from bpf.abi import KernelReason, ProcessFlag, ProcessState, Record
from bpf.record_io import Answer, NoRecord, read_answer
from control.audit.event import Event
from control.daemon import message as m
from control.daemon.attest_io import Verdict
from control.daemon.channel_io import Channel
from control.daemon.grants import Grant
from control.daemon.id_io import new_id
from control.daemon.running import Granted
from control.daemon.throttle import Throttle, with_held
from control.errors import Refusal
from control.facts.model import ProcessKey
from control.identity.model import Identity
from control.reason import ABOUT, Reason
from control.units import ExecId, Pid, StartNs, UnixSeconds

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent

KEYS_ANSWER_S = 1.5
"""Longest wait for keys to take a grant."""


class Arrival(NamedTuple):
    """An accepted connection that a proxy asks about, and what we know of it by now."""

    channel: Channel
    call: int
    answer: Answer | None = None
    verdict: Verdict | None = None

    @property
    def record(self) -> Record | None:
        """What the kernel recorded at connect()."""
        return self.answer.record if self.answer else None


class Admission:
    """Admits connections for one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._lines = Throttle()
        """For audit lines that somebody without any right can cause."""
        self._taken: dict[str, asyncio.Future[None]] = {}
        """Grants that keys was told of and has not taken yet."""

    def accepted(self, arrival: Arrival, fd: int) -> None:
        """Take the descriptor over; a worker that lies may send one that is no socket."""
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            os.close(fd)
            self._refuse(arrival, Reason.NO_RECORD, f"the worker sent a descriptor that is no socket: {error.strerror}")
            return
        self._agent.spawn(self._connection(arrival, sock))

    async def _connection(self, arrival: Arrival, sock: socket.socket) -> None:
        """Find out whose the accepted connection is and answer the proxy."""
        try:
            answer = read_answer(sock)
            arrival = arrival._replace(answer=answer)
            if answer.reason is KernelReason.OFF_MEANWHILE or self._agent.switched.everything is not None:
                self._pass(arrival, Reason.OFF_MEANWHILE)  # it was redirected a moment before, and has said nothing yet
                return
            if answer.reason is not KernelReason.GRANTED:
                self._refuse(arrival, Reason(answer.reason.slug))
                return
            await self._decide(arrival._replace(verdict=await self._attest(answer)))
        except NoRecord:
            held = self._lines.passes(Reason.NO_RECORD, self._agent.loop.time())
            self._refuse(arrival, Reason.NO_RECORD, with_held(_peer_text(sock), held or 0), audited=held is not None)
        except (TimeoutError, ConnectionResetError):
            self._refuse(arrival, Reason.KEYS_UNAVAILABLE)
        finally:
            sock.close()

    async def _attest(self, answer: Answer) -> Verdict:
        """Attest the process that owns the connection."""
        record = answer.record
        key = ProcessKey(Pid(record.tgid), StartNs(record.start_ns), ExecId(record.exec_id))
        verdict = await self._agent.attestor.attest(key, record.uid, record.gid, self._agent.kernel.script_text(record.script_id))
        if verdict.identity is not None and answer.state is not ProcessState.BOUND and _seen(record) is None:
            self.settle(key, verdict.identity)  # a kept verdict: the kernel may have judged the process anew since
        return verdict

    async def _decide(self, arrival: Arrival) -> None:
        record, verdict = arrival.record, arrival.verdict
        assert record is not None  # noqa: S101  # _connection read it
        assert verdict is not None  # noqa: S101  # and attested
        if verdict.identity is None:
            refusal = verdict.refusal or Refusal(Reason.IDENTITY_NONE)
            if refusal.reason is Reason.IDENTITY_NONE:
                self._pass(arrival, Reason.IDENTITY_NONE)
            else:
                self._refuse(arrival, refusal.reason, refusal.detail)
            return
        seen = _seen(record) or self._revoked(record)
        if seen is not None:
            self._refuse(arrival, seen.reason, seen.detail)
            return
        name = verdict.identity.name
        running = self._agent.policy.running
        enforced = () if _observed(record) else running.enforced(name)  # the kernel let anybody write on it: it never bears a credential
        full = len(self._agent.grants.of_process(record.tgid)) >= self._agent.setup["connections_per_process"]
        if not enforced:
            self._observe(arrival, name, () if full else running.observed(name))
        elif full:
            self._refuse(arrival, Reason.QUOTA_EXCEEDED)
        elif self._agent.keys is None:
            self._refuse(arrival, Reason.KEYS_UNAVAILABLE)
        else:
            await self._grant(arrival, self._agent.keys, verdict.identity, enforced)

    def _pass(self, arrival: Arrival, reason: Reason) -> None:
        """Let a connection go on untouched."""
        record = arrival.record
        assert record is not None  # noqa: S101  # only what the kernel recorded can be passed to where it was going
        arrival.channel.send(m.ConnectionPassed(arrival.call, reason, record.address, record.port))

    def _observe(self, arrival: Arrival, identity: str, observed: Granted) -> None:
        """Let a connection go on untouched, under a name by which the proxy may tell what it saw; keys has no part in it."""
        if not observed:
            self._pass(arrival, Reason.DESTINATION_UNKNOWN)
            return
        grant = self._made(arrival, identity, (), observed)
        self._agent.grants.add(grant)
        passed = m.ConnectionPassed(arrival.call, Reason.GRANTED, grant.peer, grant.port, grant.id, observed)
        arrival.channel.send(passed)
        if arrival.channel.closed:
            self._agent.grants.drop(grant.id)

    def _made(self, arrival: Arrival, identity: str, enforced: Granted, observed: Granted) -> Grant:
        """Make a grant for an attested connection."""
        record, verdict = arrival.record, arrival.verdict
        assert record is not None  # noqa: S101  # _decide looked
        assert verdict is not None  # noqa: S101  # _decide looked
        assert verdict.facts is not None  # noqa: S101  # an identity was found in them
        return Grant(
            id=secrets.token_hex(16),
            worker=arrival.channel.worker,
            identity=identity,
            bindings=_names(enforced),
            facts=verdict.facts,
            peer=record.address,
            port=record.port,
            revision=self._agent.policy.current.revision,
            at=UnixSeconds(time.time()),
            observed=_names(observed),
        )

    def _revoked(self, record: Record) -> Refusal | None:
        self._agent.hear_of_forks()
        if ProcessKey(Pid(record.tgid), StartNs(record.start_ns), ExecId(record.exec_id)) in self._agent.revoked:
            return Refusal(Reason.REVOKED, f"process {record.tgid} was revoked; it gets nothing more until it runs another program")
        return None

    async def _grant(self, arrival: Arrival, keys: Channel, identity: Identity, enforced: Granted) -> None:
        """Make a grant, let keys take it, and only then tell the proxy."""
        observed = self._agent.policy.running.observed(identity.name)
        grant = self._made(arrival, identity.name, enforced, observed)
        taken: asyncio.Future[None] = self._agent.loop.create_future()
        self._taken[grant.id] = taken
        self._agent.grants.add(grant)
        try:
            keys.send(issued(grant))
            await asyncio.wait_for(taken, KEYS_ANSWER_S)
        except (TimeoutError, ConnectionResetError):
            self.withdraw(grant, Reason.KEYS_UNAVAILABLE)  # keys may have taken it and be late to say so
            raise
        finally:
            del self._taken[grant.id]
        if arrival.channel.closed or self._agent.grants.get(grant.id) is None:  # the worker died or a reload withdrew it meanwhile
            self.withdraw(grant, Reason.REVISION_OLD)
            self._refuse(arrival, Reason.REVISION_OLD)
            return
        revision = int(grant.revision)
        arrival.channel.send(
            m.ConnectionGranted(
                arrival.call, grant.id, identity.name, identity.egress, revision, grant.peer, grant.port, enforced, observed
            )
        )

    def _refuse(self, arrival: Arrival, reason: Reason, detail: str = "", *, audited: bool = True) -> None:
        """Say no; of a process that is only observed write down that we would have, and let it go on."""
        refusal_id = new_id()
        spared = arrival.record is not None and _observed(arrival.record)
        if not audited:
            arrival.channel.send(m.Refused(arrival.call, refusal_id, reason, detail))
            return
        facts = arrival.verdict.facts if arrival.verdict else None
        record = arrival.record
        self._agent.audit(
            Event(
                id=refusal_id,
                event="connection-observed" if spared else "connection-refused",
                reason=reason,
                pid=record.tgid if record else 0,
                uid=record.uid if record else -1,
                exe=facts.exe.path if facts else "",
                script=facts.script.path if facts and facts.script else "",
                host=record.address if record else "",
                port=record.port if record else 0,
                revision=int(self._agent.policy.current.revision),
                detail=detail,
                hint=ABOUT[reason].hint,
            )
        )
        if spared:
            self._pass(arrival, reason)
        else:
            arrival.channel.send(m.Refused(arrival.call, refusal_id, reason, detail))

    def taken(self, grant_id: str) -> None:
        """Keys knows the grant."""
        if (future := self._taken.get(grant_id)) is not None and not future.done():
            future.set_result(None)

    def keys_lost(self, why: str) -> None:
        """Nobody will take the grants that wait."""
        for future in self._taken.values():
            if not future.done():
                future.set_exception(ConnectionResetError(why))

    def closed(self, channel: Channel, grant_id: str) -> None:
        """The connection ended: so does its grant, if the worker that says so serves it."""
        grant = self._agent.grants.get(grant_id)
        if grant is not None and grant.worker == channel.worker:
            self._agent.grants.drop(grant_id)
            if grant.bindings and self._agent.keys is not None:
                self._agent.keys.send(m.GrantWithdrawn(grant_id, Reason.GRANTED))

    def withdraw(self, grant: Grant, reason: Reason) -> None:
        """Take a grant back everywhere: keys first, because keys is what signs."""
        self._agent.grants.drop(grant.id)
        if not grant.bindings:
            return  # it was a name for records: the connection goes on untouched
        if self._agent.keys is not None:
            self._agent.keys.send(m.GrantWithdrawn(grant.id, reason))
        proxy = self._agent.proxies.get(grant.worker)
        if proxy is not None:
            proxy.send(m.GrantWithdrawn(grant.id, reason))

    def settle(self, key: ProcessKey, found: Identity | Refusal) -> bool:
        """Tell the kernel's table what came out; False when the process has moved on."""
        if isinstance(found, Identity):
            state, number = ProcessState.BOUND, self._agent.policy.identity_number(found.name)
        else:
            state, number = (ProcessState.UNBOUND if found.reason is Reason.IDENTITY_NONE else ProcessState.PENDING), 0
        return self._agent.kernel.settle(key.tgid, key.start_ns, key.exec_id, state, number)


def _observed(record: Record) -> bool:
    """Whether every filter that hit the process only observes."""
    return bool(record.flags & ProcessFlag.OBSERVED)


def _names(rows: Granted) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _ in rows))


def _seen(record: Record) -> Refusal | None:
    """Judge what the kernel saw in the task at connect(): facts read later from /proc may have changed back by then."""
    if record.flags & ProcessFlag.TRACED:
        return Refusal(Reason.PROCESS_TRACED, f"process {record.tgid} had a debugger attached when it connected")
    if record.flags & (ProcessFlag.FOREIGN_USERNS | ProcessFlag.FOREIGN_MNTNS):
        return Refusal(Reason.NAMESPACE_FOREIGN, f"process {record.tgid} was in another user or mount namespace when it connected")
    return None


def issued(grant: Grant) -> m.GrantIssued:
    """What keys is told of a grant."""
    return m.GrantIssued(grant.id, grant.identity, grant.bindings, grant.facts.key, int(grant.revision), grant.port)


def _peer_text(sock: socket.socket) -> str:
    try:
        host, port = sock.getpeername()[:2]
    except (OSError, ValueError):  # ValueError: a Unix socket, which only a worker that lies sends
        return "a peer that is gone or has no address"
    return f"connected straight to the listener from {host} port {port}"
