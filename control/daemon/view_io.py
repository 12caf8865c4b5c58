"""
Answer what people ask of the running daemon.

In: the agent.  Out: control.api.view's answers.  Changes are made by change_io.py, explanations by explain_io.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil

from control.api import view as v
from control.audit.event import Event
from control.binding.diff import Change
from control.binding.model import Binding, kind_of_signer
from control.daemon.effect import differences, effect
from control.daemon.explain_io import Explainer
from control.daemon.switched_io import clock
from control.errors import ResourceError
from control.reason import ABOUT, Reason

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent

_STATES = {
    "sleeping": "running",
    "running": "running",
    "disk-sleep": "running",
    "idle": "running",
    "stopped": "stuck",
    "tracing-stop": "stuck",
}


class AgentView:
    """The agent as control.api.view.View."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._explainer = Explainer(agent)
        self.explain_process, self.explain_program, self.explain_id = self._explainer.process, self._explainer.program, self._explainer.id

    # -- status

    async def status(self) -> v.StatusView:
        """How credwire is."""
        agent = self._agent
        digest_disk = await asyncio.to_thread(agent.policy.digest_on_disk)
        current = agent.policy.current
        return v.StatusView(
            enforcing=agent.ailing is None and agent.switched.everything is None,
            revision=int(current.revision),
            digest_running=current.digest,
            digest_disk=digest_disk,
            processes=tuple(self._processes()),
            counters={**agent.kernel.counters(), "grants": len(agent.grants), "revoked processes": len(agent.revoked)},
            health=tuple(self._health(digest_disk)),
            version=version("credwire"),
            off=agent.switched.view(),
        )

    def _processes(self) -> list[v.ProcessView]:
        rows: list[dict[str, Any]] = json.loads((self._agent.run / "processes.json").read_text())
        shown = []
        for row in rows:
            state, rss_kb = "stopped", 0
            if row["pid"]:
                try:
                    process = psutil.Process(row["pid"])
                    state = _STATES.get(process.status(), "stopped")
                    rss_kb = process.memory_info().rss // 1024
                except psutil.Error:
                    pass  # it ended since the table was written: stopped
            shown.append(v.ProcessView(row["role"], row["pid"], state, row["since"], rss_kb, row["restarts"], row.get("worker", 0)))
        return shown

    def _health(self, digest_disk: str) -> list[v.HealthLine]:
        agent = self._agent
        lines = self._off_lines()
        if agent.ailing is not None:
            lines.append(v.HealthLine("red", ABOUT[agent.ailing].says, ABOUT[agent.ailing].hint))
        if agent.keys is None:
            lines.append(v.HealthLine("red", "keys does not answer: nothing is signed", ABOUT[Reason.KEYS_UNAVAILABLE].hint))
        if agent.exchange is None:
            lines.append(v.HealthLine("red", "exchange does not answer: no new lease", "credwire status shows whether it restarts"))
        if not agent.proxies:
            lines.append(v.HealthLine("red", "no proxy worker answers", "credwire status shows whether they restart"))
        mend = "mend the file, then credwire reload"
        lines += [v.HealthLine("red", str(fault), fault.hint or mend) for fault in agent.policy.faults[:10]]
        if agent.policy.keep_fault:
            lines.append(v.HealthLine("red", agent.policy.keep_fault, "free the disk under the state directory, then credwire reload"))
        seal = agent.setup["seal"]
        if seal["fault"]:
            lines.append(v.HealthLine("red", seal["fault"], seal["hint"]))
        lines += agent.watch.lines()
        if not agent.policy.faults and digest_disk != agent.policy.current.digest:
            lines.append(
                v.HealthLine(
                    "warn", "the resources on disk are not the ones that run", "credwire reload" if digest_disk else "credwire validate"
                )
            )
        lines += [v.HealthLine("warn", str(warning), warning.hint) for warning in agent.policy.warnings[:20]]
        lines += [v.HealthLine("warn", f"not on this machine: {line}") for line in agent.not_here]
        if agent.journal.rotation_faults:
            lines.append(
                v.HealthLine("warn", "the audit could not be rotated and grows in one file", f"look at {agent.journal.path.parent}")
            )
        for lease in agent.leases.values():
            if lease.state == "failed":
                hint = ABOUT[lease.reason].hint
                lines.append(v.HealthLine("red", f'source "{lease.source}" gave "{lease.identity}" nothing: {lease.detail}', hint))
        lines = lines or [v.HealthLine("ok", "all processes answer")]
        missing = [group["name"] for group in agent.setup["groups"].values() if group["gid"] < 0]
        if missing:
            names = " and ".join(f'"{name}"' for name in missing)
            word = "groups" if len(missing) > 1 else "group"
            hint = f"groupadd --system {missing[0]}, then restart credwired"
            lines.append(v.HealthLine("ok", f"no {word} {names} on this machine: what they could ask, only root may", hint))
        return lines

    def _off_lines(self) -> list[v.HealthLine]:
        """Say what is switched off, by whom and until when, and what ends it."""
        switched = self._agent.switched
        lines = []
        if (off := switched.everything) is not None:
            said = f"everything is switched off {_until(off.until)} by {off.by}: connections go direct, without a credential"
            lines.append(v.HealthLine("red", said, "credwire on"))
        for name, off in sorted(switched.bindings.items()):
            said = f'binding "{name}" is switched off {_until(off.until)} by {off.by}'
            lines.append(v.HealthLine("red", said, f"credwire on --binding {name}"))
        if switched.fault:
            lines.append(v.HealthLine("red", switched.fault, "switch them off again: credwire off --binding NAME"))
        return lines

    # -- bindings

    async def bindings(self) -> v.BindingsView:
        """All bindings in force."""
        current = self._agent.policy.current
        rows = sorted((self._binding(b) for b in self._agent.policy.running.read.bindings), key=lambda row: row.name)
        return v.BindingsView(tuple(rows), int(current.revision))

    def _binding(self, binding: Binding) -> v.BindingView:
        agent = self._agent
        current = agent.policy.current
        identity = agent.policy.running.identities[binding.identity]
        lease = agent.leases.get((binding.source, binding.identity))
        pids = {int(key.tgid) for key in agent.grants.processes_of(binding.name)}
        return v.BindingView(
            name=binding.name,
            identity=binding.identity,
            spiffe_id=identity.spiffe_id,
            source=binding.source,
            destinations=tuple(v.DestinationView(d.hosts, d.ports, d.methods, d.paths, d.networks) for d in binding.destinations),
            delivery=(f"wire:{kind_of_signer(binding.signer)}",),
            mode=binding.mode,
            owner=current.owners.get(f"WorkloadCredential/{binding.name}", ""),
            lease=_lease(lease) if lease is not None else v.LeaseView(),
            processes=tuple(sorted(pids)),
            signed=agent.counts.get((binding.name, "signed"), 0),
            refused=agent.counts.get((binding.name, "refused"), 0),
            on_lease_failure=binding.on_lease_failure,
            on_daemon_down=binding.on_daemon_down,
            place=current.places.get(f"WorkloadCredential/{binding.name}", ""),
            observed=agent.counts.get((binding.name, "observed"), 0),
            reviewed_at=current.reviews.get(f"WorkloadCredential/{binding.name}", ""),
        )

    # -- the rest

    async def audit(self, last: int, follow: bool) -> AsyncIterator[Event]:
        """The last events, oldest first; with ``follow`` also those to come."""
        if follow:
            async for event in self._agent.journal.follow(last):
                yield event
            return
        for event in await asyncio.to_thread(self._agent.journal.tail, last):
            yield event

    async def bundle(self, identity: str) -> v.BundleView | None:
        """The CA certificates of an identity."""
        path = self._agent.state / "ca" / f"{identity}.pem"
        if identity not in {i.name for i in self._agent.policy.current.identities} or not path.is_file():
            return None
        return v.BundleView(identity, path.read_text(), str(path))

    async def reload(self, caller: v.Caller) -> v.ReloadView:
        """Read the resources again and swap the whole set, or keep the running one."""
        done = await self._agent.changes.reload(_who(caller))
        current = self._agent.policy.current
        warnings = tuple(str(warning) for warning in self._agent.policy.warnings)
        lines = tuple(str(error) for error in done.errors)
        faults = tuple(_fault(error) for error in done.errors)
        changed = await asyncio.to_thread(differences, done.before, done.after)
        shown = tuple(_change(change, "") for change in changed)
        return v.ReloadView(not done.errors, int(current.revision), current.digest, lines, warnings, faults, shown)

    async def identities(self) -> v.IdentitiesView:
        """All identities in force."""
        running = self._agent.policy.running
        rows = (self._identity(name) for name in sorted(running.identities))
        return v.IdentitiesView(tuple(rows), int(running.now.revision))

    def _identity(self, name: str) -> v.IdentityView:
        agent = self._agent
        running = agent.policy.running
        identity = running.identities[name]
        return v.IdentityView(
            name=name,
            spiffe_id=identity.spiffe_id,
            environment=identity.environment,
            owner=running.now.owners.get(f"WorkloadIdentity/{name}", ""),
            egress=identity.egress,
            selectors=tuple(" and ".join(f"{s.kind} {' or '.join(s.values)}" for s in group) for group in identity.selectors),
            bindings=tuple(sorted(binding.name for binding in running.of(name))),
            processes=tuple(sorted({int(grant.facts.key.tgid) for grant in agent.grants if grant.identity == name})),
            drift=tuple(str(drift) for drift in agent.watch.drifts if drift.identity == name),
            place=running.now.places.get(f"WorkloadIdentity/{name}", ""),
        )

    async def diff(self) -> v.DiffView:
        """What a reload would change."""
        policy = self._agent.policy
        loaded = await asyncio.to_thread(policy.read)
        fresh = await asyncio.to_thread(policy.prepare, loaded, self._agent.switched.names())
        now = policy.running
        warnings = tuple(_fault(warning) for warning in fresh.warnings)
        if fresh.errors:
            return v.DiffView(int(now.now.revision), (), tuple(_fault(error) for error in fresh.errors), warnings)
        changed = await asyncio.to_thread(differences, now, fresh.running)
        live = tuple((grant.identity, int(grant.facts.key.tgid)) for grant in self._agent.grants if grant.bindings)
        shown = tuple(_change(change, effect(change.kind, change.name, now, fresh.running, live)) for change in changed)
        return v.DiffView(int(now.now.revision), shown, (), warnings)

    async def revoke(self, caller: v.Caller, *, binding: str, identity: str, pid: int) -> v.RevokeView:
        """End grants and leases."""
        ended = self._agent.changes.revoke(_who(caller), binding=binding, identity=identity, pid=pid)
        await self._agent.switched.withdrawn()
        return v.RevokeView(*ended)

    async def switch(self, caller: v.Caller, *, binding: str, off: bool, for_s: float) -> v.SwitchView:
        """Switch one binding off or on."""
        cut = await self._agent.changes.switch(binding, _who(caller), off=off, for_s=for_s)
        await self._agent.switched.withdrawn()
        return v.SwitchView(self._agent.switched.view(), cut)

    async def refused(self, caller: v.Caller, method: str) -> None:
        """Take note that somebody asked for what their role does not allow."""
        self._agent.audit(Event(event="caller-refused", pid=caller.pid, uid=caller.uid, method=method, speaker="agent"))


def _lease(lease: Any) -> v.LeaseView:
    failed = lease.state == "failed"
    return v.LeaseView(lease.state, lease.issue, lease.expires_at, lease.principal, str(lease.reason) if failed else "", lease.detail)


def _who(caller: v.Caller) -> str:
    return f"uid {caller.uid}, pid {caller.pid}"


def _until(until: float) -> str:
    return f"until {clock(until)}" if until else "until it is switched on"


def _fault(error: ResourceError) -> v.FaultView:
    return v.FaultView(str(error.place or ""), error.reason, error.message, error.hint)


def _change(change: Change, effect_of_it: str) -> v.ChangeView:
    return v.ChangeView(change.kind, change.name, change.what, tuple(v.FieldView(*field) for field in change.fields), effect_of_it)
