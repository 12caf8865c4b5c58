"""
``signer: basic``: ``Authorization: Basic`` of a user name and the secret (RFC 7617).

In: the ``wire`` mapping.  Out: a BasicSigner.  docs/reference/workload-credential.md.  Pure.
"""

from control.binding.model import BasicSigner
from control.binding.name import malformed
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind

MAX_NAME = 255


def check_username(value: str) -> str:
    """Accept a user id: a colon would end it (RFC 7617 section 2), and what stands behind one may be a password that nobody should see."""
    if ":" in value:
        raise malformed("username holds a colon, which would end it", "write the name alone; if a password stood behind it, change that")
    if not value.isprintable() or len(value) > MAX_NAME:
        raise malformed(f"username is longer than {MAX_NAME} characters or not printable", "write the name that the service knows")
    return value


def _read(wire: Sheet) -> BasicSigner | None:
    username = wire.text("username", needed=True, check=check_username, example="svc-reports")
    return BasicSigner(username) if username else None


KIND = SignerKind(
    "basic",
    _read,
    {"username": {"type": "string", "pattern": "^[^:]+$", "maxLength": MAX_NAME, "description": "user name; the secret is the password"}},
    ("username",),
)
