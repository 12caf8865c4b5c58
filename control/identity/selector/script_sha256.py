"""
``script:sha256``: the digest of the ``#!`` file that the kernel ran; only beside ``script:path``.

An interpreter reads its script after exec and keeps no descriptor that we could believe, so the bytes that are digested here are those
that lie there *now*.  They are the ones that ran only where nobody but root can have changed them in between: the path has to be root's
alone, or whoever owns the file would run one script and show another.

In: 64 hex digits; Facts.  Out: lower case; a Clause.  docs/reference/selectors.md.  Pure.
"""

from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.digest import check_sha256
from control.identity.selector.kind import Clause, Kind
from control.reason import Reason

NAME = "script:sha256"


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when the exec'd script has one of the digests and lies where only root could have put it."""
    if facts.script is None:
        return Clause(NAME, selector.values, holds=False, saw="no script")
    if not facts.script.root_owned:
        return Clause(
            NAME,
            selector.values,
            holds=False,
            saw=facts.script.path,
            blocked=Reason.SCRIPT_PATH_UNTRUSTED,
            fault=facts.script.fault or "its path is not root's alone",
        )
    saw = facts.script_sha256 or "no digest was taken"
    return Clause(NAME, selector.values, holds=facts.script_sha256 in selector.values, saw=saw)


KIND = Kind(NAME, check_sha256, clause, "")
