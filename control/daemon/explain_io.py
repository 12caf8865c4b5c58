"""
Explain to people why something is, was or would be allowed or refused.

In: the agent, and a process, a program or an id.  Out: control.api.view's ExplainView, every step in the order in which it was decided.
Gives nothing and changes nothing.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bpf.abi import ProcessFlag, ProcessState
from control.api import view as v
from control.binding.canonical import host_name
from control.binding.decide import Table
from control.binding.model import Asked, Binding, Decision, kind_of_signer
from control.daemon.program_io import imagine
from control.errors import Refusal
from control.facts.gather_io import show
from control.facts.model import Facts, ProcessKey
from control.facts.proc_io import identify_running
from control.identity.match import Explained, explain, identify, mismatch, wanted
from control.identity.model import Identity
from control.identity.selector.script_path import NAME as SCRIPT
from control.reason import ABOUT, Reason
from control.units import ExecId, Pid, StartNs

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent


_PEOPLE = ThreadPoolExecutor(max_workers=2, thread_name_prefix="people")
"""Threads of their own: who asks about large files, a hundred times, must not keep secrets and reloads waiting."""


class Explainer:
    """Explains for one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    async def process(self, pid: int, url: str, method: str) -> v.ExplainView:
        """What would happen if this process asked for this URL now."""
        steps: list[v.StepView] = []
        facts = await self._facts(pid, steps)
        if isinstance(facts, Refusal):
            return _no(facts, steps)
        told = _told(facts, {"pid": str(facts.key.tgid), "process key": str(facts.key)})
        shown = show(pid)
        told["argv (shown, never matched)"] = " ".join(shown.argv)[:200]
        if facts.key in self._agent.revoked:
            barred = Refusal(Reason.REVOKED, f"process {pid} was revoked; it gets nothing more until it runs another program")
            return _no(barred, steps, told)
        found = self._decided(facts, told, steps, url, method)
        if found.reason == Reason.IDENTITY_NONE and (script := self._unseen(facts, shown.argv)):
            said = f'process {pid} names "{script}" among its arguments, but it started before credwired watched for that script'
            return _no(Refusal(Reason.IDENTITY_OLDER_THAN_DAEMON, said), steps, told)
        return found

    def _unseen(self, facts: Facts, argv: tuple[str, ...]) -> str:
        """Find the script for want of which a process is nobody, and whose exec went unnoticed; empty when there is none."""
        if facts.script is not None:
            return ""
        for explained in explain(facts, self._agent.policy.current.identities):
            for clauses in explained.alternatives:
                missing = [clause for clause in clauses if not clause.holds]
                for script in (value for clause in missing if clause.kind == SCRIPT for value in clause.values):
                    since = self._agent.script_since.get(script, 0)
                    if script in argv and facts.key.start_ns < since and all(clause.kind.startswith("script:") for clause in missing):
                        return script
        return ""

    async def program(self, program: v.Program, url: str, method: str) -> v.ExplainView:
        """What would happen if this program were started now and asked for this URL; without a URL, who it would be."""
        steps: list[v.StepView] = []
        named = wanted(self._agent.policy.current.identities)
        facts = await asyncio.get_running_loop().run_in_executor(_PEOPLE, imagine, program, named)
        if isinstance(facts, Refusal):
            return _no(facts, steps)
        return self._decided(facts, _told(facts, {}), steps, url, method)

    def _decided(self, facts: Facts, told: dict[str, str], steps: list[v.StepView], url: str, method: str) -> v.ExplainView:
        running = self._agent.policy.running
        identities = running.now.identities
        places = running.now.places
        steps += [_identity_step(explained, places) for explained in explain(facts, identities)]
        found = identify(facts, identities)
        if isinstance(found, Refusal):
            return _no(Refusal(found.reason, found.detail or mismatch(facts, identities), found.hint), steps, told)
        place = places.get(f"WorkloadIdentity/{found.name}", "")
        steps.append(v.StepView("identity", True, f'is "{found.name}", {found.spiffe_id}', place))
        if not url:
            about = ABOUT[Reason.GRANTED]
            return v.ExplainView(Reason.GRANTED, about.says, "", found.name, "", tuple(steps), told)
        asked = _asked(url, method)
        if isinstance(asked, Refusal):
            return _no(asked, steps, told, identity=found.name)
        decision = Table(running.enforced(found.name)).decide(asked)
        what = f"{asked.method} {asked.host}:{asked.port}{asked.path}"
        if not decision.granted:
            no, binding_name = self._undecided(decision, found, asked)
            steps.append(v.StepView("binding", False, no.detail))
            return _no(no, steps, told, identity=found.name, binding=binding_name)
        place = places.get(f"WorkloadCredential/{decision.binding}", "")
        steps.append(v.StepView("binding", True, f'"{decision.binding}" allows {what}', place))
        binding = running.bindings[decision.binding]
        steps.append(self._lease_step(binding))
        steps.append(v.StepView("signer", True, f'would be signed by "{kind_of_signer(binding.signer)}"'))
        about = ABOUT[Reason.GRANTED]
        return v.ExplainView(Reason.GRANTED, about.says, "", found.name, decision.binding, tuple(steps), told)

    def _undecided(self, decision: Decision, found: Identity, asked: Asked) -> tuple[Refusal, str]:
        """Say why no binding in mode enforce allows it, or that one in mode observe would; with that binding's name."""
        observed = Table(self._agent.policy.running.observed(found.name)).decide(asked)
        if not observed.granted:
            return Refusal(decision.reason, decision.detail), decision.binding
        name = observed.binding
        if name in self._agent.switched.bindings:
            return Refusal(
                Reason.DESTINATION_UNKNOWN, f'"{name}" would allow it, but it is switched off', f"credwire on --binding {name}"
            ), name
        said = f'"{name}" would allow it, but it only observes: the connection passes untouched'
        return Refusal(Reason.DESTINATION_UNKNOWN, said, f'write mode: enforce into "{name}", then credwire reload'), name

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
            if process.flags & ProcessFlag.OBSERVED and state in (ProcessState.BOUND, ProcessState.PENDING):
                said = "observed: its connections are redirected, recorded and never refused"
            steps.append(v.StepView("kernel", state in (ProcessState.BOUND, ProcessState.PENDING), said))
            key = ProcessKey(Pid(pid), StartNs(process.start_ns), ExecId(process.exec_id))
            script = agent.kernel.script_text(process.script_id)
        read = agent.attestor.read
        return await asyncio.get_running_loop().run_in_executor(_PEOPLE, read, key, running.uid, running.gid, script)

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

    async def id(self, id: str) -> v.ExplainView | None:
        """What happened under this id."""
        events = await asyncio.get_running_loop().run_in_executor(_PEOPLE, self._agent.journal.find, id)
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


