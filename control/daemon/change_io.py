"""
Change what runs: reload, switch one binding off or on, revoke.

In: who asks, and for what.  Out: the new set in force and everybody told, the grants of whatever changed withdrawn, one line in the audit.
One change at a time.  What takes long (reading a thousand documents, looking up executables, syncing the disk) runs in a thread; from
the kernel's swap to the last message for keys nothing else of the agent runs, so that no connection is granted by half a set.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bpf.errors import KernelError
from control.audit.event import Event
from control.daemon import message as m
from control.daemon.id_io import new_id
from control.daemon.log_io import log
from control.daemon.policy_io import Prepared
from control.daemon.running import Running
from control.daemon.switch_io import Off
from control.errors import Place, ResourceError, SetupError
from control.facts.model import ProcessKey
from control.reason import Reason
from control.whole_io import write_whole

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent

PUBLISH_WAIT_S = 0.5
"""A reload answers when its set is in force; bundles of a few identities are there by then too, those of a thousand follow."""
REVOKED_MOST = 4096
"""Revoked processes remembered; those that have ended go first."""


class Swapped(NamedTuple):
    """What came of a reload."""

    errors: list[ResourceError]
    """Empty when the new set runs."""
    before: Running
    after: Running


class Changes:
    """Makes the changes of one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, by: str) -> Swapped:
        """Read the resources again and swap the whole set, or keep the running one."""
        policy = self._agent.policy
        async with self._one_at_a_time:
            before = policy.running
            loaded = await asyncio.to_thread(policy.read)
            fresh = await asyncio.to_thread(policy.prepare, loaded, self._agent.switched.names())
            errors = fresh.errors or await self._swap(fresh, Reason.REVISION_OLD)
            if errors:
                policy.refuse(errors)
                said = f"{errors[0]} (asked by {by})"
                self._agent.audit(Event(id=new_id(), event="reload-refused", reason=Reason.RESOURCE_MALFORMED, detail=said))
                return Swapped(errors, before, before)
            after = policy.running
            self._agent.audit(Event(id=new_id(), event="reloaded", revision=int(after.now.revision), detail=f"asked by {by}"))
            return Swapped([], before, after)

    async def switch(self, name: str, by: str, *, off: bool, for_s: float) -> int:
        """
        Switch one binding off or on; give how many connections that cut.

        Raises ResourceError for a name that no binding has, SetupError when it cannot be remembered: then nothing changed.
        """
        policy, switched = self._agent.policy, self._agent.switched
        async with self._one_at_a_time:
            binding = policy.running.bindings.get(name)
            if binding is None and (off or name not in switched.bindings):
                raise unknown("binding", name, policy.running.bindings)
            now = time.time()
            wanted = {n: o for n, o in switched.bindings.items() if n != name}
            if off:
                wanted[name] = Off(now + for_s if for_s else 0.0, by, now)
            try:
                switched.keep_bindings(wanted)
            except OSError as error:
                said = f"the switch of a binding cannot be remembered: {error.strerror or error}"
                raise SetupError(Reason.AUDIT_UNAVAILABLE, said, hint="free the disk under the state directory") from error
            before = len(self._agent.grants)
            if policy.running.off != switched.names():
                errors = await self._swap(await asyncio.to_thread(policy.switched, wanted), Reason.OFF_MEANWHILE, anew=True)
                if errors:
                    raise errors[0]
            detail = f"for {for_s:g} s; by {by}" if off and for_s else f"by {by}"
            event = Event(id=new_id(), event="switched-off" if off else "switched-on", binding=name, detail=detail)
            self._agent.audit(event if binding is None else msgspec.structs.replace(event, identity=binding.identity))
            return max(0, before - len(self._agent.grants))

    async def _swap(self, fresh: Prepared, why: Reason, *, anew: bool = False) -> list[ResourceError]:
        """Put a prepared set into force and tell everybody; withdraw, for ``why``, the grants of identities for which anything changed."""
        agent, policy = self._agent, self._agent.policy
        former = policy.before()
        policy.use(fresh, anew=anew)
        try:
            agent.enforce()
        except KernelError as error:
            place = Place(str(policy.resources), 1, 1)
            fault = ResourceError(Reason.RESOURCE_UNCOMPILABLE, f"the kernel did not take the set: {error}", place=place, hint=error.hint)
            policy.take_back(former, fault)
            agent.enforce()
            return [fault]
        settled: set[ProcessKey] = set()
        for grant in agent.grants:
            identity = policy.running.identities.get(grant.identity)
            if identity is None or policy.running.fingerprint(grant.identity) != former.running.fingerprint(grant.identity):
                agent.admission.withdraw(grant, why)
            elif grant.facts.key not in settled:  # else its next connect would make the kernel doubt its open connections for a moment
                settled.add(grant.facts.key)
                agent.admission.settle(grant.facts.key, identity)
        if agent.keys is not None:
            policy.tell_keys(agent.keys)
        if agent.exchange is not None:
            agent.spawn(agent.tell_exchange(agent.exchange))
        await asyncio.to_thread(policy.keep)
        publishing = asyncio.ensure_future(agent.publish())
        agent.spawn(_finish(publishing))
        await asyncio.wait([publishing], timeout=PUBLISH_WAIT_S)
        agent.watch.look_soon()
        return []

    # -- revoke

    def revoke(self, by: str, *, binding: str, identity: str, pid: int) -> tuple[int, int, tuple[int, ...]]:
        """
        End what one binding, one identity or one process has; give how many connections and leases ended, and the pids that get no more.

        Raises ResourceError for an unknown name, SetupError for a process that nothing is known of.
        """
        agent = self._agent
        running = agent.policy.running
        barred: tuple[int, ...] = ()
        about = identity
        if binding:
            of = running.bindings.get(binding)
            if of is None:
                raise unknown("binding", binding, running.bindings)
            grants = [g for g in agent.grants if binding in g.bindings]
            leases = self._drop_leases(of.source, of.identity)
            about = of.identity
        elif identity:
            if identity not in running.identities:
                raise unknown("identity", identity, running.identities)
            grants = [g for g in agent.grants if g.identity == identity]
            leases = self._drop_leases("", identity)
        else:
            grants, leases = agent.grants.of_process(pid), 0
            process = agent.kernel.process(pid)
            if process is None:
                said = f"process {pid} is no process that a filter lists: it has nothing to revoke"
                raise SetupError(Reason.PROCESS_GONE, said, hint="credwire binding list shows the processes that have grants")
            agent.revoked.add(ProcessKey(process.tgid, process.start_ns, process.exec_id))  # type: ignore[arg-type]  # plain numbers in bpf
            barred = (pid,)
            about = grants[0].identity if grants else ""
        for grant in grants:
            agent.admission.withdraw(grant, Reason.REVOKED)
        detail = f"{len(grants)} connections, {leases} leases; by {by}"
        agent.audit(Event(id=new_id(), event="revoked", reason=Reason.REVOKED, identity=about, binding=binding, pid=pid, detail=detail))
        return len(grants), leases, barred

    def forked(self, child: ProcessKey, parent: int) -> None:
        """A process that a filter lists made a child: that of a revoked one is revoked too, or a fork would lift the revocation."""
        revoked = self._agent.revoked
        if not revoked.runs_as(parent):
            return
        revoked.add(child)
        for grant in self._agent.grants.of_process(child.tgid):
            self._agent.admission.withdraw(grant, Reason.REVOKED)

    def _drop_leases(self, source: str, identity: str) -> int:
        agent = self._agent
        if agent.keys is not None:
            agent.keys.send(m.LeaseDropped(source, identity))
        held = [key for key, lease in agent.leases.items() if key[1] == identity and source in ("", key[0]) and lease.state == "held"]
        return len(held)


