"""
``unix:exe:package``: the Debian package that the running executable came from, by dpkg's own database.

Three things must hold: the package owns the path, the path is root's alone, the file's MD5 is the one that the package came with.  The
second is what keeps others than root out; the third notices a file that was changed or replaced in place.

In: a package's name, maybe with ``:architecture``; Facts.  Out: the same; a Clause.  docs/reference/selectors.md.  Pure.
"""

import re

from control.errors import ResourceError
from control.facts.model import Facts
from control.identity.model import Selector
from control.identity.selector.kind import Clause, Kind
from control.reason import Reason

NAME = "unix:exe:package"

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9][a-z0-9-]*)?")
"""Debian Policy 5.6.1 and 5.6.8."""


def check(value: str) -> str:
    """Accept a package's name, with or without an architecture."""
    if not _PACKAGE.fullmatch(value) or len(value) > 128:
        raise ResourceError(
            Reason.RESOURCE_MALFORMED,
            f'package "{value[:40]}" is no name of a Debian package',
            hint="dpkg -S /path/of/the/program prints it; write curl or curl:amd64",
        )
    return value


def clause(facts: Facts, selector: Selector) -> Clause:
    """Hold when one of the packages owns the running file and vouches for its content."""
    exe = facts.exe
    owners = [package for package in facts.packages if package.name in selector.values]
    found = [package for package in owners if not package.fault]
    if not found:
        fault = owners[0].fault if owners else "a file of none of them"
        return Clause(NAME, selector.values, holds=False, saw=f"{exe.path}, {fault}")
    if not exe.root_owned:
        return Clause(
            NAME, selector.values, holds=False, saw=exe.path, blocked=Reason.EXE_PATH_UNTRUSTED, fault=exe.fault or "not root's alone"
        )
    if facts.exe_md5 and any(package.md5 == facts.exe_md5 for package in found):
        return Clause(NAME, selector.values, holds=True, saw=f"{exe.path} of {found[0].name}")
    said = f"package {found[0].name} says {found[0].md5 or 'nothing of it'}"
    fault = f"its MD5 is {facts.exe_md5 or 'not known'}, {said}"
    return Clause(NAME, selector.values, holds=False, saw=exe.path, blocked=Reason.EXE_MODIFIED, fault=fault)


KIND = Kind(NAME, check, clause, "exe")
