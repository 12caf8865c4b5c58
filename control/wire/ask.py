"""
What the wire asks of the other processes, and what it is told.

In: nothing.  Out: Grant, Signed, Denied and the Services that control/daemon/proxy_io.py provides over its channels (and tests in-process).
All answers arrive by callback: one request costs no task and no future.  Pure.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from control.binding.model import Asked, Destination
from control.errors import Refusal
from control.reason import Reason
from control.wire.limits import Limits


@dataclass(slots=True, eq=False)
class Grant:
    """One connection's permission, as the agent gave it."""

    id: str
    identity: str
    egress: str
    revision: int
    peer: str
    """Original destination address, v4-mapped ones unmapped."""
    port: int
    destinations: tuple[tuple[str, Destination], ...]
    """(binding, destination) pairs."""
    observed: tuple[tuple[str, Destination], ...] = ()
    """The same of bindings in mode observe."""
    withdrawn: Reason = Reason.GRANTED
    """Anything else: give nothing more."""
    on_withdrawn: Callable[[Reason], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """A no that has its id already."""

    id: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Signed:
    """Take these header lines out, put those in."""

    remove: tuple[str, ...]
    set: tuple[tuple[str, str], ...] = field(repr=False)
    body_sha256: str = ""
    """base64; when set, the body must have this hash."""
    target: str = field(default="", repr=False)
    """When set, sent in the place of the raw request target; may hold the secret, so it is never noted."""
    passed: bool = False
    """No credential: send the request as the client made it, its own placeholders included."""


SignedThen = Callable[[Signed | Denied], None]
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """What became of a connection or request, for the audit.  ``event`` as in message.ProxyNoted."""

    id: str
    event: str
    reason: Reason
    grant: str = ""
    binding: str = ""
    host: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    status: int = 0
    detail: str = ""


class Services(Protocol):
    """What a terminated connection needs from around it."""

    limits: Limits

    def now(self) -> float:
        """Monotonic seconds."""

    def new_id(self) -> str:
        """Give an id for a refusal or an audit line."""

    def may_inject(self) -> Reason:
        """Say whether agent and keys are there and alive: GRANTED, DAEMON_DOWN or KEYS_UNAVAILABLE."""

    def sign(self, grant: Grant, asked: Asked, *, binding: str, target: str, headers: Headers, then: SignedThen) -> None:
        """Ask keys; ``then`` is called once, never before this returns."""

    def note(self, note: Note) -> None:
        """Tell the agent."""

    def trusted(self, process: Hashable, host: str) -> None:
        """Remember that ``process`` sent a request to ``host``: it trusts the binding's CA."""

    def was_trusted(self, process: Hashable, host: str) -> bool:
        """Say whether it ever did."""
