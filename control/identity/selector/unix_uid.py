"""
``unix:uid``: the effective uid, in the initial user namespace.

In: a number; Facts.  Out: its normal form; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.errors import ResourceError
from control.facts.model import Facts
from control.identity.selector.kind import Clause, Kind
from control.reason import Reason

NAME = "unix:uid"
MAX_UID = 0xFFFFFFFE
"""2**32 - 1 means "no uid" to setresuid(2)."""


def check(value: str) -> str:
    """Accept a decimal uid; a user's name is refused, as what it stands for can change."""
    if not value.isascii() or not value.isdigit() or str(int(value)) != value:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'uid "{value}" is no number', hint=f"id -u {value} prints the number")
    if int(value) > MAX_UID:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f"uid {value} is above {MAX_UID}", hint="uids are 32 bits wide")
    return value


def clause(facts: Facts, values: tuple[str, ...]) -> Clause:
    """Hold when the process runs under one of the uids."""
    saw = str(facts.uid)
    return Clause(NAME, values, holds=saw in values, saw=saw)


KIND = Kind(NAME, check, clause, "uid", numeric=True)
