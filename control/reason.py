"""
One code per refusal, the same word in C, Python, logs, CLI and docs/reasons.md.

In: nothing.  Out: Reason, with its kind and hint.  tests/repo holds this file, bpf/abi.h, bpf/abi.py and docs/reasons.md together.
Pure.
"""

import re
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What sort of refusal it is, and so which errno and which status it gets."""

    POLICY = "policy"
    """Not allowed: EPERM in the kernel, 403 on the wire."""
    UNAVAILABLE = "unavailable"
    """Not available just now: ECONNREFUSED in the kernel, 503 on the wire (502 or 504 where the far side failed)."""
    CLIENT = "client"
    """The client's bytes are wrong: 400, 405, 413, 421 or 431 on the wire."""


class Reason(StrEnum):
    """Why a connection, a request or a resource was refused; GRANTED where it was not."""

    GRANTED = "granted"

    # the kernel's (numbers in bpf/abi.h)
    DAEMON_DOWN = "daemon-down"
    NETNS_UNSERVED = "netns-unserved"
    PROTOCOL_UNSUPPORTED = "protocol-unsupported"
    TABLE_FULL = "table-full"
    SENDER_NOT_BOUND = "sender-not-bound"
    PORT_GUARDED = "port-guarded"
    NO_RECORD = "no-record"
    PROCESS_CHANGED = "process-changed"
    SOCKET_BUSY = "socket-busy"
    OFF_MEANWHILE = "off-meanwhile"

    # who is calling
    PROCESS_GONE = "process-gone"
    PROCESS_TRACED = "process-traced"
    NAMESPACE_FOREIGN = "namespace-foreign"
    IDENTITY_NONE = "identity-none"
    IDENTITY_AMBIGUOUS = "identity-ambiguous"
    IDENTITY_OLDER_THAN_DAEMON = "identity-older-than-daemon"
    EXE_PATH_UNTRUSTED = "exe-path-untrusted"
    EXE_MODIFIED = "exe-modified"
    SCRIPT_PATH_UNTRUSTED = "script-path-untrusted"
    ATTESTATION_TIMEOUT = "attestation-timeout"
    QUOTA_EXCEEDED = "quota-exceeded"

    # what it asked for
    DESTINATION_UNKNOWN = "destination-unknown"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    PATH_NOT_ALLOWED = "path-not-allowed"
    PATH_AMBIGUOUS = "path-ambiguous"
    HOST_MISMATCH = "host-mismatch"
    NETWORK_NOT_ALLOWED = "network-not-allowed"
    GRANT_UNKNOWN = "grant-unknown"
    REVISION_OLD = "revision-old"
    REVOKED = "revoked"

    # bytes from the client
    REQUEST_MALFORMED = "request-malformed"
    REQUEST_HEAD_TOO_LARGE = "request-head-too-large"
    REQUEST_BODY_INCOMPLETE = "request-body-incomplete"
    REQUEST_BODY_TOO_LARGE = "request-body-too-large"
    REQUEST_TIMEOUT = "request-timeout"
    METHOD_FORBIDDEN = "method-forbidden"
    UPGRADE_FORBIDDEN = "upgrade-forbidden"
    HELLO_MALFORMED = "hello-malformed"
    NOT_TLS = "not-tls"
    CLIENT_DOES_NOT_TRUST_CA = "client-does-not-trust-ca"
    CLIENT_TLS_FAILED = "client-tls-failed"
    SIGNATURE_UNREADABLE = "signature-unreadable"
    BODY_HASH_MISMATCH = "body-hash-mismatch"

    # the far side
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_UNVERIFIED = "upstream-unverified"
    UPSTREAM_RESET = "upstream-reset"
    UPSTREAM_TIMEOUT = "upstream-timeout"
    UPSTREAM_MALFORMED = "upstream-malformed"

    # the credential
    LEASE_UNAVAILABLE = "lease-unavailable"
    EXCHANGE_REFUSED = "exchange-refused"
    EXCHANGE_TIMEOUT = "exchange-timeout"
    EXCHANGE_MALFORMED = "exchange-malformed"
    EXCHANGE_UNREACHABLE = "exchange-unreachable"
    EXCHANGE_UNVERIFIED = "exchange-unverified"
    PRINCIPAL_MISMATCH = "principal-mismatch"
    KEYS_UNAVAILABLE = "keys-unavailable"
    AUDIT_UNAVAILABLE = "audit-unavailable"

    # this machine
    CONFINEMENT_FAILED = "confinement-failed"

    # resources and configuration
    RESOURCE_MALFORMED = "resource-malformed"
    RESOURCE_DANGLING = "resource-dangling"
    RESOURCE_DUPLICATE = "resource-duplicate"
    RESOURCE_OVERBROAD = "resource-overbroad"
    RESOURCE_UNCOMPILABLE = "resource-uncompilable"


