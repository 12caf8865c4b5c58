"""
What the daemon shows of itself, and who may ask.

In: nothing.  Out: ``View``, the questions the agent answers for people's tools, and the typed answers.
control/api/admin.proto says the same words in protobuf; control/api/codec.py copies one into the other by name, and a test holds them
together.  Answers only grow: a field is added with a default and never changes its meaning (``-o json`` is these structs).  Pure.
"""

from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from control.audit.event import Event as Event  # noqa: PLC0414  # said again on purpose: the audit's event is part of what is shown

MAX_MESSAGE: Final = 4 << 20
"""Bytes of one answer or question; a bundle with the system's roots is about 250 kB."""


class Role(IntEnum):
    """What a caller of the admin socket may do; each includes the one before."""

    NONE = 0
    VIEW = 1
    ADMIN = 2


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as the kernel said when they connected."""

    role: Role
    uid: int
    pid: int
    gid: int = -1
    """Effective group at connect(); -1 where nobody asked."""


class Program(msgspec.Struct, frozen=True):
    """A program that is about to be started, as far as its starter knows."""

    exe: str
    """Real path of the executable that will run: the interpreter for a script."""
    script: str = ""
    """Path of the ``#!`` script as it will be given to execve(); empty for a plain executable."""
    uid: int = -1
    gid: int = -1


# ---- status ------------------------------------------------------------------------------------------------------------------------


class ProcessView(msgspec.Struct, frozen=True):
    """One process of credwire."""

    role: str
    """``credwired``, ``agent``, ``keys``, ``exchange``, ``proxy``"""
    pid: int
    state: str
    """``running``, ``starting``, ``stopped``, ``stuck``"""
    since: float
    """Seconds since 1970-01-01 UTC; when the state began."""
    rss_kb: int = 0
    restarts: int = 0
    worker: int = 0
    """Number of the worker where a role has several."""


class HealthLine(msgspec.Struct, frozen=True):
    """One thing somebody should know; ``red`` means credwire does not do its job or not safely."""

    level: str
    """``ok``, ``warn``, ``red``"""
    says: str
    hint: str = ""


class OffView(msgspec.Struct, frozen=True):
    """What is switched off."""

    everything: bool = False
    """The kernel lets every connection go straight on."""
    until: float = 0.0
    """Seconds since 1970-01-01 UTC when it comes on by itself; 0 means never."""
    bindings: dict[str, float] = {}
    """Bindings switched off one by one, each with its ``until``."""
    by: str = ""
    """Who said so, for people."""


class StatusView(msgspec.Struct, frozen=True):
    """How credwire is."""

    enforcing: bool
    """Whether the kernel programs hold bound processes at this moment."""
    revision: int
    """Number of the resource set that runs; 0 before the first."""
    digest_running: str = ""
    """SHA-256 of the documents that run."""
    digest_disk: str = ""
    """SHA-256 of the documents on disk; empty when they cannot be read."""
    processes: tuple[ProcessView, ...] = ()
    counters: dict[str, int] = {}
    health: tuple[HealthLine, ...] = ()
    version: str = ""
    off: OffView = OffView()

    @property
    def healthy(self) -> bool:
        """Whether no line is red."""
        return all(line.level != "red" for line in self.health)

    @property
    def disk_differs(self) -> bool:
        """Whether a reload would change what runs."""
        return self.digest_disk != self.digest_running


# ---- bindings ----------------------------------------------------------------------------------------------------------------------


class DestinationView(msgspec.Struct, frozen=True):
    """Where a binding's credential may go; empty methods or paths mean any."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class LeaseView(msgspec.Struct, frozen=True):
    """The state of a binding's credential, never its content."""

    state: str = "none"
    """``none``, ``flight``, ``held``, ``failed``"""
    issue: int = 0
    """Which rotation; counts from 1."""
    expires_at: float = 0.0
    """Seconds since 1970-01-01 UTC; 0 while there is none."""
    principal: str = ""
    reason: str = ""
    """Why it failed."""
    detail: str = ""


class BindingView(msgspec.Struct, frozen=True):
    """One binding in force."""

    name: str
    identity: str
    spiffe_id: str
    source: str
    destinations: tuple[DestinationView, ...] = ()
    delivery: tuple[str, ...] = ()
    """``wire:oci``; later also ``file``, ``metadata``"""
    mode: str = "enforce"
    owner: str = ""
    lease: LeaseView = LeaseView()
    processes: tuple[int, ...] = ()
    """Pids bound now."""
    signed: int = 0
    """Requests since the agent started."""
    refused: int = 0
    on_lease_failure: str = ""
    on_daemon_down: str = ""
    place: str = ""
    """file:line:column of its document."""
    observed: int = 0
    """Connections that mode observe saw since the agent started."""
    reviewed_at: str = ""
    """Day of the last review, where the document says one."""


class BindingsView(msgspec.Struct, frozen=True):
    """All bindings in force, by name."""

    bindings: tuple[BindingView, ...] = ()
    revision: int = 0


# ---- explain -----------------------------------------------------------------------------------------------------------------------


class StepView(msgspec.Struct, frozen=True):
    """One step of a decision, in the order in which it was taken."""

    stage: str
    """``kernel``, ``facts``, ``identity``, ``binding``, ``credential``, ``signer``, ``wire``"""
    ok: bool
    said: str
    """One clause."""
    source: str = ""
    """Where it says so: file:line:column of a document, or what the kernel reported."""


