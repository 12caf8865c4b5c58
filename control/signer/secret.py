"""
Look at a secret before it becomes part of a request.

In: an issue, and what the place in the request can carry.  Out: the secret as text, or the Refusal that names its source.
A file that was saved with two line breaks, or that holds another file's content, must not become a second header: nothing is repaired,
and no detail says more of a secret than what is wrong with it.  Pure.
"""

import re
from typing import Final

from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason

FIELD_MOST: Final = 8192
"""Characters of a header's value: what common servers accept of one line (nginx 8 KiB, Apache 8190 bytes)."""

VISIBLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
"""field-value of RFC 9110 5.5 without obs-text and tabs, which senders should not write; no blank at either end, where it would be lost."""
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""token of RFC 9110 5.6.2."""


def refused(issue: Issue, why: str, hint: str = "") -> Refusal:
    """Refuse what the issue holds; ``why`` goes on after "the secret"."""
    return Refusal(
        Reason.LEASE_UNAVAILABLE,
        f'source "{issue.source}": the secret {why}',
        hint or "look at the source's file; seal it anew if it is wrong",
    )


def text_of(issue: Issue, *, grammar: re.Pattern[str] | None = None, carrier: str = "") -> str | Refusal:
    """
    Give the secret as text without control characters.

    ``grammar`` is what ``carrier`` ("a bearer token") can hold; None holds any text.
    """
    try:
        text = issue.token.reveal().decode("utf-8")
    except UnicodeDecodeError:
        return refused(issue, "is not UTF-8 text")
    if not text:
        return refused(issue, "is empty")
    if any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in text):
        return refused(issue, "holds a line break or another control character")
    if grammar is not None and not grammar.fullmatch(text):
        return refused(issue, f"holds a character that {carrier} cannot carry")
    return text


def too_long(issue: Issue, what: str, length: int) -> Refusal | None:
    """Refuse a value that servers would cut or refuse."""
    return refused(issue, f"makes {what} of {length} characters; {FIELD_MOST} are the most") if length > FIELD_MOST else None
