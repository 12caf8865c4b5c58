"""
Idle upstream connections, and who may have one.

In: keys, items and the time.  Out: an item of exactly that key, the most recently used first.  The key holds binding, identity, host, port
and revision, so nothing is ever shared between two identities or outlives a reload; and whether its requests bear our credential, because
some servers let a whole connection in on the word of one request (NTLM and Negotiate do): neither may ride on the other's.  Pure.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from control.wire.limits import Limits


class Key(NamedTuple):
    """Whose upstream connection it is."""

    binding: str
    identity: str
    host: str
    port: int
    revision: int
    signed: bool = True
    """Requests bear our credential; False where they go out as the client made them."""


Item = TypeVar("Item")


class Pool(Generic[Item]):
    """Idle items by key."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle: dict[Key, deque[tuple[float, Item]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, key: Key, item: Item, now: float) -> bool:
        """Keep ``item``; False when there is no room and the caller must close it."""
        kept = self._idle.get(key)
        if self._count >= self._limits.pool_total or (kept is not None and len(kept) >= self._limits.pool_per_key):
            return False
        if kept is None:
            kept = self._idle[key] = deque()
        kept.append((now, item))
        self._count += 1
        return True

    def take(self, key: Key, now: float, *, fresh: bool) -> Item | None:
        """Give the youngest idle item; with ``fresh`` only one that has not been idle for long enough to have been closed over there."""
        kept = self._idle.get(key)
        if kept is None:
            return None
        since, item = kept[-1]
        if now - since > (self._limits.pool_fresh_s if fresh else self._limits.pool_idle_s):
            return None
        kept.pop()
        self._count -= 1
        if not kept:
            del self._idle[key]
        return item

    def drop(self, key: Key, item: Item) -> None:
        """Forget an item whose connection ended."""
        kept = self._idle.get(key)
        if kept is None:
            return
        for entry in kept:
            if entry[1] is item:
                kept.remove(entry)
                self._count -= 1
                break
        if not kept:
            del self._idle[key]

    def expire(self, now: float) -> list[Item]:
        """Take out what has been idle for too long; the caller closes it."""
        old: list[Item] = []
        for key in list(self._idle):
            kept = self._idle[key]
            while kept and now - kept[0][0] > self._limits.pool_idle_s:
                old.append(kept.popleft()[1])
            if not kept:
                del self._idle[key]
        self._count -= len(old)
        return old

    def clear(self) -> list[Item]:
        """Take out everything."""
        items = [item for kept in self._idle.values() for _, item in kept]
        self._idle.clear()
        self._count = 0
        return items
