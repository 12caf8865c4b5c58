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

    async def refused(self, caller: Caller, method: str) -> None:
        """Take note that somebody asked for what their role does not allow."""
        ...
