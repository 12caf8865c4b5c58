"""
A small daemon to talk with: the real gRPC server on a real socket, over a View that holds its answers in memory.

The View behaves: bindings decide by host and method, a reload counts revisions, the audit is a real Journal.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from control.api.roles import Rules
from control.api.server_io import AdminServer, serve
from control.api.view import (
    BindingsView,
    BindingView,
    BundleView,
    Caller,
    ChangeView,
    DestinationView,
    DiffView,
    ExplainView,
    FaultView,
    FieldView,
    HealthLine,
    IdentitiesView,
    IdentityView,
    LeaseView,
    OffView,
    ProcessView,
    Program,
    ReloadView,
    RevokeView,
    Role,
    StatusView,
    StepView,
    SwitchView,
)
from control.audit.event import Event
from control.audit.journal_io import Journal
from control.errors import ResourceError
from control.reason import ABOUT, Reason

AT = 1795305600.0  # 2026-11-22T00:00:00Z

OCI = BindingView(
    name="oci-cli-prod",
    identity="oci-cli",
    spiffe_id="spiffe://corp.example/ops/oci-cli",
    source="oci-prod-upst",
    destinations=(DestinationView(hosts=("*.test-1.cloud.test",), ports=(443,), methods=("GET",), paths=("/20160918/users*",)),),
    delivery=("wire:oci",),
    owner="platform-team@example.org",
    lease=LeaseView(state="held", issue=3, expires_at=AT + 3600, principal="svc-oci-cli"),
    processes=(4321,),
    signed=12,
    refused=3,
    on_lease_failure="refuse",
    on_daemon_down="refuse",
    place="/etc/credwire/resources/oci.yaml:31:1",
)

IDENTITY = IdentityView(
    name="oci-cli",
    spiffe_id="spiffe://corp.example/ops/oci-cli",
    environment="prod",
    owner="platform-team@example.org",
    selectors=("unix:uid 1001 and unix:exe:path /usr/bin/python3.11 and script:path /opt/oci/bin/oci",),
    bindings=("oci-cli-prod",),
    processes=(4321,),
    place="/etc/credwire/resources/oci.yaml:3:1",
)

CHANGE = ChangeView(
    "WorkloadCredential",
    "oci-cli-prod",
    "changed",
    (FieldView("destinations[0].methods", "GET", "GET, POST"),),
    "1 connection of 1 process will be cut",
)

STATUS = StatusView(
    enforcing=True,
    revision=7,
    digest_running="3f2a91c0d4e5",
    digest_disk="3f2a91c0d4e5",
    processes=(
        ProcessView("credwired", 100, "running", AT, 11204),
        ProcessView("agent", 101, "running", AT, 54321),
        ProcessView("keys", 102, "running", AT, 30112),
        ProcessView("proxy", 104, "running", AT + 60, 28664, 1, 0),
    ),
    counters={"observed": 15, "redirected": 12},
    health=(HealthLine("ok", "bound processes are held"),),
    version="0.1.0",
)

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class SmallView:
    """What a daemon with one binding answers."""

    def __init__(self, directory: Path) -> None:
        self.journal = Journal(directory)
        self.shown = STATUS
        self.bound = BindingsView((OCI,), 7)
        self.changes: tuple[ChangeView, ...] = (CHANGE,)
        self.reload_errors: tuple[str, ...] = ()
        self.reload_faults: tuple[FaultView, ...] = ()
        self.fault: Exception | None = None
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.refusals: list[tuple[Caller, str]] = []
        self.reloaders: list[Caller] = []
        self.programs: list[Program] = []
        self.revokers: list[Caller] = []
        self.followers = 0

    async def status(self) -> StatusView:
        await self.stuck.wait()
        if self.fault:
            raise self.fault
        return self.shown

    async def bindings(self) -> BindingsView:
        return self.bound

    async def explain_process(self, pid: int, url: str, method: str) -> ExplainView:
        facts = {"pid": str(pid), "exe": "/usr/bin/python3.11", "script": "/opt/oci/bin/oci", "uid": "1001"}
        if pid != 4321:
            return _explained(Reason.IDENTITY_NONE, (StepView("identity", False, "uid 0 is not 1001", "oci.yaml:8:7"),), facts, "", "")
        host = url.removeprefix("https://").partition("/")[0]
        steps = (
            StepView("kernel", True, "redirected", "record"),
            StepView("identity", True, "oci-cli: every clause matches", "oci.yaml:8:7"),
        )
        if not host.endswith(".test-1.cloud.test"):
            no = StepView("binding", False, f'no binding of "oci-cli" names "{host}"')
            return _explained(Reason.DESTINATION_UNKNOWN, (*steps, no), facts, "oci-cli", "")
        if method != "GET":
            no = StepView("binding", False, f"methods are GET, asked {method}", "oci.yaml:40:5")
            return _explained(Reason.METHOD_NOT_ALLOWED, (*steps, no), facts, "oci-cli", "oci-cli-prod")
        return _explained(
            Reason.GRANTED, (*steps, StepView("binding", True, "host, method and path match")), facts, "oci-cli", "oci-cli-prod"
        )

    async def explain_program(self, program: Program, url: str, method: str) -> ExplainView:
        self.programs.append(program)
        facts = {"exe": program.exe, "script": program.script, "uid": str(program.uid)}
        if (program.exe, program.script, program.uid) != ("/usr/bin/python3.11", "/opt/oci/bin/oci", 1001):
            no = StepView("identity", False, f"uid {program.uid} is not 1001", "oci.yaml:8:7")
            return _explained(Reason.IDENTITY_NONE, (no,), facts, "", "")
        if not url:
            return _explained(Reason.GRANTED, (StepView("identity", True, 'is "oci-cli"'),), facts, "oci-cli", "")
        return await self.explain_process(4321, url, method)

    async def explain_id(self, id: str) -> ExplainView | None:
        events = self.journal.find(id)
        if not events:
            return None
        reason = events[-1].reason or Reason.GRANTED
        return ExplainView(reason, ABOUT[reason].says, ABOUT[reason].hint, events[-1].identity, events[-1].binding, events=events)

    async def audit(self, last: int, follow: bool) -> AsyncIterator[Event]:
        if not follow:
            for event in self.journal.tail(last):
                yield event
            return
        self.followers += 1
        try:
            async for event in self.journal.follow(last):
                yield event
        finally:
            self.followers -= 1

    async def bundle(self, identity: str) -> BundleView | None:
        return BundleView(identity, PEM, f"/var/lib/credwire/ca/{identity}.pem") if identity == "oci-cli" else None

    async def reload(self, caller: Caller) -> ReloadView:
        self.reloaders.append(caller)
        if self.fault:
            raise self.fault
        if self.reload_errors:
            return ReloadView(False, self.shown.revision, self.shown.digest_running, self.reload_errors, faults=self.reload_faults)
        self.shown = msgspec.structs.replace(self.shown, revision=self.shown.revision + 1)
        return ReloadView(True, self.shown.revision, self.shown.digest_running, (), ('identity "old" has no binding',))

    async def identities(self) -> IdentitiesView:
        return IdentitiesView((IDENTITY,), 7)

    async def diff(self) -> DiffView:
        return DiffView(self.shown.revision, self.changes, self.reload_faults)

    async def revoke(self, caller: Caller, *, binding: str, identity: str, pid: int) -> RevokeView:
        self.revokers.append(caller)
        if (binding or "oci-cli-prod") != "oci-cli-prod" or (identity or "oci-cli") != "oci-cli":
            raise ResourceError(Reason.RESOURCE_DANGLING, f'there is no "{binding or identity}"', hint="credwire binding list")
        return RevokeView(1, 1, (pid,) if pid else ())

    async def switch(self, caller: Caller, *, binding: str, off: bool, for_s: float) -> SwitchView:
        if binding != "oci-cli-prod":
            raise ResourceError(Reason.RESOURCE_DANGLING, f'there is no binding "{binding}"', hint="defined bindings: oci-cli-prod")
        still = OffView(bindings={binding: AT + for_s if for_s else 0.0} if off else {}, by=f"uid {caller.uid}" if off else "")
        self.shown = msgspec.structs.replace(self.shown, off=still)
        return SwitchView(still, 1 if off else 0)

    async def refused(self, caller: Caller, method: str) -> None:
        self.refusals.append((caller, method))


def _explained(reason: Reason, steps: tuple[StepView, ...], facts: dict[str, str], identity: str, binding: str) -> ExplainView:
    return ExplainView(reason, ABOUT[reason].says, "" if reason is Reason.GRANTED else ABOUT[reason].hint, identity, binding, steps, facts)


class Small:
    """A running daemon: its View, its socket, and the loop it runs on."""

    def __init__(self, directory: Path, rules: Rules, most: Role) -> None:
        self.directory = directory
        self.path = directory / "admin.sock"
        self._rules, self._most = rules, most
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.faults: list[dict[str, object]] = []

    def start(self) -> None:
        self._loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._thread.start()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.path))
        sock.listen(64)
        self.server: AdminServer = self.call(self._begin(sock))

    async def _begin(self, sock: socket.socket) -> AdminServer:
        self.view = SmallView(self.directory / "audit")
        return await serve(self.view, sock=sock, inner=self.directory / "inner", rules=self._rules, most=self._most)

    def call(self, coroutine):
        """Run a coroutine on the daemon's loop and give its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def append(self, *events: Event) -> None:
        """Write to the audit as the daemon does: on its own thread."""

        async def write() -> None:
            for event in events:
                self.view.journal.append(event)

        self.call(write())

    def until(self, claim) -> None:
        """Wait for ``claim()`` to hold on the daemon's loop."""

        async def wait() -> None:
            while not claim():
                await asyncio.sleep(0.005)

        self.call(asyncio.wait_for(wait(), 10))

    def stop(self) -> None:
        self.view.journal.close()
        self.call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


MINE = Rules(admin_uids=frozenset({os.geteuid()}))
VIEWER = Rules(admin_uids=frozenset(), view_gids=frozenset({os.getegid()}))
NOBODY = Rules(admin_uids=frozenset())


@contextlib.contextmanager
def running(directory: Path, rules: Rules = MINE, most: Role = Role.ADMIN) -> Iterator[Small]:
    """Run a small daemon below ``directory``."""
    small = Small(directory, rules, most)
    small.start()
    try:
        yield small
    finally:
        small.stop()


def broken() -> ResourceError:
    """A refusal as the daemon raises it."""
    return ResourceError(Reason.RESOURCE_MALFORMED, 'unknown key "selektors"', hint="selectors is what you may have meant")
