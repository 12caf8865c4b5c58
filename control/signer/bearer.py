"""
Put the secret into ``Authorization: Bearer``.

In: an issue.  Out: the header to set; every ``authorization`` of the client is removed.  Rules: RFC 6750 2.1.  Pure.
"""

import re

from control.binding.model import WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.signer.model import Request, Signed
from control.signer.secret import text_of, too_long

_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def sign(_: Request, issue: Issue, __: float, ___: WireSigner) -> Signed | Refusal:
    """Set the header."""
    secret = text_of(issue, grammar=_B64TOKEN, carrier="a bearer token (RFC 6750; signer header takes more)")
    if isinstance(secret, Refusal):
        return secret
    value = f"Bearer {secret}"
    return too_long(issue, "a header", len(value)) or Signed(remove=("authorization",), set=(("authorization", value),))
