"""
``unix:gid``: the effective gid, in the initial user namespace; supplementary groups do not count.

In: a number; Facts.  Out: its normal form; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.number import check_number

NAME = "unix:gid"


def check(value: str) -> str:
    """Accept a decimal gid; ``unix:group`` takes names."""
    return check_number(value, "gid", "getent group {}")


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when every thread runs under one and the same of the gids."""
    return Clause(NAME, selector.values, holds=facts.one_gid and str(facts.gid) in selector.values, saw=saw_gid(facts))


def saw_gid(facts: Facts) -> str:
    """Say under which gid the process runs."""
    return str(facts.gid) if facts.one_gid else f"{facts.gid} in one thread and another gid in others"


KIND = Kind(NAME, check, clause, "", numeric=True)
