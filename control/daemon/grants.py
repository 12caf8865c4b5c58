"""
The table of grants: which accepted connection of which process may use which bindings.

In: what the agent attested and decided.  Out: Grant records, found by id, by process or by worker.  Pure; the agent owns the one instance.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator

import msgspec

from control.facts.model import Facts, ProcessKey
from control.units import Revision, UnixSeconds

KEPT_AFTER = 1024
"""Grants remembered after they ended: a late audit record of keys still finds whose it was."""


class Grant(msgspec.Struct, frozen=True):
    """One connection's permission.  ``id`` is unguessable: whoever knows it got it from the agent."""

    id: str
    worker: int
    identity: str
    bindings: tuple[str, ...]
    facts: Facts
    peer: str
    port: int
    revision: Revision
    at: UnixSeconds
    observed: tuple[str, ...] = ()
    """Bindings in mode observe.  A grant with nothing else is a name for records: keys does not know it."""


class Grants:
    """All live grants."""

    def __init__(self) -> None:
        self._by_id: dict[str, Grant] = {}
        self._by_tgid: defaultdict[int, set[str]] = defaultdict(set)
        self._ended: OrderedDict[str, Grant] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Grant]:
        return iter(tuple(self._by_id.values()))

    def add(self, grant: Grant) -> None:
        """Take one grant into the table."""
        self._by_id[grant.id] = grant
        self._by_tgid[grant.facts.key.tgid].add(grant.id)

    def get(self, grant_id: str) -> Grant | None:
        """Find a live grant by its id."""
        return self._by_id.get(grant_id)

    def whose(self, grant_id: str) -> Grant | None:
        """Find a grant that lives or ended lately: for records, never for permission."""
        return self._by_id.get(grant_id) or self._ended.get(grant_id)

    def drop(self, grant_id: str) -> Grant | None:
        """Take one grant out; None when it is not there (any more)."""
        grant = self._by_id.pop(grant_id, None)
        if grant is None:
            return None
        tgid = grant.facts.key.tgid
        self._by_tgid[tgid].discard(grant_id)
        if not self._by_tgid[tgid]:
            del self._by_tgid[tgid]
        self._ended[grant_id] = grant
        if len(self._ended) > KEPT_AFTER:
            self._ended.popitem(last=False)
        return grant

    def of_process(self, tgid: int) -> list[Grant]:
        """All grants of whatever program runs or ran as ``tgid``."""
        return [self._by_id[i] for i in self._by_tgid.get(tgid, ())]

    def of_worker(self, worker: int) -> list[Grant]:
        """All grants that one proxy worker serves."""
        return [g for g in self._by_id.values() if g.worker == worker]

    def processes_of(self, binding: str) -> set[ProcessKey]:
        """Each process with a live grant that covers ``binding``, or observes it."""
        return {g.facts.key for g in self._by_id.values() if binding in g.bindings or binding in g.observed}
