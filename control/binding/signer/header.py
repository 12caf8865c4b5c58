"""
``signer: header``: the secret in a header of any name.

In: the ``wire`` mapping.  Out: a HeaderSigner.  docs/reference/workload-credential.md.
Names are tokens (RFC 9110 section 5.6.2).  Those that say where a message ends, where it goes or what its body is belong to the wire.
Pure.
"""

import re

from control.binding.model import HeaderSigner
from control.binding.name import malformed
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind

PLACEHOLDER = "{secret}"
MAX_NAME = 128
MAX_TEMPLATE = 1024
"""Characters."""

_TOKEN = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_NAME}}}")
_OF_ONE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "http2-settings")
)  # fmt: skip
_OF_THE_MESSAGE = frozenset(
    ("host", "date", "expect", "via", "forwarded", "max-forwards", "range", "if-range", "accept-encoding", "te", "x-http-method-override",
     "x-method-override", "x-http-method", "x-original-url", "x-rewrite-url", "x-content-sha256", "alt-svc", "early-data")
)  # fmt: skip
_ITS_OWN = {"cookie": "signer: cookie", "set-cookie": "signer: cookie"}


def check_header(value: str) -> str:
    """Accept a field name that may carry a secret, and give it in lower case."""
    low = value.lower()
    if not _TOKEN.fullmatch(value):
        raise malformed(f'header "{value}" is no header name', "write it like x-api-key: letters, digits and -")
    if low in _ITS_OWN:
        raise malformed(f'header "{value}" holds more than one value of its own', f"use {_ITS_OWN[low]}")
    if low in _OF_ONE_CONNECTION or low in _OF_THE_MESSAGE or low.startswith(("content-", "x-forwarded-")):
        raise malformed(
            f'header "{value}" says how the message travels and carries no secret', "name the header that the service documents"
        )
    return low


def check_template(value: str) -> str:
    """Accept printable ASCII with one placeholder.  No error repeats the value: a secret may stand there by mistake."""
    if value.count(PLACEHOLDER) != 1:
        raise malformed(
            f"template has {value.count(PLACEHOLDER) or 'no'} {PLACEHOLDER}",
            f'write {PLACEHOLDER} once where the secret belongs, like "Token {PLACEHOLDER}"; if a secret stands here, change it',
        )
    if "{" in value.replace(PLACEHOLDER, "") or "}" in value.replace(PLACEHOLDER, ""):
        raise malformed(f"template has braces beside {PLACEHOLDER}", "nothing else is filled in")
    if not value.isascii() or not value.isprintable() or len(value) > MAX_TEMPLATE:
        raise malformed(f"template holds control characters or non-ASCII, or is longer than {MAX_TEMPLATE}", "write printable ASCII")
    return value


def _read(wire: Sheet) -> HeaderSigner | None:
    header = wire.text("header", needed=True, check=check_header, example="x-api-key")
    template = wire.text("template", default=PLACEHOLDER, check=check_template)
    return HeaderSigner(header, template) if header and template else None


KIND = SignerKind(
    "header",
    _read,
    {
        "header": {
            "type": "string",
            "pattern": f"^{_TOKEN.pattern}$",
            "description": "field name; hop-by-hop and framing ones are refused",
        },
        "template": {
            "type": "string",
            "pattern": r"^[^{}]*\{secret\}[^{}]*$",
            "maxLength": MAX_TEMPLATE,
            "default": PLACEHOLDER,
            "description": "the value; {secret} stands in it once",
        },
    },
    ("header",),
)
