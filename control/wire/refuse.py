"""
Say no so that the client's own program prints why.

In: a Refusal, its id and a status, and what the client speaks.  Out: the bytes of an HTTP answer in the far side's own error shape, or a
TLS alert where HTTP has not begun.  Pure.
"""

import html
import json
from collections.abc import Callable
from dataclasses import dataclass

from control.errors import Refusal
from control.reason import ABOUT, Kind, Reason, hint
from control.text import plain
from control.wire.dialect import Dialect

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


@dataclass(frozen=True, slots=True)
class Told:
    """One refusal in words."""

    id: str
    reason: Reason
    what: str
    hint: str

    @property
    def line(self) -> str:
        """All of it in one line that obeys no terminal."""
        return plain(f"credwire: {self.what}; {self.hint} ({self.reason}, id {self.id})")


def refusal_answer(
    refusal_id: str, refusal: Refusal, *, status: int, close: bool, method: str = "GET", to: Dialect = Dialect.JSON, identity: str = ""
) -> bytes:
    """
    Make the whole answer; ``to`` is what the client speaks, ``identity`` fills in the commands of the hint.

    Whatever the dialect, id, reason and hint also stand in headers: a HEAD has nothing else.
    """
    why = refusal.hint or hint(refusal.reason, identity=identity, refusal_id=refusal_id)
    told = Told(refusal_id, refusal.reason, refusal.detail or ABOUT[refusal.reason].says, why)
    kind, body, more = _SHAPES[to](told, status)
    lines = [
        f"HTTP/1.1 {status} {_PHRASES.get(status, 'Refused')}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        *more,
        f"x-credwire-id: {refusal_id}",
        f"x-credwire-reason: {refusal.reason.value}",
        f"x-credwire-hint: {_in_header(why)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ]
    if status == 405:
        lines.append("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")  # RFC 9110 section 15.5.6 requires one
    if close:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" else head + body


def _in_header(text: str) -> str:
    return plain(text).encode("ascii", "backslashreplace").decode()


# ---- one function per shape: content type, body, header lines ------------------------------------------------------------------------

_Shape = tuple[str, bytes, tuple[str, ...]]
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _oci(told: Told, _: int) -> _Shape:
    """``opc-request-id`` is what the OCI CLI prints beside the message."""
    body = json.dumps({"code": told.reason.value, "message": told.line}).encode()
    return "application/json", body, (f"opc-request-id: {told.id}",)


def _json(told: Told, _: int) -> _Shape:
    document = {"code": told.reason.value, "message": told.line, "reason": told.reason.value, "id": told.id, "hint": told.hint}
    return "application/json", json.dumps(document).encode() + b"\n", (f"opc-request-id: {told.id}",)


def _text(told: Told, _: int) -> _Shape:
    return "text/plain; charset=utf-8", f"{told.line}\n".encode(), ()


def _xml_error(told: Told) -> str:
    return f"<Code>{told.reason.value}</Code><Message>{html.escape(told.line, quote=False)}</Message>"


def _s3(told: Told, _: int) -> _Shape:
    body = f"{_XML}<Error>{_xml_error(told)}<RequestId>{told.id}</RequestId><HostId>credwire</HostId></Error>"
    return "application/xml", body.encode(), (f"x-amz-request-id: {told.id}", "x-amz-id-2: credwire")


def _aws_query(told: Told, status: int) -> _Shape:
    blame = "Sender" if status < 500 else "Receiver"
    body = f"{_XML}<ErrorResponse><Error><Type>{blame}</Type>{_xml_error(told)}</Error><RequestId>{told.id}</RequestId></ErrorResponse>"
    return "text/xml", body.encode(), (f"x-amzn-requestid: {told.id}",)


def _ec2(told: Told, _: int) -> _Shape:
    body = f"{_XML}<Response><Errors><Error>{_xml_error(told)}</Error></Errors><RequestID>{told.id}</RequestID></Response>"
    return "text/xml", body.encode(), ()


def _aws_headers(told: Told) -> tuple[str, ...]:
    return (f"x-amzn-errortype: {told.reason.value}", f"x-amzn-requestid: {told.id}")


def _aws_json(told: Told, _: int) -> _Shape:
    return "application/x-amz-json-1.1", json.dumps({"__type": told.reason.value, "message": told.line}).encode(), _aws_headers(told)


def _aws_rest(told: Told, _: int) -> _Shape:
    return "application/json", json.dumps({"code": told.reason.value, "message": told.line}).encode(), _aws_headers(told)


def _aws_cbor(told: Told, _: int) -> _Shape:
    body = b"\xa2" + b"".join(map(_cbor_text, ("__type", told.reason.value, "message", told.line)))  # a map of two pairs
    return "application/cbor", body, (*_aws_headers(told), "smithy-protocol: rpc-v2-cbor")


def _cbor_text(text: str) -> bytes:
    """Make a text string with its length in two bytes (RFC 8949 section 3.1, major type 3)."""
    raw = text.encode()[:0xFFFF]
    return b"\x79" + len(raw).to_bytes(2, "big") + raw


_SHAPES: dict[Dialect, Callable[[Told, int], _Shape]] = {
    Dialect.OCI: _oci, Dialect.JSON: _json, Dialect.TEXT: _text, Dialect.S3: _s3, Dialect.AWS_QUERY: _aws_query, Dialect.EC2: _ec2,
    Dialect.AWS_JSON: _aws_json, Dialect.AWS_REST: _aws_rest, Dialect.AWS_CBOR: _aws_cbor,
}  # fmt: skip


_ALERT_DECODE_ERROR = 50
_ALERT_ACCESS_DENIED = 49
_ALERT_INTERNAL_ERROR = 80
"""RFC 8446 section 6."""


def tls_alert(reason: Reason) -> bytes:
    """Make a fatal alert in the clear, the one answer that a client in the middle of its hello understands."""
    kind = ABOUT[reason].kind
    alert = {Kind.POLICY: _ALERT_ACCESS_DENIED, Kind.UNAVAILABLE: _ALERT_INTERNAL_ERROR, Kind.CLIENT: _ALERT_DECODE_ERROR}[kind]
    return bytes((21, 3, 3, 0, 2, 2, alert))
