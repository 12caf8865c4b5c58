"""
Make the id that a refusal or an audit line bears and that ``credwire explain ID`` takes.

In: nothing.  Out: ``cw-`` and ten letters of base 32 (50 random bits: no two meet in a day's log).
"""

import secrets

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""32 letters that people do not mistake for one another when they read an id aloud: no l, o, 0, 1."""


def new_id() -> str:
    """Give a fresh id."""
    bits = secrets.randbits(50)
    return "cw-" + "".join(_ALPHABET[(bits >> shift) & 31] for shift in range(0, 50, 5))
