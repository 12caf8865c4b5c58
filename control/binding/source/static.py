"""
``static:`` a secret that somebody issued once: an API key, a password, a token.

In: the Sheet of the ``static`` field.  Out: a StaticSource, which names where the secret lies.  docs/reference/source-static.md.
The secret itself never stands in a document: documents are read by many, copied into repositories and shown by tools.  Pure.
"""

import re
from typing import Any

from control.binding.model import StaticSource
from control.binding.name import check_file, malformed
from control.binding.sheet import Sheet
from control.binding.source.kind import Roots
from control.errors import ResourceError

NAME = "static"
SIGNERS = ("header", "bearer", "basic", "query", "cookie")

_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,254}")
"""What systemd takes as the name of a credential: a file name (systemd.exec(5)); ours does not begin with a dot or a dash."""
_SECRETS = ("secret", "value", "token", "password", "key", "apiKey")
"""Fields under which people write the secret itself."""
_INSTEAD = (
    "put it into a file of root's, mode 0600, and write file: /etc/credwire/secrets/…; then change the secret: this one has been read"
)

SHAPE: dict[str, Any] = {
    "type": "object",
    "description": "a secret that somebody issued once; exactly one of the two fields",
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
    "properties": {
        "file": {"type": "string", "pattern": "^/", "description": "root-only file that holds the secret, sealed or plain"},
        "systemdCredential": {
            "type": "string",
            "pattern": f"^{_CREDENTIAL.pattern}$",
            "description": "name of a credential that credwired's unit loads (LoadCredentialEncrypted=)",
        },
    },
}


def read(sheet: Sheet, _: Roots) -> StaticSource:
    """Read the field: where the secret lies, one way or the other."""
    for word in _SECRETS:
        if sheet.has(word):
            sheet.fault("a secret stands in the document", sheet.where(word), hint=_INSTEAD)
    sheet.known -= set(_SECRETS) - set(sheet.entries)
    file = sheet.text("file", check=_file)
    credential = sheet.text("systemdCredential", check=_credential)
    ways = [word for word in ("file", "systemdCredential") if word in sheet.entries]
    if len(ways) == 2:
        hint = "keep one: the secret lies in one place"
        sheet.fault(f"{sheet.what} names both file and systemdCredential", sheet.where("systemdCredential"), hint=hint)
    elif not ways and not sheet.broken and not set(_SECRETS) & set(sheet.entries):
        sheet.fault(f"{sheet.what} does not say where the secret lies", hint="add file: /etc/credwire/secrets/… or systemdCredential: …")
    sheet.close()
    return StaticSource(file, credential)


def _file(value: str) -> str:
    try:
        return check_file(value)
    except ResourceError as error:
        # the error of check_file repeats the value, which is no path here and so perhaps the secret itself
        raise malformed("file is not an absolute path in its shortest form", f"write what realpath prints; a secret: {_INSTEAD}") from error


def _credential(value: str) -> str:
    if not _CREDENTIAL.fullmatch(value):
        raise malformed("systemdCredential is not the name of a credential", "write the name before the colon of LoadCredentialEncrypted=")
    return value
