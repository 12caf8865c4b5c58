"""
``unix:uid``: the effective uid, in the initial user namespace.

In: a number; Facts.  Out: its normal form; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.number import check_number

NAME = "unix:uid"


def check(value: str) -> str:
    """Accept a decimal uid; ``unix:user`` takes names."""
    return check_number(value, "uid", "id -u {}")


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the process runs under one of the uids."""
    saw = str(facts.uid)
    return Clause(NAME, selector.values, holds=saw in selector.values, saw=saw)


KIND = Kind(NAME, check, clause, "uid", numeric=True)
