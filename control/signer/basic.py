"""
Put the secret into ``Authorization: Basic``, as the password of a user name.

In: an issue, the user name.  Out: the header to set; every ``authorization`` of the client is removed.  Rules: RFC 7617 2.  Pure.
"""

import base64

from control.binding.model import BasicSigner, WireSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.signer.model import Request, Signed
from control.signer.secret import text_of, too_long


def sign(_: Request, issue: Issue, __: float, options: WireSigner) -> Signed | Refusal:
    """Set the header."""
    assert isinstance(options, BasicSigner)  # noqa: S101  # the registry chose us by its tag
    secret, user = text_of(issue), options.username
    if isinstance(secret, Refusal):
        return secret
    if ":" in user or any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in user):  # a colon would end the user id
        return Refusal(Reason.RESOURCE_MALFORMED, "the user name holds a colon or a control character", "mend delivery.wire.username")
    value = "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
    return too_long(issue, "a header", len(value)) or Signed(remove=("authorization",), set=(("authorization", value),))