class About(NamedTuple):
    """What a person needs beside the code."""

    kind: Kind
    says: str
    """One clause, lower case, no full stop."""
    hint: str
    """What to try next; may hold a command."""


_P, _U, _C = Kind.POLICY, Kind.UNAVAILABLE, Kind.CLIENT

_NAME, _ID = re.compile(r"\bNAME\b"), re.compile(r"\bID\b")
"""The words of a hint that stand for an identity's name and a refusal's id."""

ABOUT: dict[Reason, About] = {
    Reason.GRANTED: About(_P, "allowed", "nothing to do"),
    Reason.DAEMON_DOWN: About(_U, "the agent is not running or does not answer", "credwire status; credwired start, as root"),
    Reason.NETNS_UNSERVED: About(_P, "the socket belongs to a network namespace without a listener", "run the program in the network namespace of credwired"),
    Reason.PROTOCOL_UNSUPPORTED: About(_P, "a bound process may reach a bound port by TCP only", "turn HTTP/3 off in the client"),
    Reason.TABLE_FULL: About(_U, "a kernel table is full", "credwire status shows the counters; docs/limits.md has the sizes"),
    Reason.SENDER_NOT_BOUND: About(_P, "another process wrote on a bound process's connection", "let the process that writes open the connection itself"),
    Reason.PORT_GUARDED: About(_P, "the listener's port is kept for credwired", "choose another port"),
    Reason.NO_RECORD: About(_P, "the connection was not redirected by the kernel", "connect to the service itself, not to credwired"),
    Reason.PROCESS_CHANGED: About(_P, "the process ran another program or ended since it connected", "connect again from the program that is running now"),
    Reason.SOCKET_BUSY: About(_P, "the socket was already connecting when connect() was called again", "use a new socket"),
    Reason.OFF_MEANWHILE: About(_U, "credwire was switched off after this connection was opened", "connect again; credwire status shows whether it is on"),
    Reason.PROCESS_GONE: About(_P, "the process ended before it could be attested", "keep the process alive until the answer arrives"),
    Reason.PROCESS_TRACED: About(_P, "a debugger is attached to the process", "detach the debugger and start the program again"),
    Reason.NAMESPACE_FOREIGN: About(_P, "the process runs in another user or mount namespace, or another root directory", "run it on the host, outside of containers"),
    Reason.IDENTITY_NONE: About(_P, "no identity's selectors match the process", "credwire explain --pid PID URL shows each clause"),
    Reason.IDENTITY_AMBIGUOUS: About(_P, "more than one identity matches the process", "make the selectors exclusive; credwire validate names the overlap"),
    Reason.IDENTITY_OLDER_THAN_DAEMON: About(_P, "the process started before credwired watched its exec", "restart the program"),
    Reason.EXE_PATH_UNTRUSTED: About(_P, "the executable's path can be changed by others than root", "chown root and chmod go-w every directory of the path"),
    Reason.EXE_MODIFIED: About(_P, "the executable is not the file that its package came with", "dpkg --verify PACKAGE lists what changed; apt-get install --reinstall PACKAGE puts it back"),
    Reason.SCRIPT_PATH_UNTRUSTED: About(_P, "the script's path can be changed by others than root", "chown root and chmod go-w every directory of the path"),
    Reason.ATTESTATION_TIMEOUT: About(_U, "attestation took too long", "try again; credwire status shows the load"),
    Reason.QUOTA_EXCEEDED: About(_U, "too many connections of this process or user at once", "close idle connections or raise limits in credwired.yaml"),
    Reason.DESTINATION_UNKNOWN: About(_P, "no binding of the identity names this destination", "credwire binding list shows what it may reach"),
    Reason.METHOD_NOT_ALLOWED: About(_P, "the binding does not allow this method", "add it under destinations.methods if it should"),
    Reason.PATH_NOT_ALLOWED: About(_P, "the binding does not allow this path", "add it under destinations.paths if it should"),
    Reason.PATH_AMBIGUOUS: About(_P, "the path can be read in two ways and the binding limits paths", "send the path without dot segments, double slashes or encoded slashes"),
    Reason.HOST_MISMATCH: About(_C, "server name, Host header and destination differ", "ask one connection for one host"),
    Reason.NETWORK_NOT_ALLOWED: About(_P, "a bound name resolved to a network that its binding does not name", "add it under destinations.networks if it is meant"),
    Reason.GRANT_UNKNOWN: About(_P, "the agent gave no such grant", "connect again; report this if it comes back"),
    Reason.REVISION_OLD: About(_U, "the resources changed since the connection was opened", "connect again"),
    Reason.REVOKED: About(_P, "the grant was revoked", "credwire audit tail shows by whom"),
    Reason.REQUEST_MALFORMED: About(_C, "the request is not well-formed HTTP/1.1", "credwire never repairs a request; mend the client"),
    Reason.REQUEST_HEAD_TOO_LARGE: About(_C, "the request's head is larger than the limit", "docs/limits.md lists the limits"),
    Reason.REQUEST_BODY_INCOMPLETE: About(_C, "the request's body ended early", "send as many bytes as announced"),
    Reason.REQUEST_BODY_TOO_LARGE: About(_C, "the request's body must be buffered to be signed and is larger than the limit", "let the client sign its own placeholder request so that the body can stream"),
    Reason.REQUEST_TIMEOUT: About(_C, "the client did not finish its request in time", "docs/limits.md lists the limits"),
    Reason.METHOD_FORBIDDEN: About(_C, "TRACE and CONNECT never carry a credential", "use another method"),
    Reason.UPGRADE_FORBIDDEN: About(_C, "the request asks to change the protocol", "use HTTP/1.1 without Upgrade"),
    Reason.HELLO_MALFORMED: About(_C, "the TLS ClientHello cannot be read", "mend the client"),
    Reason.NOT_TLS: About(_C, "the bytes on a bound port are not TLS", "use https"),
    Reason.CLIENT_DOES_NOT_TRUST_CA: About(_C, "the client does not trust the binding's CA", 'eval "$(credwire ca env --identity NAME)" or credwire run --identity NAME -- CMD'),
    Reason.CLIENT_TLS_FAILED: About(_C, "the TLS handshake with the client failed", "credwire explain ID shows what ended it"),
    Reason.SIGNATURE_UNREADABLE: About(_C, "the client's placeholder signature cannot be read", "use the placeholder profile that credwire documents"),
    Reason.BODY_HASH_MISMATCH: About(_C, "the body differs from the hash the client announced", "mend the client; nothing was accepted by the far side"),
    Reason.UPSTREAM_UNREACHABLE: About(_U, "the destination does not answer", "check the network and the service"),
    Reason.UPSTREAM_UNVERIFIED: About(_U, "the destination's certificate does not verify for the bound name", "name its CA under destinations.upstreamRoots if it is a private one"),
    Reason.UPSTREAM_RESET: About(_U, "the destination closed the connection", "try again"),
    Reason.UPSTREAM_TIMEOUT: About(_U, "the destination did not answer in time", "try again"),
    Reason.UPSTREAM_MALFORMED: About(_U, "the destination's answer is not well-formed HTTP/1.1", "check what listens there"),
    Reason.LEASE_UNAVAILABLE: About(_U, "there is no valid credential", "credwire audit tail shows the last exchange"),
    Reason.EXCHANGE_REFUSED: About(_U, "the identity domain refused the exchange", "check the trust: issuer, subject rule, audience, client"),
    Reason.EXCHANGE_TIMEOUT: About(_U, "the identity domain did not answer in time", "check the network and the source's domain"),
    Reason.EXCHANGE_MALFORMED: About(_U, "the identity domain's answer cannot be understood", "check the source's domain"),
    Reason.EXCHANGE_UNREACHABLE: About(_U, "the identity domain cannot be reached", "check the network and the source's domain"),
    Reason.EXCHANGE_UNVERIFIED: About(_U, "the identity domain's certificate does not verify", "name its CA under upstreamRoots if it is a private one"),
    Reason.PRINCIPAL_MISMATCH: About(_P, "the exchange gave another principal than the federation declares", "mend the trust's rule or the federation"),
    Reason.KEYS_UNAVAILABLE: About(_U, "the keys process does not answer", "credwire status"),
    Reason.AUDIT_UNAVAILABLE: About(_U, "the audit cannot be written, so no credential is given", "free the disk under the state directory"),
    Reason.CONFINEMENT_FAILED: About(_U, "a process could not give up its rights, so it did not start", "start credwired as root in the initial user namespace"),
    Reason.RESOURCE_MALFORMED: About(_C, "the document is not valid", "see the place named"),
    Reason.RESOURCE_DANGLING: About(_C, "the document names something that is not defined", "see the defined names"),
    Reason.RESOURCE_DUPLICATE: About(_C, "the name or destination is taken", "rename or merge"),
    Reason.RESOURCE_OVERBROAD: About(_C, "the document allows more than can be answered for", "narrow it"),
    Reason.RESOURCE_UNCOMPILABLE: About(_C, "the selectors cannot be turned into a kernel filter", "add unix:exe:path, unix:exe:sha256 with a path, or unix:uid"),
}  # fmt: skip


def hint(reason: Reason, *, identity: str = "", refusal_id: str = "") -> str:
    """Say what to try next for ``reason``, with the NAME and ID of its commands filled in where they are known: ready to be pasted."""
    text = ABOUT[reason].hint
    for word, known in ((_NAME, identity), (_ID, refusal_id)):
        if known:
            text = word.sub(lambda _, known=known: known, text)  # type: ignore[misc]  # default binds it
    return text
