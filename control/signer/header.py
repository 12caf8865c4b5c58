"""
Put the secret into a header of any name.

In: the request head, an issue, the name and the template.  Out: the header to set; every header of that name is removed, ``x_api_key``
beside ``x-api-key`` too: gateways in front of CGI and WSGI programs make one of the two.  Rules: RFC 9110 5.5.  Pure.
"""

from control.binding.model import HeaderSigner, WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import Request, Signed
from control.signer.secret import TOKEN, VISIBLE, text_of, too_long

FRAMING = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that say where a message ends or where it goes; a credential in one of them would be a second request."""
_PLACE = "{secret}"


def sign(request: Request, issue: Issue, _: float, options: WireSigner) -> Signed | Refusal:
    """Set the header."""
    assert isinstance(options, HeaderSigner)  # noqa: S101  # the registry chose us by its tag
    name, template = options.header.lower(), options.template
    if not TOKEN.fullmatch(name) or name.replace("_", "-") in FRAMING:
        return Refusal(Reason.RESOURCE_MALFORMED, "the header's name cannot carry a credential", "mend delivery.wire.header")
    before, place, after = template.partition(_PLACE)
    if not place or _PLACE in after or not VISIBLE.fullmatch(before + "x" + after):
        return Refusal(Reason.RESOURCE_MALFORMED, "the template does not hold {secret} once in visible text", "mend delivery.wire.template")
    secret = text_of(issue, grammar=VISIBLE, carrier="a header")
    if isinstance(secret, Refusal):
        return secret
    value = before + secret + after
    named = {name, *(other for other, _ in request.headers if _same(other, name))}
    remove = tuple(sorted({other.lower() for other in named}))
    return too_long(issue, "a header", len(value)) or Signed(remove=remove, set=((name, value),))


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.replace("_", "-")
