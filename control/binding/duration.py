"""
Read durations as people write them: ``90s``, ``10m``, ``1h``, ``90d``.

In: text.  Out: whole seconds.  One number and one unit, so that there is one spelling per value that anybody would use.  Pure.
"""

import re

DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int | None:
    """Give the seconds of ``text``; None when it is no duration."""
    found = DURATION.fullmatch(text)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def spelled(total: int) -> str:
    """Write seconds in the largest unit that fits."""
    for unit in ("d", "h", "m"):
        if total and total % _SECONDS[unit] == 0:
            return f"{total // _SECONDS[unit]}{unit}"
    return f"{total}s"
