"""
Answer what people ask of the running daemon.

In: the agent.  Out: control.api.view's answers.  Looks and never changes anything, but for ``reload``.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from bpf.abi import ProcessState
from control.api import view as v
from control.audit.event import Event
from control.binding.canonical import host_name
from control.binding.decide import Table
from control.binding.model import Asked, Binding, kind_of_signer
from control.errors import Refusal
from control.facts.gather_io import show
from control.facts.model import Facts, ProcessKey
from control.facts.proc_io import identify_running
from control.identity.match import Explained, explain, identify
from control.identity.model import Identity
from control.reason import ABOUT, Reason
from control.units import ExecId, Pid, StartNs

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

    # -- status

    async def status(self) -> v.StatusView:
        """How credwire is."""
        agent = self._agent
        digest_disk = await asyncio.to_thread(agent.policy.digest_on_disk)
        current = agent.policy.current
        return v.StatusView(
            enforcing=agent.ailing is None,
            revision=int(current.revision),
            digest_running=current.digest,
            digest_disk=digest_disk,
            processes=tuple(self._processes()),
            counters={**agent.kernel.counters(), "grants": len(agent.grants)},
            health=tuple(self._health(digest_disk)),
            version=version("credwire"),
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
        lines = []
        if agent.ailing is not None:
            lines.append(v.HealthLine("red", ABOUT[agent.ailing].says, ABOUT[agent.ailing].hint))
        if agent.keys is None:
            lines.append(v.HealthLine("red", "keys does not answer: nothing is signed", ABOUT[Reason.KEYS_UNAVAILABLE].hint))
        if agent.exchange is None:
            lines.append(v.HealthLine("red", "exchange does not answer: no new lease", "credwire status shows whether it restarts"))
        if not agent.proxies:
            lines.append(v.HealthLine("red", "no proxy worker answers", "credwire status shows whether they restart"))
        lines += [v.HealthLine("red", fault, "mend the file, then credwire reload") for fault in agent.policy.faults[:10]]
        if not agent.policy.faults and digest_disk != agent.policy.current.digest:
            lines.append(v.HealthLine("warn", "the resources on disk are not the ones that run", "credwire reload"))
        lines += [v.HealthLine("warn", warning) for warning in agent.policy.warnings[:20]]
        lines += [v.HealthLine("warn", f"not on this machine: {line}") for line in agent.not_here]
        if agent.journal.rotation_faults:
            lines.append(
                v.HealthLine("warn", "the audit could not be rotated and grows in one file", f"look at {agent.journal.path.parent}")
            )
        for lease in agent.leases.values():
            if lease.state == "failed":
                hint = ABOUT[lease.reason].hint
                lines.append(v.HealthLine("red", f'source "{lease.source}" gave "{lease.identity}" nothing: {lease.detail}', hint))
        return lines or [v.HealthLine("ok", "all processes answer")]

    # -- bindings

    async def bindings(self) -> v.BindingsView:
        """All bindings in force."""
        current = self._agent.policy.current
        rows = sorted((self._binding(b) for b in current.bindings), key=lambda row: row.name)
        return v.BindingsView(tuple(rows), int(current.revision))

    def _binding(self, binding: Binding) -> v.BindingView:
        agent = self._agent
        current = agent.policy.current
        identity = next(i for i in current.identities if i.name == binding.identity)
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
        )

    # -- explain

    async def explain_process(self, pid: int, url: str, method: str) -> v.ExplainView:
        """What would happen if this process asked for this URL now."""
        steps: list[v.StepView] = []
        facts = await self._facts(pid, steps)
        if isinstance(facts, Refusal):
            return _no(facts, steps)
        told = _told(facts, pid)
        identities = self._agent.policy.current.identities
        steps += [_identity_step(explained) for explained in explain(facts, identities)]
        found = identify(facts, identities)
        if isinstance(found, Refusal):
            detail = found.detail or _mismatch(facts, identities)
            return _no(Refusal(found.reason, detail, found.hint), steps, facts=told)
        steps.append(v.StepView("identity", True, f'is "{found.name}", {found.spiffe_id}'))
        asked = _asked(url, method)
        if isinstance(asked, Refusal):
            return _no(asked, steps, facts=told, identity=found.name)
        decision = Table(self._agent.policy.destinations(found.name)).decide(asked)
        what = f"{asked.method} {asked.host}:{asked.port}{asked.path}"
        if not decision.granted:
            steps.append(v.StepView("binding", False, decision.detail))
            return _no(Refusal(decision.reason, decision.detail), steps, facts=told, identity=found.name, binding=decision.binding)
        steps.append(v.StepView("binding", True, f'"{decision.binding}" allows {what}'))
        binding = next(b for b in self._agent.policy.current.bindings if b.name == decision.binding)
        steps.append(self._lease_step(binding))
        steps.append(v.StepView("signer", True, f'would be signed by "{kind_of_signer(binding.signer)}"'))
        about = ABOUT[Reason.GRANTED]
        return v.ExplainView(Reason.GRANTED, about.says, "", found.name, decision.binding, tuple(steps), told)

    async def _facts(self, pid: int, steps: list[v.StepView]) -> Facts | Refusal:
        agent = self._agent
        process = agent.kernel.process(pid)
        running = identify_running(pid)
        if isinstance(running, Refusal):
            return running
        if process is None:
            steps.append(v.StepView("kernel", True, "no selector lists its executable or uid: its connections are not touched"))
            key, script = ProcessKey(Pid(pid), StartNs(running.start_ns), ExecId(0)), None
        else:
            state = ProcessState(process.state)
            said = {
                ProcessState.BOUND: "bound: its connections are redirected",
                ProcessState.PENDING: "a filter matches: its connections are redirected and attested",
                ProcessState.UNBOUND: "no filter matches all of its facts: its connections are not touched",
            }.get(state, "unknown")
            steps.append(v.StepView("kernel", state in (ProcessState.BOUND, ProcessState.PENDING), said))
            key = ProcessKey(Pid(pid), StartNs(process.start_ns), ExecId(process.exec_id))
            script = agent.kernel.script_text(process.script_id)
        return await asyncio.to_thread(agent.attestor.read, key, running.uid, running.gid, script)

    def _lease_step(self, binding: Binding) -> v.StepView:
        lease = self._agent.leases.get((binding.source, binding.identity))
        if lease is None or lease.state in ("none", "flight"):
            return v.StepView("credential", True, f'source "{binding.source}" will be asked at the first request')
        if lease.state == "failed":
            return v.StepView("credential", False, f'source "{binding.source}" gave nothing: {lease.reason}, {lease.detail}')
        left = lease.expires_at - time.time()
        return v.StepView(
            "credential", left > 0, f'issue {lease.issue} of "{binding.source}", principal {lease.principal}, {left:.0f} s left'
        )

    async def explain_id(self, id: str) -> v.ExplainView | None:
        """What happened under this id."""
        events = await asyncio.to_thread(self._agent.journal.find, id)
        if not events:
            return None
        last = next((e for e in reversed(events) if e.reason not in (None, Reason.GRANTED)), events[-1])
        reason = last.reason or Reason.GRANTED
        facts = {
            name: str(value)
            for name, value in (
                ("pid", last.pid or ""),
                ("uid", last.uid if last.uid >= 0 else ""),
                ("exe", last.exe),
                ("script", last.script),
            )
            if value != ""
        }
        hint = last.hint or ("" if reason is Reason.GRANTED else ABOUT[reason].hint)
        return v.ExplainView(reason, last.detail or ABOUT[reason].says, hint, last.identity, last.binding, (), facts, events)

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
        errors = await self._agent.reload(by=f"uid {caller.uid}, pid {caller.pid}")
        current = self._agent.policy.current
        return v.ReloadView(not errors, int(current.revision), current.digest, tuple(errors), tuple(self._agent.policy.warnings))

    async def refused(self, caller: v.Caller, method: str) -> None:
        """Take note that somebody asked for what their role does not allow."""
        self._agent.audit(Event(event="caller-refused", pid=caller.pid, uid=caller.uid, method=method, speaker="agent"))


def _lease(lease: Any) -> v.LeaseView:
    failed = lease.state == "failed"
    return v.LeaseView(lease.state, lease.issue, lease.expires_at, lease.principal, str(lease.reason) if failed else "", lease.detail)


def _told(facts: Facts, pid: int) -> dict[str, str]:
    shown = show(pid)
    told = {
        "pid": str(facts.key.tgid),
        "uid": str(facts.uid),
        "exe": facts.exe.path,
        "script": facts.script.path if facts.script else "none that a binding names",
        "process key": str(facts.key),
    }
    if facts.exe_sha256:
        told["sha256"] = facts.exe_sha256
    if not isinstance(shown, Refusal):
        told["argv (shown, never matched)"] = " ".join(shown.argv)[:200]
    return told


def _identity_step(explained: Explained) -> v.StepView:
    clauses = "; or ".join(
        ", ".join(f"{c.kind}: {'yes' if c.holds else 'NO'} (saw {c.saw})" for c in alternative) for alternative in explained.alternatives
    )
    return v.StepView("identity", explained.matches, f'"{explained.identity}": {clauses}')


def _mismatch(facts: Facts, identities: tuple[Identity, ...]) -> str:
    """Say what kept the nearest identity from matching: the one with the most clauses that hold."""
    best: tuple[int, str] = (-1, "")
    for explained in explain(facts, identities):
        for alternative in explained.alternatives:
            held = sum(c.holds for c in alternative)
            if held > best[0]:
                missing = ", ".join(f"{c.kind} saw {c.saw}" for c in alternative if not c.holds)
                best = (held, f'not "{explained.identity}": {missing}')
    return best[1]


def _asked(url: str, method: str) -> Asked | Refusal:
    parts = urlsplit(url if "//" in url else f"https://{url}")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return Refusal(Reason.DESTINATION_UNKNOWN, f"the URL's port cannot be read: {url!r}")
    host = host_name(parts.hostname or "")
    if isinstance(host, Refusal):
        return host
    return Asked(host, port, method.upper() or "GET", parts.path or "/")


def _no(
    refusal: Refusal, steps: list[v.StepView], *, facts: dict[str, str] | None = None, identity: str = "", binding: str = ""
) -> v.ExplainView:
    about = ABOUT[refusal.reason]
    return v.ExplainView(
        refusal.reason, refusal.detail or about.says, refusal.hint or about.hint, identity, binding, tuple(steps), facts or {}
    )
