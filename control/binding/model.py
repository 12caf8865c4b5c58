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
    client_id: str = ""
    """Of the confidential application; empty for ``instancePrincipal``."""
    client_secret_file: str = ""
    """Root-only file; read by the agent, lent to exchange, never seen by a proxy."""
    upstream_roots: str = ""
    """PEM text; empty means the system's roots."""
    client_auth: Literal["basic", "instancePrincipal"] = "basic"
    """How exchange shows the domain who asks; ``instancePrincipal`` needs no stored secret."""
    metadata: str = "http://169.254.169.254/opc/v2"
    """Where an instance finds its certificate; for ``instancePrincipal``."""
    asks_for: Literal["upst", "rpst"] = "upst"
    """What to ask for: a user's session token, or a resource's."""
    resource_type: str = ""
    """``res_type`` of an RPST; empty for a UPST."""


class StaticSource(msgspec.Struct, frozen=True, tag="static"):
    """A secret that somebody issued once: an API key, a password, a token.  Exactly one of the two fields is set."""

    file: str = ""
    """Root-only file, sealed (``credwire seal``) or plain; read by the agent, held by keys."""
    systemd_credential: str = ""
    """Name below ``$CREDENTIALS_DIRECTORY`` of credwired (systemd.exec(5), LoadCredentialEncrypted=)."""


class Source(msgspec.Struct, frozen=True):
    """A CredentialSource, with its Federation where its kind needs one."""

    name: str
    of: OciSource | StaticSource
    environment: str
    ttl_cap_s: int
    """For a static secret: how long until it is read again."""
    audience: str = ""
    """Empty for a kind that needs no federation."""
    principal: str = ""
    """The principal the exchange must yield; compared each time."""
    revision: Revision = Revision(0)

    @property
    def kind(self) -> str:
        """``oci``, ``static``: the field that names it in a document."""
        return str(self.of.__struct_config__.tag)


class OciSigner(msgspec.Struct, frozen=True, tag="oci"):
    """Oracle's request signature."""


class HeaderSigner(msgspec.Struct, frozen=True, tag="header"):
    """The secret in a header of any name."""

    header: str
    """Lower case."""
    template: str = "{secret}"
    """The value; ``{secret}`` stands in it once."""


class BearerSigner(msgspec.Struct, frozen=True, tag="bearer"):
    """``Authorization: Bearer <secret>`` (RFC 6750)."""


class BasicSigner(msgspec.Struct, frozen=True, tag="basic"):
    """``Authorization: Basic`` of user name and secret (RFC 7617)."""

    username: str


class QuerySigner(msgspec.Struct, frozen=True, tag="query"):
    """The secret as a query parameter."""

    parameter: str


class CookieSigner(msgspec.Struct, frozen=True, tag="cookie"):
    """The secret as a cookie."""

    cookie: str


WireSigner = OciSigner | HeaderSigner | BearerSigner | BasicSigner | QuerySigner | CookieSigner
"""How a credential is put on a request, with the options of its kind; control/signer/<kind>.py does it."""


def kind_of_signer(signer: WireSigner) -> str:
    """``oci``, ``header``, …: the word of ``delivery.wire.signer`` and of the registry of signers."""
    return str(signer.__struct_config__.tag)


class Binding(msgspec.Struct, frozen=True):
    """One WorkloadCredential in force."""

    name: str
    identity: str
    source: str
    destinations: tuple[Destination, ...]
    signer: WireSigner
    mode: Literal["observe", "enforce"] = "enforce"
    """``observe``: attested and recorded, nothing terminated, no credential."""
    on_lease_failure: Literal["refuse", "stale", "passthrough"] = "refuse"
    """While the source gives nothing: refuse, use the last credential for ``stale_s`` past its end, or send without any."""
    stale_s: int = 0
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
    places: dict[str, str] = {}
    """``kind/name`` to file:line:column of its name, for people; no part of what is compared."""
    reviews: dict[str, str] = {}
    """``kind/name`` to the day of the last review, where a document says one; for people."""
