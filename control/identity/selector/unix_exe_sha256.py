"""
``unix:exe:sha256``: the digest of the file that runs, whatever its path.

In: 64 hex digits; Facts.  Out: lower case; a Clause.  docs/reference/selectors.md.  Pure.
"""

import re

from control.errors import ResourceError
from control.facts.model import Facts
from control.identity.selector.kind import Clause, Kind
from control.reason import Reason

NAME = "unix:exe:sha256"
_HEX = re.compile(r"[0-9a-f]{64}")


def check(value: str) -> str:
    """Accept a SHA-256 in hex, as sha256sum prints it."""
    lower = value.lower()
    if not _HEX.fullmatch(lower):
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'digest "{value[:72]}" is not 64 hex digits', hint="sha256sum FILE prints it")
    return lower


def clause(facts: Facts, values: tuple[str, ...]) -> Clause:
    """Hold when the running file has one of the digests."""
    saw = facts.exe_sha256 or "no digest was taken"
    return Clause(NAME, values, holds=facts.exe_sha256 in values, saw=saw)


KIND = Kind(NAME, check, clause, "")
