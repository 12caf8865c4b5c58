"""
``unix:exe:path``: the executable's path, believed only where root alone could have put that file there (I7).

In: a path; Facts.  Out: its normal form; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.path import check_path, path_clause
from control.reason import Reason

NAME = "unix:exe:path"


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the running file lies at one of the paths, and the path is root's."""
    return path_clause(NAME, selector.values, facts.exe, Reason.EXE_PATH_UNTRUSTED)


KIND = Kind(NAME, check_path, clause, "exe")
