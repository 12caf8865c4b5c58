"""
Write heads anew for the next hop.

In: heads that head.py accepted, and the signature.  Out: header lines and bytes.  Fields of one connection and those it nominates do not
pass; framing is written by us; the rest goes in the order and the spelling in which it came (RFC 9110 section 7.6.1).  Pure.
"""

import re

from control.wire.ask import Headers, Signed
from control.wire.head import HOP_BY_HOP, AnswerHead, Fields, RequestHead

_ANSWER_DROPPED = HOP_BY_HOP | {"alt-svc"}
"""``alt-svc`` would lead the client to HTTP/3 or another port, around us."""


_LEADS_ON = frozenset(("location", "content-location", "link", "refresh"))
"""Servers build these from the request's target, and so from the credential in it (H9)."""
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*+")
"""Origin form: begins with a slash, no blank, no control, no fragment (RFC 9112 section 3.2.1)."""


class BadSignature(Exception):
    """What keys told to set would change the framing or the path; only a fault of ours can be behind it.  Never says what it was."""


def forwarded_fields(head: RequestHead, host: str) -> Fields:
    """Give the request's lines as they will be sent, before the signature; ``host`` as it will stand in Host."""
    dropped = HOP_BY_HOP | head.nominated if head.nominated else HOP_BY_HOP
    fields: Fields = []
    for field in head.fields:
        low = field[0].lower()
        if low == "host":
            fields.append((field[0], host))
        elif low not in dropped:
            fields.append(field)
    return fields


def with_body_hash(fields: Fields, sha256_base64: str, length: int) -> Fields:
    """Announce a body that we hold whole: its hash and its length, and no wait for a 100."""
    kept = [field for field in fields if field[0].lower() not in ("content-length", "expect", "x-content-sha256")]
    return [*kept, ("content-length", str(length)), ("x-content-sha256", sha256_base64)]


def sign_fields(fields: Fields, signed: Signed, length: int | None) -> Fields:
    """
    Apply what keys answered.

    ``length`` is the body's, None when it is chunked.  Raises BadSignature.
    """
    gone = {name.lower() for name in signed.remove}
    for name, value in signed.set:
        low = name.lower()
        if low in ("transfer-encoding", "connection", "host") or (low == "content-length" and value != str(length)):
            raise BadSignature(f"keys set {low}")
        if "\r" in value or "\n" in value or "\0" in value or not name:
            raise BadSignature(f"keys set a malformed {low}")
        gone.add(low)
    if gone & {"host", "transfer-encoding"} or ("content-length" in gone and not any(n.lower() == "content-length" for n, _ in signed.set)):
        raise BadSignature("keys removed a framing header")
    return [*(field for field in fields if field[0].lower() not in gone), *signed.set]


def sent_target(head: RequestHead, signed: Signed) -> str:
    """
    Give the request target for the wire: the client's, or the one that holds the secret.

    Raises BadSignature, without the target, when that one is not the path that was decided on.
    """
    if not signed.target:
        return head.target
    if _TARGET.fullmatch(signed.target) is None or signed.target.partition("?")[0] != head.path:
        raise BadSignature("keys set a request target that is not the path that was decided on")
    return signed.target


def write_request(method: str, target: str, fields: Fields, *, chunked: bool) -> bytes:
    """Give the bytes of a request head."""
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in fields]
    lines.append("Transfer-Encoding: chunked\r\n\r\n" if chunked else "\r\n")
    return "".join(lines).encode("latin-1")


def write_answer(head: AnswerHead, *, chunked: bool, close: bool, own: str = "") -> bytes:
    """Give the bytes of an answer head for the client; ``own`` is the parameter of the target that holds the secret."""
    dropped = _ANSWER_DROPPED | head.nominated if head.nominated else _ANSWER_DROPPED
    if head.status < 200 or head.status == 204:
        dropped = dropped | {"content-length"}  # must not announce one (RFC 9110 section 8.6)
    lines = [f"HTTP/1.1 {head.status} {head.phrase}\r\n"]
    for name, value in head.fields:
        low = name.lower()
        if own and low in _LEADS_ON:
            value = value.replace(own, f"{own.partition('=')[0]}=placeholder")  # noqa: PLW2901  # the next request gets it again
        if low not in dropped and not low.startswith("x-credwire-"):  # who reads these believes that we refused
            lines.append(f"{name}: {value}\r\n")
    if chunked:
        lines.append("transfer-encoding: chunked\r\n")
    lines.append("connection: close\r\n\r\n" if close else "\r\n")
    return "".join(lines).encode("latin-1")


def as_headers(fields: Fields) -> Headers:
    """Give the lines in the shape in which they travel to keys."""
    return tuple(fields)
