"""
Name what went wrong in a TLS handshake.

In: the exception the event loop raised.  Out: a Reason and a detail for people.  OpenSSL's reason strings are its own (ssl.SSLError.reason,
err(7)); alerts are those of RFC 8446 section 6.  Pure.
"""

import ssl

from control.reason import Reason

_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED")


def client_fault(error: BaseException) -> tuple[Reason, str]:
    """Say why a client did not finish its handshake with us."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        if "ALERT" in reason and any(word in reason for word in _DISTRUST):
            return Reason.CLIENT_DOES_NOT_TRUST_CA, f"the client answered our certificate with {_alert(reason)}"
        if "EOF" in reason:
            return Reason.CLIENT_DOES_NOT_TRUST_CA, "the client closed during the handshake; perhaps it does not trust the binding's CA"
        return Reason.CLIENT_TLS_FAILED, _alert(reason) if "ALERT" in reason else reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return Reason.CLIENT_TLS_FAILED, "the client did not finish its handshake in time"
    if isinstance(error, ConnectionError):
        if "longer than" in str(error):  # uvloop's wording of its handshake time limit
            return Reason.CLIENT_TLS_FAILED, "the client did not finish its handshake in time"
        return Reason.CLIENT_DOES_NOT_TRUST_CA, "the client closed during the handshake; perhaps it does not trust the binding's CA"
    return Reason.CLIENT_TLS_FAILED, type(error).__name__


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
