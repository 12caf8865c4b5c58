"""
What the daemon's processes say to each other.

In: nothing.  Out: typed messages and their codec.  One message is one SOCK_SEQPACKET datagram, msgpack inside, the tag is the class name.
Who may send what stands in ``SPEAKERS``: a message from a process that may not say it closes the channel.  Pure.

Words: *Wanted* asks (with ``call``, echoed by the answer), past tense tells.  ``grant`` is an unguessable id made by the agent for one
accepted connection; keys and exchange serve grants only.
"""

from typing import Any

import msgspec

from control.binding.model import Asked, Binding, Destination, Source
from control.facts.model import ProcessKey
from control.identity.model import Identity
from control.reason import Reason
from control.secret import Secret

MAX_MESSAGE = 1 << 20
"""Bytes; a larger datagram closes the channel (docs/limits.md)."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


# ---- any process, first thing on every channel -------------------------------------------------------------------------------------


class Greeted(Message, frozen=True):
    """Who is calling; believed only if the peer's uid is that role's uid."""

    role: str
    """``agent``, ``keys``, ``exchange``, ``proxy``, ``public``"""
    worker: int = 0


class Beat(Message, frozen=True):
    """The sender is alive; agent to keys and proxies every 0.2 s.  Two seconds without one and nothing is signed."""


class Refused(Message, frozen=True):
    """The answer no to a *Wanted* message."""

    call: int
    id: str
    reason: Reason
    detail: str = ""
    hint: str = ""


# ---- proxy <-> agent ---------------------------------------------------------------------------------------------------------------


class ConnectionAccepted(Message, frozen=True):
    """Proxy to agent, with the accepted descriptor attached: whose is it?"""

    call: int


class ConnectionGranted(Message, frozen=True):
    """Agent to proxy: the process has an identity; terminate TLS for the destinations listed, splice or refuse others."""

    call: int
    grant: str
    identity: str
    egress: str
    revision: int
    peer: str
    """Original destination, ``ip``; v4-mapped addresses unmapped."""
    port: int
    destinations: tuple[tuple[str, Destination], ...]
    """(binding, destination) of every binding of the identity in mode enforce."""
    observed: tuple[tuple[str, Destination], ...] = ()
    """The same of every binding in mode observe: spliced untouched, and noted as ``connection-observed``."""


class ConnectionPassed(Message, frozen=True):
    """Agent to proxy: nothing to terminate here; splice through untouched, give nothing."""

    call: int
    reason: Reason
    peer: str
    port: int
    grant: str = ""
    """Set when ``observed`` is: what notes name, so that the agent knows whose they are.  keys does not know it."""
    observed: tuple[tuple[str, Destination], ...] = ()


class ConnectionClosed(Message, frozen=True):
    """Proxy to agent: the connection ended, drop its grant."""

    grant: str


class GrantWithdrawn(Message, frozen=True):
    """Agent to proxy and keys: give nothing more under this grant; the proxy cuts the connection."""

    grant: str
    reason: Reason


class ProxyNoted(Message, frozen=True):
    """Proxy to agent, for the audit: what became of a connection or request.  Claims of a proxy, marked so in the audit."""

    id: str
    event: str
    """``request-refused``, ``request-answered``, ``connection-spliced``, ``connection-observed``, ``connection-failed``"""
    reason: Reason
    grant: str = ""
    binding: str = ""
    host: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    status: int = 0
    detail: str = ""


# ---- proxy <-> keys ----------------------------------------------------------------------------------------------------------------


class LeafWanted(Message, frozen=True):
    """Proxy to keys: certify my public key for exactly this bound name."""

    call: int
    grant: str
    binding: str
    name: str
    public_key_der: bytes


class LeafMinted(Message, frozen=True):
    """Keys to proxy: the leaf, PEM, without the CA (clients hold it)."""

    call: int
    certificate_pem: bytes
    expires_at: float


class SignatureWanted(Message, frozen=True):
    """
    Proxy to keys: put the binding's credential on this request.

    keys decides again from ``asked`` before it signs, and builds the signing string itself.
    """

    call: int
    grant: str
    binding: str
    asked: Asked
    target: str
    """Raw request target, path and query, as it will be sent."""
    headers: tuple[tuple[str, str], ...]
    """Request head as it will be sent, client's own credential material included (the signer mirrors what it names)."""


class RequestSigned(Message, frozen=True):
    """Keys to proxy: remove these headers, set those, send."""

    call: int
    remove: tuple[str, ...]
    set: tuple[tuple[str, str], ...]
    body_sha256: str = ""
    """base64; when set, the proxy verifies the body against it while streaming."""
    target: str = ""
    """When set, sent in the place of the raw request target; may hold the secret, so it is never noted or logged."""
    passed: bool = False
    """No credential is available and the binding says ``passthrough``: send the request as the client made it."""

    def __repr__(self) -> str:
        return f"RequestSigned(call={self.call})"  # the rest may be secret


# ---- agent -> keys, agent -> exchange ----------------------------------------------------------------------------------------------


class PolicyBegan(Message, frozen=True):
    """Agent to keys and exchange: a whole set follows; nothing changes before PolicyCommitted."""

    revision: int


class PolicyIdentity(Message, frozen=True):
    """One identity of the set."""

    identity: Identity


class PolicySource(Message, frozen=True):
    """One source of the set; its client secret goes to exchange only."""

    source: Source
    client_secret: Secret | None = None