class Revoked:
    """
    Processes that get nothing more until they run another program or end, and the children they make.

    Remembered over a restart of the agent: who was revoked must not get anything again by making us start anew.
    """

    def __init__(self, state: Path) -> None:
        self._file = state / "revoked.json"
        self._keys: OrderedDict[ProcessKey, None] = OrderedDict()
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=list[ProcessKey])
        except FileNotFoundError:
            found = []
        except (OSError, msgspec.DecodeError) as error:
            log("agent", "revoked-unreadable", why=str(error))
            found = []
        self._keys.update(dict.fromkeys(found))

    def __contains__(self, key: ProcessKey) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def runs_as(self, tgid: int) -> bool:
        """Whether a revoked process has this pid."""
        return any(key.tgid == tgid for key in self._keys)

    def add(self, key: ProcessKey) -> None:
        """Take a process in."""
        self._keys[key] = None
        while len(self._keys) > REVOKED_MOST:
            self._keys.popitem(last=False)
        self._write()

    def ended(self, tgid: int, start_ns: int = 0, exec_id: int = 0) -> None:
        """Forget what ran under a pid before: it ended, or runs the program named."""
        if not self._keys:
            return  # the ordinary case, at every exec of every bound process
        # a hint of an exec from before the revocation, read late, must not lift it: the number only grows
        gone = [key for key in self._keys if key.tgid == tgid and (key.start_ns != start_ns or key.exec_id < exec_id)]
        for key in gone:
            del self._keys[key]
        if gone:
            self._write()

    def _write(self) -> None:
        try:
            write_whole(self._file, msgspec.json.encode(list(self._keys)))
        except OSError as error:
            log("agent", "revoked-not-kept", why=error.strerror)


async def _finish(publishing: "asyncio.Future[None]") -> None:
    await publishing


def unknown(kind: str, name: str, known: Collection[str]) -> ResourceError:
    """Say that no binding or identity is called so, and which are."""
    names = ", ".join(sorted(known)[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    hint = f"credwire {kind} list; defined: {names}" if known else f"no {kind} is defined"
    return ResourceError(Reason.RESOURCE_DANGLING, f'there is no {kind} "{name}"', hint=hint)
