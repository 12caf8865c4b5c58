"""
Put the secret into a cookie.

In: the request head, an issue, the cookie's name.  Out: one ``cookie`` header: the client's own, without every cookie of that name, and
ours behind them.  The others stay byte for byte.  Rules: RFC 6265 4.1.1, 4.2 and 5.4 (a client sends one header).  Pure.
"""

import re

from control.binding.model import CookieSigner, WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import Request, Signed
from control.signer.secret import TOKEN, text_of, too_long

_OCTETS = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
"""cookie-octet: visible ASCII without double quote, comma, semicolon and backslash."""


def sign(request: Request, issue: Issue, _: float, options: WireSigner) -> Signed | Refusal:
    """Set the header."""
    assert isinstance(options, CookieSigner)  # noqa: S101  # the registry chose us by its tag
    if not TOKEN.fullmatch(options.cookie):
        return Refusal(Reason.RESOURCE_MALFORMED, "the cookie's name is not a token", "mend delivery.wire.cookie")
    secret = text_of(issue, grammar=_OCTETS, carrier="a cookie")
    if isinstance(secret, Refusal):
        return secret
    own = f"{options.cookie}={secret}"
    kept: list[str] = []
    for name, value in request.headers:
        if name.lower() != "cookie":
            continue
        pairs = value.split(";")
        if any(pair.count('"') % 2 for pair in pairs):
            # RFC 6265 ends a cookie at any semicolon, older parsers read on to the closing quote
            return Refusal(Reason.REQUEST_MALFORMED, "a quoted cookie holds a semicolon, which is read in two ways")
        rest = ";".join(pair for pair in pairs if pair.partition("=")[0].strip(" \t") != options.cookie).strip(" \t")
        if rest:
            kept.append(rest)
    return too_long(issue, "a cookie", len(own)) or Signed(remove=("cookie",), set=(("cookie", "; ".join([*kept, own])),))
