"""
How much a connection may take, each number with its reason.

In: nothing.  Out: Limits; docs/limits.md prints the same table and a test holds the two together.
Tests make a smaller set with dataclasses.replace().  Pure.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, per connection unless the name says otherwise."""

    connections: int = 4096
    """Open client connections of one worker: 4096 at 64 KB is 256 MB, and two descriptors each stay under 10 000."""
    hello_bytes: int = 64 << 10
    """A ClientHello; real ones have 0.3 to 1.9 KB, post-quantum key shares and ECH up to 4 KB, four records of 16 KB is generous."""
    hello_s: float = 10.0
    """From accept to a whole ClientHello; a client that stays silent so long is no TLS client."""
    grant_s: float = 2.0
    """The agent's answer to an accepted descriptor; it attests in under a millisecond, and 2 s is when its heartbeat counts as dead."""
    leaf_s: float = 5.0
    """The keys' answer to LeafWanted: one ECDSA signature."""
    sign_s: float = 30.0
    """The keys' answer to SignatureWanted: may hold a whole token exchange, whose own limit is below this."""
    handshake_s: float = 10.0
    """TLS handshake with a client, which may ask a person or a token."""
    distrust_s: float = 1.0
    """A client that closes so soon after its handshake, without a request, may not trust us: GnuTLS looks at the certificate then."""
    head_bytes: int = 64 << 10
    """Head of a request or an answer: UPST tokens are 3 KB, Kerberos and SAML cookies reach 48 KB."""
    headers: int = 128
    """Header lines of one head; the longest of the clients we tried sends 31."""
    target_bytes: int = 16 << 10
    """Request target; above what any of the clouds accepts (8 KB), below the head."""
    head_s: float = 20.0
    """From the first byte of a head to its last: slow-loris."""
    idle_s: float = 75.0
    """Between two requests, and before the first: as long as the common servers keep a connection."""
    body_idle_s: float = 120.0
    """No byte of a body moved in either direction; longer than any retransmission that still succeeds."""
    answer_s: float = 300.0
    """From the last byte of a request to the head of its answer: work requests and long polls of the clouds end at 300."""
    buffered_body_bytes: int = 1 << 20
    """Body held in memory because its hash must be signed and the client did not give it."""
    inbox_bytes: int = 64 << 10
    """Bytes read ahead of what can be used (pipelining, a body whose head is being signed); then the socket is paused."""
    write_high: int = 256 << 10
    """Bytes waiting for a slow reader before the other side is paused: about one bandwidth-delay product of 100 Mbit/s at 20 ms."""
    interim_heads: int = 16
    """1xx heads before an answer: one 100 and a few 102 or 103 are all that servers send."""
    chunk_line_bytes: int = 1 << 10
    """One chunk-size line with its extensions."""
    trailer_bytes: int = 8 << 10
    """All trailer fields of one chunked body; real ones are one checksum."""
    upstream_connect_s: float = 5.0
    """TCP and TLS to one address of a bound destination; then its next address is tried."""
    upstream_addresses: int = 4
    """Addresses of one name that are tried, the recorded one included: 4 times 5 s stays below a client's patience of 30 s."""
    splice_connect_s: float = 10.0
    """TCP to the recorded address of an unbound name; then the client is reset as the kernel would have done."""
    splice_idle_s: float = 7200.0
    """No byte in either direction through a splice: the kernel's own default for keep-alive probes."""
    pool_idle_s: float = 30.0
    """An idle upstream connection; below the 60 s at which the common load balancers close theirs."""
    pool_fresh_s: float = 1.0
    """A request that must not be sent twice only rides a connection idle for less than this."""
    pool_per_key: int = 64
    """Idle upstream connections of one (binding, identity, destination, revision), with and without our credential apart."""
    pool_total: int = 512
    """Idle upstream connections of one worker: 24 KB each, 12 MB in all."""
    leaf_margin_s: float = 300.0
    """A leaf is minted anew when it has less than this to live, so that no handshake shows an expired one to a skewed clock."""
    leaves: int = 1024
    """TLS contexts kept by one worker, about 60 KB each; the oldest goes first."""
    linger_s: float = 2.0
    """After an answer that closes: how long unread bytes are thrown away so that the client reads the answer before a reset."""
    tick_s: float = 0.25
    """How often time limits are looked at; each may be late by this."""


DEFAULT = Limits()