class ExplainView(msgspec.Struct, frozen=True):
    """Why something is allowed or refused."""

    reason: str
    """A code of control/reason.py; ``granted`` when allowed."""
    said: str = ""
    hint: str = ""
    identity: str = ""
    binding: str = ""
    steps: tuple[StepView, ...] = ()
    facts: dict[str, str] = {}
    """What the kernel says of the process, for people."""
    events: tuple[Event, ...] = ()
    """The audit's events of the id asked for."""

    @property
    def granted(self) -> bool:
        """Whether a credential is, or was, given."""
        return self.reason == "granted"


# ---- identities ---------------------------------------------------------------------------------------------------------------------


class IdentityView(msgspec.Struct, frozen=True):
    """One identity in force."""

    name: str
    spiffe_id: str
    environment: str = ""
    owner: str = ""
    egress: str = "open"
    selectors: tuple[str, ...] = ()
    """One line for each alternative: ``unix:uid 1001 and unix:exe:path /usr/bin/curl``."""
    bindings: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    """Pids with a grant now."""
    drift: tuple[str, ...] = ()
    """Pinned files whose digest on disk is another now, for people."""
    place: str = ""


class IdentitiesView(msgspec.Struct, frozen=True):
    """All identities in force, by name."""

    identities: tuple[IdentityView, ...] = ()
    revision: int = 0


# ---- what a reload would change -------------------------------------------------------------------------------------------------------


class FieldView(msgspec.Struct, frozen=True):
    """One field that differs; either side is empty where it has none."""

    field: str
    before: str = ""
    after: str = ""


class ChangeView(msgspec.Struct, frozen=True):
    """One resource that differs between what runs and what lies on disk."""

    kind: str
    """``WorkloadIdentity``, ``CredentialSource``, ``WorkloadCredential``"""
    name: str
    what: str
    """``added``, ``removed``, ``changed``"""
    fields: tuple[FieldView, ...] = ()
    effect: str = ""
    """What it means for connections that are open: ``3 connections of 2 processes will be cut``; empty where nothing is."""


class FaultView(msgspec.Struct, frozen=True):
    """One thing that is wrong with the resources on disk, or worth knowing."""

    place: str
    reason: str
    message: str
    hint: str = ""


class DiffView(msgspec.Struct, frozen=True):
    """What a reload would do now."""

    revision: int
    """Of the set that runs."""
    changes: tuple[ChangeView, ...] = ()
    errors: tuple[FaultView, ...] = ()
    """Not empty: a reload would be refused."""
    warnings: tuple[FaultView, ...] = ()


# ---- the rest ----------------------------------------------------------------------------------------------------------------------


class BundleView(msgspec.Struct, frozen=True):
    """The CA certificates a process of this identity should trust: the system's roots and the CAs of its bindings."""

    identity: str
    pem: str
    path: str = ""
    """The plain file that holds the same."""


class ReloadView(msgspec.Struct, frozen=True):
    """What a reload did: the whole set swapped, or the last good one kept."""

    swapped: bool
    revision: int
    """Of the set that runs now."""
    digest: str = ""
    errors: tuple[str, ...] = ()
    """file:line:column: sentence.  Empty when swapped."""
    warnings: tuple[str, ...] = ()
    faults: tuple[FaultView, ...] = ()
    """The errors again, in parts and with their hints."""
    changes: tuple[ChangeView, ...] = ()
    """What the swap changed."""


class RevokeView(msgspec.Struct, frozen=True):
    """What a revocation ended."""

    grants: int
    """Connections cut."""
    leases: int
    """Credentials thrown away; the next request gets a new one."""
    processes: tuple[int, ...] = ()
    """Pids that get nothing more until they run another program."""


class SwitchView(msgspec.Struct, frozen=True):
    """How the off switch stands after a change."""

    off: OffView
    grants: int = 0
    """Connections cut by it."""


class View(Protocol):
    """
    What the agent answers.

    A method that cannot answer raises CredwireError, which reaches the tool with its reason and hint; None means that there is no such
    thing.
    """

    async def status(self) -> StatusView:
        """How credwire is."""
        ...

    async def bindings(self) -> BindingsView:
        """All bindings in force."""
        ...

    async def explain_process(self, pid: int, url: str, method: str) -> ExplainView:
        """What would happen if this process asked for this URL now; gives nothing and changes nothing."""
        ...

    async def explain_id(self, id: str) -> ExplainView | None:
        """What happened under this id."""
        ...

    def audit(self, last: int, follow: bool) -> AsyncIterator[Event]:
        """The last events, oldest first; with ``follow`` also those to come."""
        ...

    async def bundle(self, identity: str) -> BundleView | None:
        """The CA certificates of an identity."""
        ...

    async def reload(self, caller: Caller) -> ReloadView:
        """Read the resources again and swap the whole set, or keep the running one."""
        ...

    async def explain_program(self, program: Program, url: str, method: str) -> ExplainView:
        """What would happen if this program, started by the caller's user, asked for this URL; an empty URL asks for the identity alone."""
        ...

    async def identities(self) -> IdentitiesView:
        """All identities in force."""
        ...

    async def diff(self) -> DiffView:
        """What a reload would change; changes nothing."""
        ...

    async def revoke(self, caller: Caller, *, binding: str, identity: str, pid: int) -> RevokeView:
        """End grants and leases; exactly one of the three is given.  A pid gets nothing more until it runs another program or ends."""
        ...

    async def switch(self, caller: Caller, *, binding: str, off: bool, for_s: float) -> SwitchView:
        """Switch one binding off or on; ``for_s`` 0 means until it is switched on.  Everything at once is switched in the kernel itself."""
        ...

    async def refused(self, caller: Caller, method: str) -> None:
        """Take note that somebody asked for what their role does not allow."""
        ...
