"""
Turn names of users and groups into the numbers that the kernel knows.

In: texts of passwd(5) and group(5), identities.  Out: numbers by name; identities whose selectors hold them.
Only the two local files count: what LDAP or another service says of a name would let that service say who a process is.  Pure.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from control.identity.model import Identity, Selector
from control.identity.selector.registry import KINDS

MAX_NUMBER = 0xFFFFFFFE
"""2**32 - 1 means "nobody in particular" to setresuid(2)."""


class Accounts(NamedTuple):
    """Who is known on this machine."""

    users: Mapping[str, int]
    groups: Mapping[str, int]
    fault: str = ""
    """Why a file could not be read or believed, for people."""


def numbers(text: str) -> dict[str, int]:
    """
    Read passwd(5) or group(5): name, password, number, and more behind that does not matter here.

    Of two lines with one name the first counts, as for getpwnam(3).  Lines that are none, and those of NIS (``+name``), name nobody.
    """
    found: dict[str, int] = {}
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 4 or not fields[0] or fields[0][0] in "+-#" or not (fields[2].isascii() and fields[2].isdigit()):
            continue
        if int(fields[2]) <= MAX_NUMBER:
            found.setdefault(fields[0], int(fields[2]))
    return found


def unnamed(identities: Iterable[Identity]) -> bool:
    """Say whether a selector holds names that were not looked up."""
    return any(s.numbers is None and KINDS[s.kind].named for i in identities for group in i.selectors for s in group)


def resolve(identities: Iterable[Identity], accounts: Accounts) -> tuple[Identity, ...]:
    """Look up each name that a selector holds; selectors without names stay as they are."""
    return tuple(_identity(identity, accounts) for identity in identities)


def _identity(identity: Identity, accounts: Accounts) -> Identity:
    if not any(KINDS[s.kind].named for group in identity.selectors for s in group):
        return identity
    return msgspec.structs.replace(
        identity, selectors=tuple(tuple(_selector(selector, accounts) for selector in group) for group in identity.selectors)
    )


def _selector(selector: Selector, accounts: Accounts) -> Selector:
    named = KINDS[selector.kind].named
    if not named:
        return selector
    known = accounts.users if named == "user" else accounts.groups
    return msgspec.structs.replace(selector, numbers=tuple(known.get(value) for value in selector.values))
