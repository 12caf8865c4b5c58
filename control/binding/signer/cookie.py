"""
``signer: cookie``: the secret as a cookie.

In: the ``wire`` mapping.  Out: a CookieSigner.  docs/reference/workload-credential.md.  Pure.
"""

import re

from control.binding.model import CookieSigner
from control.binding.name import malformed
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""cookie-name of RFC 6265 section 4.1.1."""


def check_cookie(value: str) -> str:
    """Accept a cookie's name."""
    if not _TOKEN.fullmatch(value):
        raise malformed(f'cookie "{value}" is no cookie name', "write its name alone, like session_id")
    return value


def _read(wire: Sheet) -> CookieSigner | None:
    cookie = wire.text("cookie", needed=True, check=check_cookie, example="session_id")
    return CookieSigner(cookie) if cookie else None


KIND = SignerKind(
    "cookie", _read, {"cookie": {"type": "string", "pattern": f"^{_TOKEN.pattern}$", "description": "name of the cookie"}}, ("cookie",)
)