def _told(facts: Facts, more: dict[str, str]) -> dict[str, str]:
    script = facts.script.path if facts.script else "none that a binding names"
    told = {**more, "uid": str(facts.uid), "gid": str(facts.gid), "exe": facts.exe.path, "script": script}
    if facts.exe_sha256:
        told["sha256"] = facts.exe_sha256
    return told


def _identity_step(explained: Explained, places: dict[str, str]) -> v.StepView:
    clauses = "; or ".join(", ".join(clause.told for clause in alternative) for alternative in explained.alternatives)
    place = places.get(f"WorkloadIdentity/{explained.identity}", "")
    return v.StepView("identity", explained.matches, f'"{explained.identity}": {clauses}', place)


def _asked(url: str, method: str) -> Asked | Refusal:
    try:
        parts = urlsplit(url if "//" in url else f"https://{url}")
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return Refusal(Reason.DESTINATION_UNKNOWN, f"the URL's port cannot be read: {url!r}")
    host = host_name(parts.hostname or "")
    if isinstance(host, Refusal):
        return host
    return Asked(host, port, method.upper() or "GET", parts.path or "/")


def _no(
    refusal: Refusal, steps: list[v.StepView], facts: dict[str, str] | None = None, *, identity: str = "", binding: str = ""
) -> v.ExplainView:
    about = ABOUT[refusal.reason]
    return v.ExplainView(
        refusal.reason, refusal.detail or about.says, refusal.hint or about.hint, identity, binding, tuple(steps), facts or {}
    )
