"""
What the selectors over numbers share: numbers of users and groups, and names that stand for them.

In: a value, a number, a Selector.  Out: the value, a Clause.  Pure.
"""

import re

from control.errors import ResourceError
from control.identity.model import Selector
from control.identity.selector.kind import Clause
from control.reason import Reason

MAX_ID = 0xFFFFFFFE
"""2**32 - 1 means "leave as it is" to setresuid(2) and setresgid(2)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")


def check_number(value: str, what: str, command: str) -> str:
    """Accept a decimal number; a name is refused, as what it stands for can change."""
    if not value.isascii() or not value.isdigit() or str(int(value)) != value:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'{what} "{value}" is no number', hint=f"{command.format(value)} prints the number")
    if int(value) > MAX_ID:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f"{what} {value} is above {MAX_ID}", hint=f"{what}s are 32 bits wide")
    return value


def check_name(value: str, what: str, number: str) -> str:
    """Accept a name as useradd(8) takes it; ``number`` is the selector for numbers."""
    if value.isdigit():
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'{what} "{value}" is a number', hint=f"write {number}: {value}")
    if not _NAME.fullmatch(value):
        raise ResourceError(
            Reason.RESOURCE_MALFORMED,
            f'{what} "{value[:40]}" is not 1 to 32 of A-Z, a-z, 0-9, ., - and _, with a letter or _ in front',
            hint=f"getent prints the names; {number} takes a number",
        )
    return value


def name_clause(selector: Selector, number: int, saw: str) -> Clause:
    """Hold when ``number`` is what one of the names stands for."""
    kind, values, numbers = selector.kind, selector.values, selector.numbers
    if numbers is None:
        return Clause(kind, values, holds=False, saw=saw, meaning="not looked up on this machine")
    shown = (f"{value} is {'nobody' if found is None else found}" for value, found in zip(values, numbers, strict=True))
    return Clause(kind, values, holds=number in numbers, saw=saw, meaning=", ".join(list(shown)[:4]))
