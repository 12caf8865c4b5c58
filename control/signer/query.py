"""
Put the secret into the query of the request target.

In: the request target, an issue, the parameter's name.  Out: the target to send in its place.
Every parameter of that name is taken out, however its letters are percent-encoded; all other bytes stay as the client sent them.
Rules: RFC 3986 3.4, application/x-www-form-urlencoded of the URL standard.  Pure.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from control.binding.model import QuerySigner, WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import Request, Signed
from control.signer.secret import text_of, too_long

_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
"""origin-form of RFC 9112 3.2.1; without a number sign, behind which some servers read no further."""


def sign(request: Request, issue: Issue, _: float, options: WireSigner) -> Signed | Refusal:
    """Give the target with the secret as its last parameter."""
    assert isinstance(options, QuerySigner)  # noqa: S101  # the registry chose us by its tag
    if not options.parameter:
        return Refusal(Reason.RESOURCE_MALFORMED, "the parameter has no name", "mend delivery.wire.parameter")
    if not _TARGET.fullmatch(request.target):
        return Refusal(Reason.REQUEST_MALFORMED, "the request target is not an absolute path of printable ASCII without a number sign")
    secret = text_of(issue)
    if isinstance(secret, Refusal):
        return secret
    path, _mark, query = request.target.partition("?")
    name = options.parameter.encode()
    kept = [part for part in query.split("&") if _name_of(part) != name] if query else []
    if any(_name_of(piece) == name for part in kept for piece in part.split(";")):
        # form encoding once let a semicolon separate, and servers that still do would read the client's value
        return Refusal(Reason.REQUEST_MALFORMED, "the query names the credential's parameter behind a semicolon, which is read in two ways")
    own = f"{quote(options.parameter, safe='')}={quote(secret, safe='')}"
    return too_long(issue, "a parameter", len(own)) or Signed(remove=(), set=(), target=f"{path}?{'&'.join([*kept, own])}")


def _name_of(part: str) -> bytes:
    """Decode a parameter's name as servers do; in form encoding a plus is a blank."""
    return unquote_to_bytes(part.partition("=")[0].replace("+", " "))
