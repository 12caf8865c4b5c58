"""
``signer: query``: the secret as a query parameter.

In: the ``wire`` mapping.  Out: a QuerySigner.  docs/reference/workload-credential.md.  Pure.
"""

import re

from control.binding.model import QuerySigner
from control.binding.name import malformed
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind

_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}")
"""Unreserved characters (RFC 3986 section 2.3), so that the name has one spelling."""


def check_parameter(value: str) -> str:
    """Accept a parameter's name that needs no escape."""
    if not _NAME.fullmatch(value):
        raise malformed(f'parameter "{value}" is not 1 to 64 letters, digits, ., _, ~ and -', "write its name alone, like api_key")
    return value


def _read(wire: Sheet) -> QuerySigner | None:
    parameter = wire.text("parameter", needed=True, check=check_parameter, example="api_key")
    return QuerySigner(parameter) if parameter else None


KIND = SignerKind(
    "query",
    _read,
    {"parameter": {"type": "string", "pattern": f"^{_NAME.pattern}$", "description": "name of the query parameter"}},
    ("parameter",),
)
