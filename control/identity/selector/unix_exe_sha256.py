"""
``unix:exe:sha256``: the digest of the file that runs, whatever its path.

In: 64 hex digits; Facts.  Out: lower case; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.digest import check_sha256
from control.identity.selector.kind import Clause, Kind

NAME = "unix:exe:sha256"


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the running file has one of the digests."""
    saw = facts.exe_sha256 or "no digest was taken"
    return Clause(NAME, selector.values, holds=facts.exe_sha256 in selector.values, saw=saw)


KIND = Kind(NAME, check_sha256, clause, "")
