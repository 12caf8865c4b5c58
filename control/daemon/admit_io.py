"""
Whose is an accepted connection, and what may it do: from the kernel's record to a grant or a refusal.

In: a descriptor that a proxy accepted.  Out: ConnectionGranted once keys has taken the grant, ConnectionPassed for nobody's connections, or
Refused with an id that the audit knows.  The descriptor is asked, never the proxy; it is looked at and closed, nothing is read from it.
"""

import asyncio
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bpf.abi import KernelReason, ProcessFlag, ProcessState, Record
from bpf.record_io import Answer, NoRecord, read_answer
from control.audit.event import Event
from control.binding.model import Destination
from control.daemon import message as m
from control.daemon.attest_io import Verdict
from control.daemon.channel_io import Channel
from control.daemon.grants import Grant
from control.daemon.id_io import new_id
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
        passed = m.ConnectionPassed(arrival.call, Reason.IDENTITY_NONE, record.address, record.port)
        if verdict.identity is None:
            refusal = verdict.refusal or Refusal(Reason.IDENTITY_NONE)
            if refusal.reason is Reason.IDENTITY_NONE:
                arrival.channel.send(passed)
            else:
                self._refuse(arrival, refusal.reason, refusal.detail)
            return
        seen = _seen(record)
        if seen is not None:
            self._refuse(arrival, seen.reason, seen.detail)
            return
        destinations = self._agent.policy.destinations(verdict.identity.name)
        if not destinations:
            arrival.channel.send(msgspec.structs.replace(passed, reason=Reason.DESTINATION_UNKNOWN))
        elif len(self._agent.grants.of_process(record.tgid)) >= self._agent.setup["connections_per_process"]:
            self._refuse(arrival, Reason.QUOTA_EXCEEDED)
        elif self._agent.keys is None:
            self._refuse(arrival, Reason.KEYS_UNAVAILABLE)
        else:
            await self._grant(arrival, self._agent.keys, verdict.identity, destinations)

    async def _grant(self, arrival: Arrival, keys: Channel, identity: Identity, destinations: tuple[tuple[str, Destination], ...]) -> None:
        """Make a grant, let keys take it, and only then tell the proxy."""
        record, verdict = arrival.record, arrival.verdict
        assert record is not None  # noqa: S101  # _decide looked
        assert verdict is not None  # noqa: S101  # _decide looked
        assert verdict.facts is not None  # noqa: S101  # an identity was found in them
        grant = Grant(
            id=secrets.token_hex(16),
            worker=arrival.channel.worker,
            identity=identity.name,
            bindings=tuple(dict.fromkeys(name for name, _ in destinations)),
            facts=verdict.facts,
            peer=record.address,
            port=record.port,
            revision=self._agent.policy.current.revision,
            at=UnixSeconds(time.time()),
        )
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
            m.ConnectionGranted(arrival.call, grant.id, identity.name, identity.egress, revision, record.address, record.port, destinations)
        )

    def _refuse(self, arrival: Arrival, reason: Reason, detail: str = "", *, audited: bool = True) -> None:
        refusal_id = new_id()
        if not audited:
            arrival.channel.send(m.Refused(arrival.call, refusal_id, reason, detail))
            return
        facts = arrival.verdict.facts if arrival.verdict else None
        record = arrival.record
        self._agent.audit(
            Event(
                id=refusal_id,
                event="connection-refused",
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
            if self._agent.keys is not None:
                self._agent.keys.send(m.GrantWithdrawn(grant_id, Reason.GRANTED))

    def withdraw(self, grant: Grant, reason: Reason) -> None:
        """Take a grant back everywhere: keys first, because keys is what signs."""
        self._agent.grants.drop(grant.id)
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
