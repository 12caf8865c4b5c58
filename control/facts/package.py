"""
Read dpkg's database: which files a package installed, where they lie, and what they should hold.

In: texts of /var/lib/dpkg.  Out: Contents of one package.
dpkg writes names as the package has them; where a file really lies also depends on the merged /usr (``/bin/bash`` lies at
``/usr/bin/bash``) and on diversions (dpkg-divert(1): another package's file of that name is put elsewhere).
Source: dpkg(1), FILES; dpkg-divert(1); lib/dpkg/divert-db.c.  Pure.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32")
"""Directories of / that a merged /usr turns into links (Debian bug 978636, the package usrmerge)."""
LOCAL = ":"
"""Stands for the administrator in the place of a package's name in the file of diversions."""

_SUM = re.compile(r"([0-9a-f]{32})  (.+)")


class MalformedPackageError(ValueError):
    """Not what dpkg writes."""


class Diversion(NamedTuple):
    """Files of that name, of all packages but one, lie elsewhere."""

    name: str
    to: str
    package: str
    """Whose own file keeps the name; ``:`` when no package's does."""


class Contents(NamedTuple):
    """The files of one package."""

    named: dict[str, str]
    """Where it lies, to the name that dpkg has for it."""
    md5: dict[str, str]
    """dpkg's name of a file to its MD5 in hex."""


def canonical(path: str, merged: Iterable[str]) -> str:
    """Give the place behind a merged directory: ``/bin/bash`` lies at ``/usr/bin/bash`` where ``bin`` is merged."""
    top = path[1:].partition("/")[0]
    return f"/usr{path}" if top in merged and path != f"/{top}" else path


def parse_diversions(text: str) -> list[Diversion]:
    """
    Read the file of diversions: three lines each.

    Raises MalformedPackageError.
    """
    lines = text.splitlines()
    if len(lines) % 3:
        raise MalformedPackageError(f"the file of diversions has {len(lines)} lines, not three for each")
    return [Diversion(*lines[at : at + 3]) for at in range(0, len(lines), 3)]


def parse_md5sums(text: str) -> dict[str, str]:
    """
    Read ``<package>.md5sums``: names there have no slash at their front.

    Raises MalformedPackageError.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _SUM.fullmatch(line)
        if match is None:
            raise MalformedPackageError(f"a line of the MD5 sums cannot be read: {line[:80]!r}")
        found["/" + match[2]] = match[1]
    return found


def contents(package: str, listed: str, sums: str, diversions: Iterable[Diversion], merged: frozenset[str]) -> Contents:
    """
    Say where the files of ``package`` lie; ``listed`` and ``sums`` are the texts of its .list and .md5sums.

    A name that lies at two places (in both spellings of a merged directory) is one.
    """
    away = {canonical(d.name, merged): d for d in diversions}
    named: dict[str, str] = {}
    for name in listed.splitlines():
        if not name.startswith("/") or name == "/.":
            continue
        place = canonical(name, merged)
        diverted = away.get(place)
        if diverted is not None and diverted.package != package:
            place = canonical(diverted.to, merged)
        named[place] = name
    return Contents(named, parse_md5sums(sums))


def architectures(status: str, package: str) -> frozenset[str]:
    """Give the architectures in which ``package`` is known, from the text of dpkg's status file."""
    found = set()
    for stanza in re.finditer(rf"^Package: {re.escape(package)}\n(?:[^\n]+\n)*", status, re.MULTILINE):
        match = re.search(r"^Architecture: (\S+)$", stanza[0], re.MULTILINE)
        if match is not None:
            found.add(match[1])
    return frozenset(found)
