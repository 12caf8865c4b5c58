"""
Name what went wrong in a TLS handshake.

In: the exception the event loop raised, and what the socket tells.  Out: a Reason and a detail for people.  OpenSSL's reason strings
are its own (ssl.SSLError.reason, err(7)); alerts are those of RFC 8446 section 6.  Pure.

How clients say that they do not trust a CA, as seen with each (tests/unit/wire/test_wire_trust.py runs them):
- an alert in the handshake: OpenSSL (curl, Python, s_client), Java, Go, NSS;
- a close in the handshake, after everything of ours was read and before TLS 1.3's Finished: Node;
- a close after a whole handshake, before the first byte of a request: GnuTLS (git, wget) with either version, Node with TLS 1.2.
Who looks at nothing of ours before they go (a scan, a program that was killed, a health check of the port) is none of these.
"""

import ssl

from control.reason import Reason

_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED", "DECRYPT_ERROR")
"""OpenSSL answers with decrypt_error where the CA it knows has the right name and another key: a bundle of before the CA was made anew."""


def client_fault(error: BaseException, *, looked: bool) -> tuple[Reason, str]:
    """Say why a client did not finish its handshake with us; ``looked`` when it had read all of ours before it closed."""
    if (alert := distrust_alert(error)) is not None:
        return Reason.CLIENT_DOES_NOT_TRUST_CA, f"the client answered our certificate with {alert}"
    if isinstance(error, ssl.SSLError) and "EOF" not in (error.reason or ""):
        reason = error.reason or "unknown"
        return Reason.CLIENT_TLS_FAILED, _alert(reason) if "ALERT" in reason else reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError) or (isinstance(error, ConnectionError) and "longer than" in str(error)):  # uvloop's wording
        return Reason.CLIENT_TLS_FAILED, "the client did not finish its handshake in time"
    if isinstance(error, OSError):  # ssl.SSLError is one
        if looked:
            detail = "the client read our certificate and closed without an alert; perhaps it does not trust the binding's CA"
            return Reason.CLIENT_DOES_NOT_TRUST_CA, detail
        return Reason.CLIENT_TLS_FAILED, "the client closed during the handshake, before it had read our certificate"
    return Reason.CLIENT_TLS_FAILED, type(error).__name__


def distrust_alert(error: BaseException | None) -> str | None:
    """Give the alert by which a client says that it does not take our certificate."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return _alert(reason) if "ALERT" in reason and any(word in reason for word in _DISTRUST) else None


def silent_fault(error: BaseException | None, *, within_s: float, limit_s: float, trusted: bool) -> str | None:
    """
    Say whether a client that shook hands and left without a byte of a request means that it does not trust us; None where it does not.

    It looks like a health check that shakes hands, so it only counts ``within_s`` of the handshake shorter than ``limit_s`` and where
    the process was never seen to trust this name.
    """
    if (alert := distrust_alert(error)) is not None:
        return f"the client answered our certificate with {alert} after the handshake"
    if trusted or within_s >= limit_s:
        return None
    return "the client shook hands and closed without a request; perhaps it does not trust the binding's CA"


def _alert(reason: str) -> str:
    """``TLSV1_ALERT_UNKNOWN_CA`` becomes ``alert unknown ca``."""
    return "alert" + reason.partition("ALERT")[2].lower().replace("_", " ")


def upstream_fault(error: BaseException) -> tuple[Reason, str]:
    """Say why a connection to a bound destination could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Reason.UPSTREAM_UNVERIFIED, error.verify_message
    if isinstance(error, ssl.SSLError):
        return Reason.UPSTREAM_UNVERIFIED, (error.reason or "the TLS handshake failed").lower().replace("_", " ")
    if isinstance(error, TimeoutError) or (isinstance(error, ConnectionError) and "longer than" in str(error)):
        return Reason.UPSTREAM_TIMEOUT, "no connection in time"
    if isinstance(error, OSError):
        return Reason.UPSTREAM_UNREACHABLE, error.strerror or type(error).__name__
    return Reason.UPSTREAM_UNREACHABLE, type(error).__name__
