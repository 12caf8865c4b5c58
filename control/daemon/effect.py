"""
Say what a change of the set means for connections that are open.

In: the running set, the one that would run, the live grants.  Out: what differs between the two, with a clause for people.  Pure.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from control.binding.diff import Change, changes
from control.binding.model import Binding, ResourceSet, Source
from control.daemon.running import Running
from control.identity.model import Identity

_Row = TypeVar("_Row", Identity, Source, Binding)


def differences(before: Running, after: Running) -> tuple[Change, ...]:
    """Give every resource that differs.  What is equal is left out first: most of a thousand documents are."""
    old, new = before.read, after.read
    keys = [key for key in old.owners.keys() | new.owners.keys() if _said(old, key) != _said(new, key)]
    identities, identities_now = _unequal(old.identities, new.identities, "WorkloadIdentity", keys)
    sources, sources_now = _unequal(old.sources, new.sources, "CredentialSource", keys)
    bindings, bindings_now = _unequal(old.bindings, new.bindings, "WorkloadCredential", keys)
    kept = {f"WorkloadIdentity/{i.name}" for i in (*identities, *identities_now)}
    kept |= {f"CredentialSource/{s.name}" for s in (*sources, *sources_now)}
    kept |= {f"WorkloadCredential/{b.name}" for b in (*bindings, *bindings_now)} | set(keys)
    return changes(
        _narrowed(old, identities, sources, bindings, kept),
        _narrowed(new, identities_now, sources_now, bindings_now, kept),
    )


def _said(of: ResourceSet, key: str) -> tuple[str | None, str | None]:
    return of.owners.get(key), of.reviews.get(key)


def _unequal(old: tuple[_Row, ...], new: tuple[_Row, ...], kind: str, keys: Iterable[str]) -> tuple[tuple[_Row, ...], tuple[_Row, ...]]:
    before, after = {row.name: row for row in old}, {row.name: row for row in new}
    about = {key.partition("/")[2] for key in keys if key.startswith(f"{kind}/")}
    names = {name for name in before.keys() | after.keys() if name in about or before.get(name) != after.get(name)}
    return tuple(row for row in old if row.name in names), tuple(row for row in new if row.name in names)


def _narrowed(
    of: ResourceSet, identities: tuple[Identity, ...], sources: tuple[Source, ...], bindings: tuple[Binding, ...], kept: set[str]
) -> ResourceSet:
    owners = {key: owner for key, owner in of.owners.items() if key in kept}
    reviews = {key: day for key, day in of.reviews.items() if key in kept}
    return msgspec.structs.replace(of, identities=identities, sources=sources, bindings=bindings, owners=owners, reviews=reviews)


def affected(kind: str, name: str, before: Running, after: Running) -> set[str]:
    """Give the identities that a change of one resource is about."""
    match kind:
        case "WorkloadIdentity":
            return {name}
        case "WorkloadCredential":
            return {side.bindings[name].identity for side in (before, after) if name in side.bindings}
        case "CredentialSource":
            return before.identities_using(name) | after.identities_using(name)
        case _:
            return set()


def effect(kind: str, name: str, before: Running, after: Running, live: Iterable[tuple[str, int]]) -> str:
    """Count the connections that would be cut; ``live`` holds the identity and the pid of each.  Empty where none would."""
    changed = {i for i in affected(kind, name, before, after) if before.fingerprint(i) != after.fingerprint(i)}
    pids = [pid for identity, pid in live if identity in changed]
    if not pids:
        return ""
    return f"{_counted(len(pids), 'connection', 's')} of {_counted(len(set(pids)), 'process', 'es')} will be cut"


def _counted(number: int, word: str, plural: str) -> str:
    return f"{number} {word}{plural if number != 1 else ''}"
