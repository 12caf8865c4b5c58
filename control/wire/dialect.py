"""
Tell from a request which shape of error its client prints.

In: header lines, the request target and the host it was for.  Out: a Dialect.  Cosmetic only: nothing is decided by it, so a client that
lies gets its refusal in a shape that it cannot read, and that is all.
Sources: Oracle's SDKs (``{"code", "message"}``), botocore/parsers.py (one shape per AWS protocol), RFC 9110 section 12.5.1 (Accept).  Pure.
"""

import re
from enum import Enum, auto

from control.wire.head import Fields


class Dialect(Enum):
    """One shape of an error."""

    OCI = auto()
    """``{"code", "message"}`` and ``opc-request-id``."""
    S3 = auto()
    """``<Error>`` of S3's REST XML."""
    AWS_QUERY = auto()
    """``<ErrorResponse>``: the query protocol (STS, IAM, SQS of old) and REST XML other than S3's."""
    EC2 = auto()
    """``<Response><Errors>``"""
    AWS_JSON = auto()
    """``__type`` in JSON 1.0 or 1.1, for requests with ``x-amz-target``."""
    AWS_REST = auto()
    """REST JSON: the code stands in ``x-amzn-errortype``."""
    AWS_CBOR = auto()
    """Smithy RPC v2 CBOR."""
    JSON = auto()
    """For programs that ask for JSON, or for nothing in particular."""
    TEXT = auto()
    """One line for people: curl, git, wget."""


_OCI_HOST = re.compile(r"(?:.*\.)?oracle(?:gov)?cloud[0-9]*\.[a-z.]+")
_AWS_HOST = re.compile(r"(?:.*\.)?amazonaws\.com(?:\.cn)?")
_S3_HOST = re.compile(r"(?:.*\.)?s3(?:[.-][a-z0-9.-]*)?\.amazonaws\.com(?:\.cn)?")
_SCOPE = re.compile(r"Credential=[^/,\s]*(?:/|%2F)[0-9]{8}(?:/|%2F)[a-z0-9*-]*(?:/|%2F)([a-z0-9-]+)(?:/|%2F)aws4_request", re.IGNORECASE)
"""Credential scope of Signature Version 4: date, region, service."""
_S3_SERVICES = frozenset(("s3", "s3express", "s3-outposts", "s3-object-lambda"))
_ACCEPT_MOST = 2048
_LINES_MOST = 128


def dialect(fields: Fields, target: str, host: str) -> Dialect:
    """Choose for a request whose head is known."""
    told = {name.lower(): value for name, value in fields}
    authorization = told.get("authorization", "")
    if authorization.startswith("AWS4-") or "X-Amz-Algorithm=AWS4-" in target or _AWS_HOST.fullmatch(host):
        return _aws(told, authorization, target, host)
    if authorization.startswith("Signature ") or _OCI_HOST.fullmatch(host):
        return Dialect.OCI
    return _accepted(told.get("accept", ""))


def dialect_of_bytes(raw: bytes, host: str) -> Dialect:
    """Choose for bytes that are no request, as well as can be: what looks like a header line counts as one."""
    first, *lines = raw[: 16 << 10].decode("latin-1").split("\n", _LINES_MOST)
    pairs = (line.partition(":") for line in lines)
    return dialect([(name.strip(), value.strip()) for name, colon, value in pairs if colon], first, host)


def _aws(told: dict[str, str], authorization: str, target: str, host: str) -> Dialect:
    if told.get("smithy-protocol", "").startswith("rpc-v2-cbor"):
        return Dialect.AWS_CBOR
    if "x-amz-target" in told:
        return Dialect.AWS_JSON
    scope = _SCOPE.search(authorization) or _SCOPE.search(target)
    service = scope[1].lower() if scope else ""
    if service in _S3_SERVICES or (not service and _S3_HOST.fullmatch(host)):
        return Dialect.S3
    if service == "ec2":
        return Dialect.EC2
    form = told.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if form or "Action=" in target or service in ("route53", "cloudfront"):
        return Dialect.AWS_QUERY
    return Dialect.AWS_REST


def _accepted(accept: str) -> Dialect:
    """Say whether JSON or text is preferred: the higher weight, then the first named; any type will do is text, silence is JSON."""
    if not accept:
        return Dialect.JSON
    best, chosen = 0.0, Dialect.TEXT
    for media_range in accept[:_ACCEPT_MOST].lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        found = _OF_TYPE.get(kind) or (Dialect.JSON if kind.endswith("+json") else None)
        weight = _weight(parameters)
        if found is not None and weight > best:
            best, chosen = weight, found
    return chosen


_OF_TYPE = {
    "application/json": Dialect.JSON,
    "text/json": Dialect.JSON,
    "text/plain": Dialect.TEXT,
    "text/html": Dialect.TEXT,
    "text/*": Dialect.TEXT,
}


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
