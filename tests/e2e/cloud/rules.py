"""
The rule language of impersonationServiceUsers.

In: rules and the claims of a verified assertion.  Out: the value of the first rule that matches, or None.
Source: Oracle, "Exchange a JSON Web Token for a UPST": ``<claim> eq <value>`` with ``*``, ``<claim> co <value>``, first match wins.  Pure.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.cloud.model import Rule


class RuleError(ValueError):
    """The rule is not of the language."""


def matches(rule: str, claims: Mapping[str, Any]) -> bool:
    """Tell whether ``rule`` takes these claims.  A claim that is a list matches by any of its members.  Raises RuleError."""
    words = rule.split(" ", 2)
    if len(words) != 3 or words[1] not in ("eq", "co") or not words[0] or not words[2].strip('"'):
        raise RuleError(f'"{rule}" is not "<claim> eq <value>" or "<claim> co <value>"')
    claim, operator, value = words
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    held = claims.get(claim)
    candidates = [text for text in (held if isinstance(held, list) else [held]) if isinstance(text, str)]
    if operator == "co":
        return any(value in text for text in candidates)
    pattern = re.compile(".*".join(re.escape(part) for part in value.split("*")), re.DOTALL)
    return any(pattern.fullmatch(text) for text in candidates)


def first_match(rules: Sequence[Rule], claims: Mapping[str, Any]) -> str | None:
    """Give the service user of the first rule that matches."""
    return next((entry.value for entry in rules if matches(entry.rule, claims)), None)
