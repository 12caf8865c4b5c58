"""
Let a few lines of one kind through, and count the rest.

In: a key (who causes the lines) and the time.  Out: whether this line may be written, and how many were held back before it.
What an ordinary user can make us write with a loop of system calls would else push everybody else's lines out of the audit.  Pure.
"""

from collections import OrderedDict
from collections.abc import Hashable

BURST = 20
"""Lines of one key at once: more than any honest program causes."""
PER_S = 5.0
"""Lines of one key each second after that: 432 000 a day, well below one rotated file of the audit."""
KEYS_MOST = 1024
"""Keys remembered; the one that was quiet for longest goes first and begins anew."""


class Throttle:
    """One bucket per key."""

    def __init__(self, burst: int = BURST, per_s: float = PER_S, keys_most: int = KEYS_MOST) -> None:
        self._burst, self._per_s, self._keys_most = burst, per_s, keys_most
        self._kept: OrderedDict[Hashable, tuple[float, float, int]] = OrderedDict()
        """Key to (lines left, when that was counted, lines held back since the last one written)."""

    def passes(self, key: Hashable, now: float) -> int | None:
        """Give how many lines of ``key`` were held back before this one; None when this one must be held back too."""
        left, at, held = self._kept.get(key, (float(self._burst), now, 0))
        left = min(float(self._burst), left + (now - at) * self._per_s)
        passed = left >= 1.0
        self._kept[key] = (left - 1.0, now, 0) if passed else (left, now, held + 1)
        self._kept.move_to_end(key)
        if len(self._kept) > self._keys_most:
            self._kept.popitem(last=False)
        return held if passed else None


def with_held(detail: str, held: int) -> str:
    """Say in a line that others like it were not written."""
    if not held:
        return detail
    return f"{detail}; {held} more like it were not written" if detail else f"{held} more like it were not written"
