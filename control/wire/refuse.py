"""
Say no so that the client's own program prints why.

In: a Refusal, its id and a status.  Out: the bytes of an HTTP answer in Oracle's error shape (``{"code", "message"}``), or a TLS alert
where HTTP has not begun.  Pure.
"""

import json

from control.errors import Refusal
from control.reason import ABOUT, Kind, Reason

_PHRASES = {
    400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large",
    414: "URI Too Long", 417: "Expectation Failed", 421: "Misdirected Request", 431: "Request Header Fields Too Large",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip

_STATUS = {
    Reason.METHOD_FORBIDDEN: 405,
    Reason.HOST_MISMATCH: 421,
    Reason.REQUEST_TIMEOUT: 408,
    Reason.REQUEST_HEAD_TOO_LARGE: 431,
    Reason.REQUEST_BODY_TOO_LARGE: 413,
    Reason.UPSTREAM_UNREACHABLE: 502,
    Reason.UPSTREAM_UNVERIFIED: 502,
    Reason.UPSTREAM_RESET: 502,
    Reason.UPSTREAM_MALFORMED: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
}
_STATUS_OF_KIND = {Kind.POLICY: 403, Kind.UNAVAILABLE: 503, Kind.CLIENT: 400}


def status_of(reason: Reason) -> int:
    """Give the status that goes with ``reason``."""
    return _STATUS.get(reason) or _STATUS_OF_KIND[ABOUT[reason].kind]


def refusal_answer(refusal_id: str, refusal: Refusal, *, status: int, close: bool, method: str = "GET") -> bytes:
    """
    Make the whole answer.

    ``opc-request-id`` is what the OCI CLI prints beside the message.
    """
    about = ABOUT[refusal.reason]
    message = f"credwire: {refusal.detail or about.says}; {refusal.hint or about.hint} (id {refusal_id})"
    body = json.dumps({"code": refusal.reason.value, "message": message}).encode()
    lines = [
        f"HTTP/1.1 {status} {_PHRASES.get(status, 'Refused')}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"opc-request-id: {refusal_id}",
        f"x-credwire-id: {refusal_id}",
        f"x-credwire-reason: {refusal.reason.value}",
        "cache-control: no-store",
    ]
    if status == 405:
        lines.append("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")  # RFC 9110 section 15.5.6 requires one
    if close:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" else head + body


_ALERT_DECODE_ERROR = 50
_ALERT_ACCESS_DENIED = 49
_ALERT_INTERNAL_ERROR = 80
"""RFC 8446 section 6."""


def tls_alert(reason: Reason) -> bytes:
    """Make a fatal alert in the clear, the one answer that a client in the middle of its hello understands."""
    kind = ABOUT[reason].kind
    alert = {Kind.POLICY: _ALERT_ACCESS_DENIED, Kind.UNAVAILABLE: _ALERT_INTERNAL_ERROR, Kind.CLIENT: _ALERT_DECODE_ERROR}[kind]
    return bytes((21, 3, 3, 0, 2, 2, alert))
