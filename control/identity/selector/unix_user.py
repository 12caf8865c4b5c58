"""
``unix:user``: the user's name, looked up in /etc/passwd when the resources are loaded and compared as a number.

In: a name; Facts.  Out: the name; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.number import check_name, name_clause

NAME = "unix:user"


def check(value: str) -> str:
    """Accept a name as useradd(8) takes it."""
    return check_name(value, "user", "unix:uid")


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the process runs under the uid of one of the users."""
    return name_clause(selector, facts.uid, f"uid {facts.uid}")


KIND = Kind(NAME, check, clause, "uid", named="user")
