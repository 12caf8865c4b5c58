"""
What a WorkloadCredential makes: identity, source and destinations, ready to decide with.

In: nothing.  Out: the types of the binding stage; they also travel between the daemon's processes.  Pure.
"""

from typing import Literal

import msgspec

from control.identity.model import Identity
from control.reason import Reason
from control.units import Revision


class Destination(msgspec.Struct, frozen=True):
    """Where a binding's credential may go.  Empty methods or paths mean any."""

    hosts: tuple[str, ...]
    """Lower-case names without trailing dot; ``*.x`` stands for exactly one or more labels before ``.x``."""
    ports: tuple[int, ...] = (443,)
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """Globs over the raw request path (no query): ``*`` is any run of characters, nothing else is special."""
    networks: tuple[str, ...] = ()
    """CIDRs outside of the public ranges in which a bound name may lie."""
    upstream_roots: str = ""
    """PEM text of the CA file named by ``upstreamRoots``; empty means the system's roots."""


class OciSource(msgspec.Struct, frozen=True, tag="oci"):
    """An OCI identity domain that exchanges our JWT for a UPST (protocols: RFC 8693 with Oracle's token type)."""

    domain: str
    """``https://host[:port]``, no path"""
    client_id: str
    client_secret_file: str
    """Root-only file; read by the agent, lent to exchange, never seen by a proxy."""
    upstream_roots: str = ""
    """PEM text; empty means the system's roots."""


class Source(msgspec.Struct, frozen=True):
    """A CredentialSource with its Federation."""

    name: str
    kind: Literal["oci"]
    oci: OciSource
    audience: str
    principal: str
    """The principal the exchange must yield; compared each time."""
    environment: str
    ttl_cap_s: int
    revision: Revision = Revision(0)


class Binding(msgspec.Struct, frozen=True):
    """One WorkloadCredential in force."""

    name: str
    identity: str
    source: str
    destinations: tuple[Destination, ...]
    signer: Literal["oci"]
    mode: Literal["observe", "enforce"] = "enforce"
    on_lease_failure: str = "refuse"
    on_daemon_down: Literal["refuse", "direct"] = "refuse"
    ca_domains: tuple[str, ...] = ()
    """Further names the binding's CA may sign for, declared ahead."""


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for, in canonical form (control/binding/canonical.py makes it)."""

    host: str
    port: int
    method: str
    path: str
    """Raw request path as sent, without the query."""


class Decision(msgspec.Struct, frozen=True):
    """The answer to Asked: a binding, or the reason why not."""

    reason: Reason
    binding: str = ""
    """Set when granted, and when a binding was found but its methods or paths say no."""
    detail: str = ""

    @property
    def granted(self) -> bool:
        """Whether a credential may be given."""
        return self.reason is Reason.GRANTED


class ResourceSet(msgspec.Struct, frozen=True):
    """All that runs, swapped as a whole."""

    revision: Revision
    digest: str
    """SHA-256 over the documents, to tell whether the disk differs."""
    identities: tuple[Identity, ...]
    sources: tuple[Source, ...]
    bindings: tuple[Binding, ...]
    owners: dict[str, str]
    """``kind/name`` to owner, for people."""
