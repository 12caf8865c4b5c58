"""
Say what differs between two resource sets, in the words of the documents.

In: the set that runs, the set on disk.  Out: Changes, by kind and name.  Of a secret nothing is known here but where it lies; of CA files
their digest is shown.  The order of alternatives (selectors, destinations, lists) means nothing and is no change.  Pure.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from control.binding.duration import spelled
from control.binding.model import Binding, Destination, ResourceSet, Source, WireSigner, kind_of_signer
from control.identity.model import Identity

KINDS: Final = ("WorkloadIdentity", "Federation", "CredentialSource", "WorkloadCredential")
"""In the order in which one names the other."""


class Change(NamedTuple):
    """One resource that differs."""

    kind: str
    name: str
    what: Literal["added", "removed", "changed"]
    fields: tuple[tuple[str, str, str], ...]
    """(field, before, after) of each that differs, in the order of the document; of several alternatives those that differ alone."""


Values = dict[str, str | tuple[str, ...]]
"""Field to its value; a tuple for alternatives, whose order means nothing."""

_WORDS: Final = {
    "spiffe_id": "workloadID",
    "ttl_cap_s": "ttlCap",
    "asks_for": "token",
    "ca_domains": "caDomains",
    "stale_s": "stale",
}
"""Fields whose name in the documents does not follow from that in the model."""
_UNSAID: Final = frozenset({"name", "revision", "numbers"})
"""Of the set, or made while loading."""


def changes(before: ResourceSet, after: ResourceSet) -> tuple[Change, ...]:
    """Give every resource that was added, removed or changed."""
    old, new = _resources(before), _resources(after)
    found: list[Change] = []
    for key in sorted(old.keys() | new.keys(), key=lambda key: (KINDS.index(key[0]), key[1])):
        fields = _differing(old.get(key, {}), new.get(key, {}))
        if key not in old:
            found.append(Change(*key, "added", fields))
        elif key not in new:
            found.append(Change(*key, "removed", fields))
        elif fields:
            found.append(Change(*key, "changed", fields))
    return tuple(found)


def _differing(before: Values, after: Values) -> tuple[tuple[str, str, str], ...]:
    rows: list[tuple[str, str, str]] = []
    for field in dict.fromkeys((*before, *after)):
        old, new = _alternatives(before.get(field, "")), _alternatives(after.get(field, ""))
        gone, came = [one for one in old if one not in new], [one for one in new if one not in old]
        if gone or came:
            rows.append((field, "; ".join(gone), "; ".join(came)))
    return tuple(rows)


def _alternatives(value: str | tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return (value,) if value else ()


def _resources(of: ResourceSet) -> dict[tuple[str, str], Values]:
    found: dict[tuple[str, str], Values] = {}
    for identity in of.identities:
        found["WorkloadIdentity", identity.name] = _identity(identity)
    for source in of.sources:
        found["CredentialSource", source.name] = _source(source)
    for binding in of.bindings:
        found["WorkloadCredential", binding.name] = _binding(binding)
    for key, owner in of.owners.items():  # a Federation is in the set as its sources' audience and principal; its owner is its own
        kind, _, name = key.partition("/")
        about: Values = {"owner": owner, "reviewedAt": of.reviews.get(key, "")}
        found[kind, name] = about | found.get((kind, name), {})
    return found


def _identity(identity: Identity) -> Values:
    made = _fields(identity, leave={"selectors"})
    made["selectors"] = tuple(
        " and ".join(f"{selector.kind} {' or '.join(sorted(selector.values))}" for selector in group) for group in identity.selectors
    )
    return made


def _source(source: Source) -> Values:
    return _fields(source, leave={"of"}) | {f"{source.kind}.{field}": value for field, value in _fields(source.of).items()}


def _binding(binding: Binding) -> Values:
    made = _fields(binding, leave={"destinations", "signer", "on_lease_failure", "stale_s"})
    made["destinations"] = tuple(_destination(destination) for destination in binding.destinations)
    made["delivery"] = f"wire {_signer(binding.signer)}"
    made["onLeaseFailure"] = f"stale {spelled(binding.stale_s)}" if binding.on_lease_failure == "stale" else binding.on_lease_failure
    return made


def _destination(destination: Destination) -> str:
    parts = [f"{field} {_joined(value)}" for field, value in _fields(destination).items() if value]
    return " ".join(parts)


def _signer(signer: WireSigner) -> str:
    options = [f"{field} {_joined(value)}" for field, value in _fields(signer).items()]
    return ", ".join([kind_of_signer(signer), *options])


def _joined(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ",".join(sorted(value))


def _fields(struct: msgspec.Struct, leave: Iterable[str] = ()) -> Values:
    """Give every field of a struct, so that one which is added to the model is not forgotten here."""
    skipped = _UNSAID.union(leave)
    names = [name for name in struct.__struct_fields__ if name not in skipped]
    return {_word(name): _readable(name, getattr(struct, name)) for name in names}


def _word(name: str) -> str:
    first, *rest = name.split("_")
    return _WORDS.get(name) or first + "".join(part.capitalize() for part in rest)


def _readable(name: str, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == "upstream_roots":
        return f"certificates with SHA-256 {hashlib.sha256(value.encode()).hexdigest()[:16]}" if value else ""
    if name.endswith("_s"):
        return spelled(value)
    if isinstance(value, tuple):
        return tuple(str(one) for one in value)
    return str(value)
