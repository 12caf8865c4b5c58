"""
``unix:group``: the name of the effective group, looked up in /etc/group when the resources are loaded and compared as a number.

In: a name; Facts.  Out: the name; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.number import check_name, name_clause
from control.identity.selector.unix_gid import saw_gid

NAME = "unix:group"


def check(value: str) -> str:
    """Accept a name as groupadd(8) takes it."""
    return check_name(value, "group", "unix:gid")


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when every thread runs under the gid of one of the groups."""
    found = name_clause(selector, facts.gid, f"gid {saw_gid(facts)}")
    return found._replace(holds=found.holds and facts.one_gid)


KIND = Kind(NAME, check, clause, "", named="group")
