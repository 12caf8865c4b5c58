"""
What the selectors over digests share.

In: a value.  Out: the value.  Pure.
"""

import re

from control.errors import ResourceError
from control.reason import Reason

_HEX = re.compile(r"[0-9a-f]{64}")


def check_sha256(value: str) -> str:
    """Accept a SHA-256 in hex, as sha256sum prints it; gives lower case."""
    lower = value.lower()
    if not _HEX.fullmatch(lower):
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'digest "{value[:72]}" is not 64 hex digits', hint="sha256sum FILE prints it")
    return lower
