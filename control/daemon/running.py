"""
One resource set with everything that is looked up in it.

In: a ResourceSet and the names of bindings that are switched off.  Out: a Running: what each identity may do, observe, and depends on.
A binding that is switched off is one in mode observe here, so that neither kernel nor keys nor proxies have to know of switches.
Pure; made once per set, in a thread, because a thousand bindings take a while.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection

import msgspec

from control.binding.model import Binding, Destination, ResourceSet, Source
from control.identity.model import Identity
from control.units import Revision

Granted = tuple[tuple[str, Destination], ...]
"""(binding, destination), as ConnectionGranted carries them."""


class Running:
    """A set as it runs, indexed."""

    def __init__(self, read: ResourceSet, off: Collection[str] = ()) -> None:
        """``read`` is the set as its documents say."""
        self.read = read
        self.off = frozenset(off)
        self.now = msgspec.structs.replace(read, bindings=tuple(_switched(b, self.off) for b in read.bindings)) if self.off else read
        """The set in force: switched-off bindings only observe."""
        self.identities: dict[str, Identity] = {i.name: i for i in self.now.identities}
        self.sources: dict[str, Source] = {s.name: s for s in self.now.sources}
        self.bindings: dict[str, Binding] = {b.name: b for b in self.now.bindings}
        self._of: dict[str, list[Binding]] = defaultdict(list)
        rows: dict[tuple[str, str], list[tuple[str, Destination]]] = defaultdict(list)
        for binding in self.now.bindings:
            self._of[binding.identity].append(binding)
            rows[binding.identity, binding.mode] += [(binding.name, destination) for destination in binding.destinations]
        self._rows: dict[tuple[str, str], Granted] = {key: tuple(found) for key, found in rows.items()}
        self._prints = {name: self._print(identity) for name, identity in self.identities.items()}

    def numbered(self, revision: Revision) -> "Running":
        """Give the same under another number; what it holds is shared."""
        fresh = object.__new__(Running)
        fresh.__dict__.update(self.__dict__)
        fresh.read = msgspec.structs.replace(self.read, revision=revision)
        fresh.now = msgspec.structs.replace(self.now, revision=revision)
        return fresh

    def of(self, identity: str) -> list[Binding]:
        """Bindings of one identity, in any mode."""
        return self._of.get(identity, [])

    def enforced(self, identity: str) -> Granted:
        """(binding, destination) of every binding of the identity in mode enforce."""
        return self._rows.get((identity, "enforce"), ())

    def observed(self, identity: str) -> Granted:
        """(binding, destination) of every binding of the identity in mode observe."""
        return self._rows.get((identity, "observe"), ())

    def ports(self) -> set[int]:
        """Every port that some binding names."""
        return {port for binding in self.now.bindings for d in binding.destinations for port in d.ports}

    def fingerprint(self, identity: str) -> bytes:
        """Everything that a grant of this identity depends on; equal in two sets means that it may live on.  Empty for an unknown name."""
        return self._prints.get(identity, b"")

    def identities_using(self, source: str) -> set[str]:
        """Identities with a binding to a source."""
        return {binding.identity for binding in self.now.bindings if binding.source == source}

    def _print(self, identity: Identity) -> bytes:
        mine = self.of(identity.name)
        sources = [_unnumbered(self.sources.get(b.source)) for b in mine]
        return hashlib.blake2b(msgspec.msgpack.encode([identity, mine, sources]), digest_size=16).digest()


def _switched(binding: Binding, off: Collection[str]) -> Binding:
    return msgspec.structs.replace(binding, mode="observe") if binding.name in off else binding


def _unnumbered(source: Source | None) -> Source | None:
    return None if source is None else msgspec.structs.replace(source, revision=Revision(0))


EMPTY = Running(ResourceSet(Revision(0), "", (), (), (), {}))
"""Before the first set: nothing is bound."""
