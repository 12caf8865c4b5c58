"""
The resource set as keys and exchange hold it, swapped whole.

In: the messages PolicyBegan to PolicyCommitted, in order.  Out: Rules, once a set is whole; until then the former ones stay.  Pure.
"""

from dataclasses import dataclass, field

import msgspec

from control.binding.decide import Tables
from control.binding.model import Binding, Source
from control.daemon import message as m
from control.identity.model import Identity
from control.secret import Secret
from control.units import Revision


@dataclass(frozen=True, slots=True)
class Rules:
    """One set, indexed for decisions."""

    revision: int
    identities: dict[str, Identity]
    sources: dict[str, Source]
    bindings: dict[str, Binding]
    secrets: dict[str, Secret]
    """Client secret of each source; in the exchange process only."""
    tables: Tables

    def fingerprint(self, identity: str) -> bytes:
        """Everything that a grant of ``identity`` depends on; equal before and after a swap means that it lives on."""
        mine = sorted((b for b in self.bindings.values() if b.identity == identity), key=lambda b: b.name)
        return msgspec.msgpack.encode([self.identities.get(identity), mine, [_unnumbered(self.source_of(b)) for b in mine]])

    def source_of(self, binding: Binding) -> Source | None:
        """Find the source that a binding names."""
        return self.sources.get(binding.source)


def names_of(binding: Binding) -> tuple[str, ...]:
    """Give every name that the binding's CA may sign for."""
    return (*(host for destination in binding.destinations for host in destination.hosts), *binding.ca_domains)


def same_source(one: Source | None, other: Source | None) -> bool:
    """Whether two sources are the same; the revision says when one was read, not what it is."""
    return _unnumbered(one) == _unnumbered(other)


def _unnumbered(source: Source | None) -> Source | None:
    return None if source is None else msgspec.structs.replace(source, revision=Revision(0))


def empty() -> Rules:
    """Give the set before the first one: nothing is allowed."""
    return Rules(0, {}, {}, {}, {}, Tables(()))


@dataclass(slots=True)
class Staging:
    """A set on its way."""

    _revision: int | None = None
    _identities: dict[str, Identity] = field(default_factory=dict)
    _sources: dict[str, Source] = field(default_factory=dict)
    _bindings: dict[str, Binding] = field(default_factory=dict)
    _secrets: dict[str, Secret] = field(default_factory=dict)

    def took(self, message: m.Message) -> Rules | None:
        """
        Take one message; give the new set when this one made it whole.

        A part outside of a set, or the end of a set that did not begin, changes nothing.
        """
        match message:
            case m.PolicyBegan():
                self._revision = message.revision
                self._identities, self._sources, self._bindings, self._secrets = {}, {}, {}, {}
            case m.PolicyIdentity() if self._revision is not None:
                self._identities[message.identity.name] = message.identity
            case m.PolicySource() if self._revision is not None:
                self._sources[message.source.name] = message.source
                if message.client_secret is not None:
                    self._secrets[message.source.name] = message.client_secret
            case m.PolicyBinding() if self._revision is not None:
                self._bindings[message.binding.name] = message.binding
            case m.PolicyCommitted() if message.revision == self._revision:
                self._revision = None
                tables = Tables(self._bindings.values())
                return Rules(message.revision, self._identities, self._sources, self._bindings, self._secrets, tables)
            case _:
                pass
        return None