class PolicyBinding(Message, frozen=True):
    """One binding of the set."""

    binding: Binding


class PolicyCommitted(Message, frozen=True):
    """The set is whole: swap."""

    revision: int


class GrantIssued(Message, frozen=True):
    """Agent to keys: this connection of this process may use these bindings; answered with GrantTaken."""

    grant: str
    identity: str
    bindings: tuple[str, ...]
    process: ProcessKey
    revision: int
    port: int = 0
    """Port of the original destination; keys signs for no other.  0 means any."""


class LeaseDropped(Message, frozen=True):
    """Agent to keys: throw these leases away; the next request gets a new issue.  Empty names mean every source, every identity."""

    source: str = ""
    identity: str = ""


class SecretWanted(Message, frozen=True):
    """Keys to agent: read the secret of this static source; answered with SecretShown or Refused.  The agent audits each read."""

    call: int
    source: str
    identity: str
    """For the audit."""
    issue: int


class SecretShown(Message, frozen=True):
    """Agent to keys: what the file holds now."""

    call: int
    secret: Secret


class GrantTaken(Message, frozen=True):
    """Keys to agent: the grant is known; only now the proxy hears of it."""

    grant: str


class BundleWanted(Message, frozen=True):
    """Agent to keys: the CA certificates of this identity's bindings, PEM."""

    call: int
    identity: str


class BundleMade(Message, frozen=True):
    """Keys to agent."""

    call: int
    pem: bytes


class IssuerWanted(Message, frozen=True):
    """Agent to keys: the issuer's public face."""

    call: int


class IssuerShown(Message, frozen=True):
    """Keys to agent: JWKS document (JSON bytes)."""

    call: int
    jwks: bytes


class Audited(Message, frozen=True):
    """Keys or exchange to agent: one audit event; the field names are those of control/audit/event.py."""

    event: dict[str, Any]


class LeaseShown(Message, frozen=True):
    """Keys to agent, at every change: the state of one lease, never its content."""

    source: str
    identity: str
    state: str
    """``none``, ``flight``, ``held``, ``failed``"""
    issue: int
    expires_at: float
    principal: str = ""
    reason: Reason = Reason.GRANTED
    detail: str = ""


# ---- keys <-> exchange -------------------------------------------------------------------------------------------------------------


class ExchangeWanted(Message, frozen=True):
    """Keys to exchange: turn this assertion into the source's credential."""

    call: int
    source: str
    assertion: Secret
    public_key_der: bytes
    """SubjectPublicKeyInfo of the fresh session key; its private half stays in keys."""
    identity: str = ""
    """For the audit."""
    issue: int = 0
    """Which rotation this would be, for the audit."""


class Exchanged(Message, frozen=True):
    """Exchange to keys."""

    call: int
    token: Secret
    expires_at: float
    principal: str


class ExchangeFailed(Message, frozen=True):
    """Exchange to keys."""

    call: int
    reason: Reason
    detail: str
    retry_after_s: float = 0.0


# ---- codec -------------------------------------------------------------------------------------------------------------------------

SPEAKERS: dict[tuple[str, str], tuple[type[Message], ...]] = {
    ("proxy", "agent"): (Greeted, ConnectionAccepted, ConnectionClosed, ProxyNoted),
    ("agent", "proxy"): (Greeted, Beat, ConnectionGranted, ConnectionPassed, Refused, GrantWithdrawn),
    ("proxy", "keys"): (Greeted, LeafWanted, SignatureWanted),
    ("keys", "proxy"): (Greeted, LeafMinted, RequestSigned, Refused),
    ("agent", "keys"): (
        Greeted, Beat, PolicyBegan, PolicyIdentity, PolicySource, PolicyBinding, PolicyCommitted,
        GrantIssued, GrantWithdrawn, BundleWanted, IssuerWanted, LeaseDropped, SecretShown, Refused,
    ),
    ("keys", "agent"): (Greeted, Beat, GrantTaken, BundleMade, IssuerShown, Audited, LeaseShown, Refused, SecretWanted),
    ("agent", "exchange"): (Greeted, Beat, PolicyBegan, PolicySource, PolicyCommitted),
    ("exchange", "agent"): (Greeted, Audited),
    ("keys", "exchange"): (Greeted, ExchangeWanted),
    ("exchange", "keys"): (Greeted, Exchanged, ExchangeFailed),
}  # fmt: skip
"""(speaker, listener) to what may be said."""


def _enc(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _dec(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, bytes):
        return Secret(value)
    raise NotImplementedError(kind)


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc)
_decoders: dict[tuple[str, str], msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Message) -> bytes:
    """Give the datagram of ``message``."""
    return _encoder.encode(message)


def decode(speaker: str, listener: str, raw: bytes) -> Any:
    """
    Read one datagram from ``speaker`` to ``listener``.

    Raises msgspec.DecodeError when it is garbage or when that speaker may not say it.
    """
    decoder = _decoders.get((speaker, listener))
    if decoder is None:
        from typing import Union  # noqa: PLC0415  # only here, to build the union of one pair of speakers

        union = Union[SPEAKERS[(speaker, listener)]]  # type: ignore[valid-type]  # noqa: UP007  # built at run time
        decoder = msgspec.msgpack.Decoder(union, dec_hook=_dec)
        _decoders[(speaker, listener)] = decoder
    return decoder.decode(raw)
