"""
``script:path``: the ``#!`` file that the kernel ran, as it recorded its name at exec (I6).  Never argv.

In: a path; Facts.  Out: its normal form; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.identity.selector.path import check_path, path_clause
from control.reason import Reason

NAME = "script:path"


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the exec'd script's name is one of the paths, and the path is root's."""
    return path_clause(NAME, selector.values, facts.script, Reason.SCRIPT_PATH_UNTRUSTED)


KIND = Kind(NAME, check_path, clause, "script")
