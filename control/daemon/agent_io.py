"""
The agent: knows the kernel's tables, the resources and the grants, and decides whose a connection is.

In: accepted descriptors from the proxies, events from the kernel, resources from disk, questions from people (admin API).
Out: grants to keys, answers to proxies, audit records, heartbeats.  It never reads a byte that came from the network.
Root, with the capabilities of confine_io's list.  Without its heartbeat nothing is signed: the kernel, keys and the proxies each look.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bpf.abi import EventKind, KernelReason
from bpf.kernel_io import Kernel
from control.api.roles import Rules
from control.api.view import Role
from control.audit.event import Event, from_fields
from control.audit.journal_io import Journal
from control.binding.model import StaticSource
from control.daemon import message as m
from control.daemon.admit_io import Admission, Arrival, issued
from control.daemon.attest_io import Attestor
from control.daemon.beat_io import BEAT_S, beat
from control.daemon.change_io import Changes, Revoked
from control.daemon.channel_io import Channel, connect
from control.daemon.confine_io import confine
from control.daemon.grants import Grant, Grants
from control.daemon.greet_io import greet
from control.daemon.id_io import new_id
from control.daemon.log_io import log
from control.daemon.policy_io import Policy
from control.daemon.secret_io import Vault
from control.daemon.switched_io import Switched
from control.daemon.throttle import Throttle, with_held
from control.daemon.watch_io import Watch
from control.errors import CredwireError, SetupError
from control.facts.model import ProcessKey
from control.reason import ABOUT, Reason
from control.reason import hint as hint_of
from control.units import ExecId, Pid, StartNs

if TYPE_CHECKING:
    from control.api.server_io import AdminServer

RECONNECT_S = 0.05
ACCEPT_PAUSE_S = 0.1
SWITCH_S = 0.0005
"""A thread that parses a thousand documents gives way after this; the usual 5 ms at each system call would cost the loop its beats."""
REPUBLISH_S = 3600.0
PUBLISH_AGAIN_S = 2.0
"""After a failure: keys that makes its first keys on a slow machine answers late."""
EVENTS_PER_WAKE = 512
EVENTS_REST_S = 0.01
"""
At most so many of the kernel's hints, then a rest: any user can cause them as fast as system calls go (bind() to the listener's port), and
must not keep us from the beats and answers of everybody else.  What the ring loses meanwhile is a hint; the tables are the truth.
"""


_NOTED = ("id", "event", "reason", "binding", "host", "port", "method", "path", "status", "detail")
"""Fields of ProxyNoted that go into the audit as they are."""


class Agent:
    """One agent.  Everything runs on one asyncio loop; only attestation uses threads."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup
        self.run = Path(setup["run"])
        self.state = Path(setup["state"])
        self.loop = asyncio.get_running_loop()
        self.journal = Journal(self.state / "audit")
        self.kernel = Kernel.load(
            pins=Path(setup["pins"]),
            cache=Path(setup["cache"]),
            scope=Path(setup["scope"]),
            daemon_cgroup=Path(setup["daemon_cgroup"]),
        )
        self._closed_kernel = False
        self.policy = Policy(Path(setup["resources"]), self.state, setup["trust_domain"], tuple(setup["excluded"]))
        self.switched = Switched(self)
        self.changes = Changes(self)
        self.revoked = Revoked(self.state)
        self.vault = Vault(int(setup["secrets_fd"]), setup["credentials"])
        self.watch = Watch(self)
        self.admission = Admission(self)
        self.attestor = Attestor(self.admission.settle)
        self.grants = Grants()
        self.proxies: dict[int, Channel] = {}
        self.exchange: Channel | None = None
        self.keys: Channel | None = None
        self.leases: dict[tuple[str, str], m.LeaseShown] = {}
        self.counts: dict[tuple[str, str], int] = {}
        """(binding, ``signed`` | ``refused`` | ``observed``) since start."""
        self.ailing: Reason | None = None
        """Why the agent withholds its heartbeat; None when it is well."""
        self.not_here: list[str] = []
        """What this machine lacks for full confinement."""
        self.script_since: dict[str, int] = {}
        """CLOCK_BOOTTIME in ns from which on the kernel notices an exec of this script; those of earlier agents are left out."""
        self._lines = Throttle()
        """For audit lines that somebody without any right can cause."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._publishing = asyncio.Lock()
        self._all_published = False
        """Whether keys gave every bundle since it was connected; else a change writes them all."""
        self._roles = {role: int(setup["uids"][role]) for role in ("proxy", "exchange")}

    # -- life

    async def serve(self) -> None:
        """Run until SIGTERM."""
        stop = asyncio.Event()
        self.loop.add_signal_handler(signal.SIGTERM, stop.set)
        self.loop.add_signal_handler(signal.SIGINT, stop.set)
        self.loop.add_signal_handler(signal.SIGHUP, lambda: self.spawn(self.changes.reload("SIGHUP")))
        self.switched.begin()
        self.policy.load_first(self.switched.names())
        self.enforce()
        self.kernel.beat()
        self._read_events()
        listener = socket.socket(fileno=self.setup["agent_listener"])
        listener.setblocking(False)
        self.loop.add_reader(listener.fileno(), self._accept, listener)
        self.spawn(self._keep_keys())
        self.spawn(self._republish())
        self.spawn(self.watch.keep_looking())
        self.spawn(self._beat())
        self.spawn(beat(self.setup["beat_fd"]))
        servers = await self._answer_people()
        self.audit(Event(event="agent-started", revision=int(self.policy.current.revision)))
        await stop.wait()
        self.audit(Event(event="agent-stopped", revision=int(self.policy.current.revision)))
        for server in servers:
            await server.stop()
        self._closed_kernel = True
        self.kernel.close()

    async def _answer_people(self) -> "list[AdminServer]":
        """Listen on both sockets for people: whoever may only look has one of their own."""
        from control.api.server_io import serve as serve_admin  # noqa: PLC0415  # grpc is slow to import: beat first
        from control.daemon.view_io import AgentView  # noqa: PLC0415

        view, groups = AgentView(self), self.setup["groups"]
        rules = Rules(
            admin_gids=_gids(groups["admin"]), view_gids=_gids(groups["view"]),
            admin_group=groups["admin"]["name"], view_group=groups["view"]["name"],
        )  # fmt: skip
        sockets = ((self.setup["admin_listener"], Role.ADMIN), (self.setup["view_listener"], Role.VIEW))
        return [
            await serve_admin(view, sock=socket.socket(fileno=fd), inner=self.run / "admin", rules=rules, most=most) for fd, most in sockets
        ]

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine beside the rest; what it raises is logged, never lost."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log("agent", "task-failed", error=type(error).__name__, detail=str(error), task=task.get_name())

    async def _beat(self) -> None:
        """Tell the kernel, keys and the proxies that we live, unless we may not say so."""
        while True:
            self.switched.look()
            for name in self.switched.over():
                self.spawn(self.changes.switch(name, "nobody: the time was over", off=False, for_s=0.0))
            if self.ailing is None:
                self.kernel.beat()
                for channel in (self.keys, self.exchange, *self.proxies.values()):
                    if channel is not None:
                        channel.send(m.Beat())
            elif self._journal_works():
                self.ailing = None
            await asyncio.sleep(BEAT_S)

    # -- audit

    def audit(self, event: Event) -> None:
        """Write one record; an audit that cannot be written stops the heartbeat, and so every injection."""
        try:
            self.journal.append(event)
        except CredwireError as error:
            if self.ailing is None:
                log("agent", "audit-failed", reason=error.reason, detail=str(error))
            self.ailing = Reason.AUDIT_UNAVAILABLE
            if self.keys is not None:
                self.keys.close("the audit cannot be written")  # at once: a beat that keys still believes would sign for two seconds more

    def _journal_works(self) -> bool:
        """Try the journal again after a failure."""
        try:
            self.journal.append(Event(event="audit-resumed"))
        except CredwireError:
            return False
        return True

    def _audit_of(self, grant: Grant | None, told: dict[str, Any]) -> None:
        """Write what another process told, with what we know of the grant ourselves: our word goes before theirs."""
        fields = {"at": time.time(), **told, "revision": int(self.policy.current.revision)}
        if grant is not None:
            facts = grant.facts
            fields |= {
                "identity": grant.identity,
                "grant": grant.id[:8],
                "pid": facts.key.tgid,
                "uid": facts.uid,
                "exe": facts.exe.path,
                "script": facts.script.path if facts.script else "",
            }
        else:
            fields.pop("grant", None)
        try:
            self.audit(from_fields(fields))
        except msgspec.ValidationError as error:
            log("agent", "audit-field-wrong", speaker_of=told.get("speaker"), detail=str(error))

    # -- channels

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors or memory: the caller waits in the queue while we rest
            log("agent", "accept-paused", why=error.strerror)
            self.loop.remove_reader(listener.fileno())
            self.loop.call_later(ACCEPT_PAUSE_S, self.loop.add_reader, listener.fileno(), self._accept, listener)
            return
        greet(self.loop, sock, roles=self._roles, on_greeted=self._welcome, on_stranger=_stranger)

    def _welcome(self, sock: socket.socket, role: str) -> None:
        channel = Channel(
            self.loop, sock, peer=role, own="agent", on_message=self._heard, on_closed=self._channel_closed, on_greeted=self._greeted
        )
        channel.send(m.Greeted("agent"))

    def _greeted(self, channel: Channel) -> None:
        if channel.peer == "exchange":
            self.exchange = channel
            self.spawn(self.tell_exchange(channel))
        else:
            old = self.proxies.get(channel.worker)
            if old is not None:
                old.close("replaced by a new worker of the same number")  # first: its grants are withdrawn while it still has the number
            self.proxies[channel.worker] = channel
        if self.ailing is None:
            channel.send(m.Beat())

    def _channel_closed(self, channel: Channel, why: str) -> None:
        log("agent", "channel-closed", peer=channel.peer, worker=channel.worker, why=why)
        if channel is self.exchange:
            self.exchange = None
        elif channel is self.keys:
            self.keys = None
            self.admission.keys_lost(why)
        elif self.proxies.get(channel.worker) is channel:
            del self.proxies[channel.worker]
            for grant in self.grants.of_worker(channel.worker):
                self.admission.withdraw(grant, Reason.REVOKED)

    async def _keep_keys(self) -> None:
        """Stay connected to keys; after its restart tell it everything again."""
        while True:
            if self.keys is None and self.ailing is None:
                try:
                    sock = await connect(self.run / "keys.sock")
                except OSError:
                    await asyncio.sleep(RECONNECT_S)
                    continue
                keys = Channel(self.loop, sock, peer="keys", own="agent", on_message=self._heard, on_closed=self._channel_closed)
                self.keys = keys
                keys.send(m.Greeted("agent"))  # may close the channel, and then self.keys is None again
                if self.ailing is None:
                    keys.send(m.Beat())
                self._tell_keys()
            await asyncio.sleep(RECONNECT_S)

    def _tell_keys(self) -> None:
        keys = self.keys
        if keys is None:
            return
        self.policy.tell_keys(keys)
        for grant in self.grants:
            if grant.bindings:  # keys has no part in what is only observed
                keys.send(issued(grant))
        self._all_published = False
        self.spawn(self.publish())

    async def tell_exchange(self, exchange: Channel) -> None:
        """Give exchange its sources, with their secrets."""
        await self.policy.tell_exchange(exchange, self.vault.read)

    async def publish(self) -> None:
        """Write the bundles that are not written yet."""
        async with self._publishing:
            if self.keys is None:
                return  # it gets everything when it comes
            try:
                await self.policy.publish(self.keys, self.run, self.setup["issuer_url"], everything=not self._all_published)
            except (TimeoutError, ConnectionResetError, OSError) as error:
                log("agent", "publish-failed", error=type(error).__name__, detail=str(error))
                self.loop.call_later(PUBLISH_AGAIN_S, lambda: self.spawn(self.publish()))
            else:
                self._all_published = True

    async def _republish(self) -> None:
        """Write the bundles anew now and then: keys rotates CAs at half their life, with overlap."""
        while True:
            await asyncio.sleep(REPUBLISH_S)
            self._all_published = False
            await self.publish()

    def _heard(self, channel: Channel, message: Any, fds: list[int]) -> None:
        match message:
            case m.ConnectionAccepted() if channel.peer == "proxy" and len(fds) == 1:
                self.admission.accepted(Arrival(channel, message.call), fds.pop())
            case m.ConnectionClosed():
                self.admission.closed(channel, message.grant)
            case m.ProxyNoted():
                self._noted(channel, message)
            case m.GrantTaken():
                self.admission.taken(message.grant)
            case m.Audited():
                self._audited(channel, message.event)
            case m.LeaseShown():
                self.leases[(message.source, message.identity)] = message
            case m.SecretWanted():
                self.spawn(self._secret_wanted(channel, message))
            case _:
                pass  # a late answer to a call that was given up
        for fd in fds:
            os.close(fd)

    # -- what the others tell

    def _noted(self, channel: Channel, note: m.ProxyNoted) -> None:
        grant = self.grants.whose(note.grant)
        if grant is not None and grant.worker != channel.worker:
            grant = None
        if grant is not None and note.event == "connection-observed" and note.binding in grant.observed:
            self.count(note.binding, "observed")
        elif note.reason is not Reason.GRANTED and grant is not None and note.binding in grant.bindings:
            self.count(note.binding, "refused")
        hint = "" if note.reason is Reason.GRANTED else hint_of(note.reason, identity=grant.identity if grant else "", refusal_id=note.id)
        told = {name: getattr(note, name) for name in _NOTED}
        self._audit_of(grant, {**told, "hint": hint, "speaker": "proxy"})

    def _audited(self, channel: Channel, told: dict[str, Any]) -> None:
        grant = self.grants.whose(str(told.get("grant", "")))
        if told.get("event") == "request-signed":
            self.count(str(told.get("binding", "")), "signed")
        self._audit_of(grant, {**told, "speaker": channel.peer})

    def count(self, binding: str, what: str) -> None:
        """Count one thing of a binding."""
        self.counts[(binding, what)] = self.counts.get((binding, what), 0) + 1

    async def _secret_wanted(self, channel: Channel, wanted: m.SecretWanted) -> None:
        """Read the file of a static source for keys; each read is in the audit before keys has the secret."""
        source = self.policy.running.sources.get(wanted.source)
        event = Event(id=new_id(), event="secret-read", source=wanted.source, identity=wanted.identity, issue=wanted.issue)
        try:
            if source is None or not isinstance(source.of, StaticSource):
                raise SetupError(Reason.REVISION_OLD, f'no static source "{wanted.source}" is in force')  # noqa: TRY301  # one way to refuse
            secret = await asyncio.to_thread(self.vault.read, source)
            if self.policy.running.sources.get(wanted.source) != source:
                raise SetupError(Reason.REVISION_OLD, f'source "{wanted.source}" changed while it was read')  # noqa: TRY301
        except SetupError as error:
            said = {"reason": error.reason, "detail": str(error), "hint": error.hint}
            self.audit(msgspec.structs.replace(event, event="secret-refused", **said))
            channel.send(m.Refused(wanted.call, event.id, error.reason, str(error), error.hint))
            return
        self.audit(msgspec.structs.replace(event, reason=Reason.GRANTED))
        if self.ailing is None:
            channel.send(m.SecretShown(wanted.call, secret))

    def hear_of_forks(self) -> None:
        """Read the hints now, because a child of a revoked process may be the one that connects."""
        if len(self.revoked):
            self._kernel_events()

    def _kernel_events(self) -> None:
        """Read the kernel's hints: the tables are the truth, these only make us look sooner."""
        events = self.kernel.drain(EVENTS_PER_WAKE)
        if len(events) == EVENTS_PER_WAKE:
            self.loop.remove_reader(self.kernel.events_fd())
            self.loop.call_later(EVENTS_REST_S, self._read_events)
        for event in events:
            match event.kind:
                case EventKind.EXEC | EventKind.EXIT:
                    if event.kind is EventKind.EXIT:
                        self.revoked.ended(event.tgid)
                    else:
                        self.revoked.ended(event.tgid, event.start_ns, event.exec_id)
                    for grant in self.grants.of_process(event.tgid):
                        key = grant.facts.key
                        if event.kind is EventKind.EXIT or (key.start_ns, key.exec_id) != (event.start_ns, event.exec_id):
                            self.admission.withdraw(grant, Reason.PROCESS_CHANGED)
                case EventKind.FORK:
                    self.changes.forked(ProcessKey(Pid(event.tgid), StartNs(event.start_ns), ExecId(event.exec_id)), event.other_tgid)
                case EventKind.REFUSED | EventKind.SPARED if event.reason is KernelReason.PROTOCOL_UNSUPPORTED:
                    pass  # counted; getaddrinfo() probes each address by a UDP connect, a line for each would bury the others
                case EventKind.REFUSED | EventKind.SPARED:
                    reason = Reason(event.reason.slug)
                    held = self._lines.passes((reason, event.uid), self.loop.time())
                    if held is None:
                        continue
                    became = "connection-observed" if event.kind is EventKind.SPARED else "connection-refused"
                    told = {"id": new_id(), "event": became, "reason": reason, "pid": event.tgid, "uid": event.uid}
                    told["detail"] = with_held("", held)
                    told |= {"host": event.address, "port": event.port, "speaker": "kernel", "hint": ABOUT[reason].hint}
                    self._audit_of(None, told)
                case _:
                    pass

    def _read_events(self) -> None:
        if not self._closed_kernel:
            self.loop.add_reader(self.kernel.events_fd(), self._kernel_events)

    # -- the running set

    def enforce(self) -> None:
        """Put the running set into force: attestor, kernel, and who may connect where.  Raises KernelError."""
        current = self.policy.current
        self.attestor.use(current.identities, current.revision)
        fresh = {f.script for f in self.policy.filters() if f.script is not None and not self.kernel.watches(f.script)}
        self.kernel.swap_filters(
            self.policy.filters(), ports=self.policy.running.ports(), excluded=self.policy.excluded, revision=int(current.revision)
        )
        self.kernel.configure(
            port4=self.setup["listen_port"],
            port6=self.setup["listen_port"],
            agent_tgid=os.getpid(),
            stale_ns=int(self.setup["stale_s"] * 1e9),
            enforce=True,
        )
        self.script_since |= dict.fromkeys(fresh, time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _gids(group: dict[str, Any]) -> frozenset[int]:
    return frozenset({int(group["gid"])} if group["gid"] >= 0 else ())


def _stranger(why: str) -> None:
    log("agent", "stranger-refused", why=why)


async def _main(setup: dict[str, Any]) -> None:
    agent = Agent(setup)
    agent.not_here = confine("agent", 0, 0, parent=os.getppid())
    for line in agent.not_here:
        log("agent", "not-here", what=line)
    await agent.serve()


def main() -> int:
    """Entry of the agent process: argv[1] is the setup."""
    sys.setswitchinterval(SWITCH_S)
    asyncio.run(_main(json.loads(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
