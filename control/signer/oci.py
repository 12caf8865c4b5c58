"""
Put an OCI request signature on a request.

In: the request head as it will be sent, an issue (UPST and its session key), the time.  Out: the headers to remove and to set.
Rules: draft-cavage-http-signatures-08 as Oracle profiles it (rsa-sha256, version 1, keyId ``ST$<token>``).
The client's own placeholder signature says which headers to sign (the mirror rule): no table of operations to keep, and bodies stream.
Never fewer than date, (request-target) and host are signed.

The head comes from a process that must be able to lie without gain: a line break in any value would let it put a line of its choice into
the signing string, so every name and value is checked before one is used.  Pure.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from email.utils import formatdate

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from control.binding.model import WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import BODY_HASH_WANTED, Request, Signed

EMPTY_SHA256 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
"""base64 SHA-256 of nothing; Oracle's services want it on empty bodies too."""

_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_BODY_HEADERS = ("content-length", "content-type", "x-content-sha256")
_ONCE = frozenset({"authorization", "content-length", "content-type", "date", "host", "x-content-sha256", "x-date"})
"""Headers that a verifier reads as one value: a second one could be read in place of the one we signed."""
_NEVER_MIRRORED = frozenset(
    {"authorization", "connection", "expect", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Replaced, or spent on the first hop (RFC 9110 7.6.1): a signature over them could not verify."""
_CLIENT_MATERIAL = ("authorization", "opc-obo-token")
"""What the scheme reads a credential from: the signature, and the delegation token that speaks for somebody else."""
_LIST_MOST = 64

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A header's name or a method: token of RFC 9110 5.6.2."""
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""A header's value: field-value of RFC 9110 5.5, as latin-1 text; no CR, LF or NUL."""
_TARGET = re.compile(r"/[\x21-\x7e]*")
"""origin-form of RFC 9112 3.2.1: no blank, no control character."""
_PARAMETER = re.compile(r'\s*([A-Za-z]+)="([^"\\]*)"\s*(,|\Z)')


def sign(request: Request, issue: Issue, now: float, _: WireSigner) -> Signed | Refusal:
    """Sign ``request`` with ``issue`` at ``now`` (Unix seconds)."""
    if issue.session_key is None:
        return Refusal(Reason.LEASE_UNAVAILABLE, "the source gives no key to sign with")
    fault = _malformed(request)
    if fault:
        return Refusal(Reason.REQUEST_MALFORMED, fault)
    head = _Head(request)
    if head.repeated:
        return Refusal(Reason.REQUEST_MALFORMED, f'header "{head.repeated}" stands twice')
    mirrored = _mirrored(head.one("authorization"))
    if isinstance(mirrored, Refusal):
        return mirrored
    plan = _plan_alone(request.method, head) if mirrored is None else _plan_mirrored(mirrored, head)
    if isinstance(plan, Refusal):
        return plan
    names, fresh = plan
    fresh |= {name: formatdate(now, usegmt=True) for name in ("date", "x-date") if name in names}
    if "x-content-sha256" in names and not _is_sha256(fresh.get("x-content-sha256") or head.one("x-content-sha256") or ""):
        return Refusal(Reason.SIGNATURE_UNREADABLE, 'header "x-content-sha256" is not the base64 of 32 bytes')
    text = signing_string(names, request, head.values | fresh)
    signature = base64.b64encode(issue.session_key.sign(text.encode("latin-1"), PKCS1v15(), SHA256())).decode()
    token = issue.token.reveal().decode("ascii")
    authorization = f'Signature version="1",keyId="ST${token}",algorithm="rsa-sha256",headers="{" ".join(names)}",signature="{signature}"'
    covered = (fresh.get("x-content-sha256") or head.one("x-content-sha256") or "") if "x-content-sha256" in names else ""
    return Signed(
        remove=tuple(dict.fromkeys((*_CLIENT_MATERIAL, "x-date", *fresh))),  # an x-date that is not signed would be read before date
        set=(*fresh.items(), ("authorization", authorization)),
        body_sha256=covered,
    )


def signing_string(names: Sequence[str], request: Request, values: dict[str, str]) -> str:
    """Give the text to be signed (draft-cavage 2.3): one line for each name, in order, no line break at the end."""
    return "\n".join(
        f"(request-target): {request.method.lower()} {request.target}" if name == "(request-target)" else f"{name}: {values[name]}"
        for name in names
    )


class _Head:
    """The headers by lower-case name; repeated ones joined as draft-cavage 2.3 joins them."""

    def __init__(self, request: Request) -> None:
        self.values: dict[str, str] = {}
        self.repeated = ""
        """The first header that may stand once and stands twice."""
        for raw_name, raw_value in request.headers:
            name, value = raw_name.lower(), raw_value.strip(" \t")
            if name in self.values:
                if name in _ONCE:
                    self.repeated = self.repeated or name
                value = f"{self.values[name]}, {value}"
            self.values[name] = value

    def one(self, name: str) -> str | None:
        return self.values.get(name)


def _malformed(request: Request) -> str:
    """Name what could smuggle a line into the signing string; empty when nothing could."""
    if not _TOKEN.fullmatch(request.method):
        return "the method is not a token"
    if not _TARGET.fullmatch(request.target):
        return "the request target is not an absolute path of printable ASCII"
    for name, value in request.headers:
        if not _TOKEN.fullmatch(name):
            return "a header's name is not a token"
        if not _VALUE.fullmatch(value):
            return f'header "{name.lower()}" holds a control character'
    return ""


def _mirrored(authorization: str | None) -> tuple[str, ...] | Refusal | None:
    """Read the list of signed headers from the client's placeholder; None when it did not sign (another scheme does not count)."""
    if authorization is None:
        return None
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "signature":
        return None
    parameters: dict[str, str] = {}
    at = 0
    while True:
        match = _PARAMETER.match(rest, at)
        if match is None:
            return Refusal(Reason.SIGNATURE_UNREADABLE, 'the parameters after "Signature" cannot be read')
        name = match[1].lower()
        if name in parameters:
            return Refusal(Reason.SIGNATURE_UNREADABLE, f'parameter "{name}" of the signature stands twice')
        parameters[name] = match[2]
        at = match.end()
        if match[3] != ",":
            break
    names = tuple(parameters.get("headers", "date").lower().split())  # draft-cavage 2.1.6: date alone when not given
    if len(names) > _LIST_MOST:
        return Refusal(Reason.SIGNATURE_UNREADABLE, f"the signature names more than {_LIST_MOST} headers")
    if len(set(names)) != len(names):
        return Refusal(Reason.SIGNATURE_UNREADABLE, "the signature names a header twice")
    return names


Plan = tuple[tuple[str, ...], dict[str, str]]
"""Names to sign in order, and headers to set beside authorization and dates."""


def _plan_mirrored(mirrored: tuple[str, ...], head: _Head) -> Plan | Refusal:
    names = [n for n in mirrored if n not in _CLIENT_MATERIAL]
    for name in names:
        if name in _NEVER_MIRRORED:
            return Refusal(Reason.SIGNATURE_UNREADABLE, f'header "{name}" cannot be signed: it does not reach the far side as sent')
    if not {"date", "x-date"} & set(names):
        names.append("x-date" if "x-date" in head.values else "date")
    names += [n for n in ("(request-target)", "host") if n not in names]
    for name in names:
        if name not in head.values and name not in ("(request-target)", "date", "x-date"):
            return Refusal(Reason.SIGNATURE_UNREADABLE, f'the signature names "{_shown(name)}", which the request does not have')
    return tuple(names), {}


def _plan_alone(method: str, head: _Head) -> Plan | Refusal:
    date = "x-date" if "x-date" in head.values else "date"
    names = (date, "(request-target)", "host")
    if "host" not in head.values:
        return Refusal(Reason.REQUEST_MALFORMED, "the request has no host")
    if method.upper() not in _BODY_METHODS:
        return names, {}
    fresh: dict[str, str] = {}
    length = head.one("content-length")
    if length == "0":
        fresh |= {"content-length": "0", "x-content-sha256": EMPTY_SHA256}
    elif length is None or "x-content-sha256" not in head.values:
        # no length may mean no body or a chunked one: framing is the proxy's, who answers by naming length and hash
        return Refusal(Reason.SIGNATURE_UNREADABLE, BODY_HASH_WANTED)
    if "content-type" not in head.values:
        fresh["content-type"] = "application/json"  # what Oracle's own signer does
    return (*names, *_BODY_HEADERS), fresh


def _is_sha256(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in name[:64])
