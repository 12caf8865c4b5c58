"""
A set as it runs, and what a change of it means.

In: small sets, made here.  Out: what each identity may do, what a switched-off binding becomes, who is cut by which change.
"""

import msgspec
import pytest

from control.binding.model import BearerSigner, Binding, Destination, ResourceSet, Source, StaticSource
from control.daemon.effect import differences, effect
from control.daemon.running import EMPTY, Running
from control.identity.model import Identity, Selector
from control.units import Revision


def identity(name: str) -> Identity:
    return Identity(name, f"spiffe://corp.example/{name}", "prod", ((Selector("unix:uid", ("1001",)),),))


def source(name: str, ttl_cap_s: int = 60) -> Source:
    return Source(name, StaticSource(file=f"/etc/{name}"), "prod", ttl_cap_s)


def binding(name: str, of: str, at: str, mode: str = "enforce", port: int = 443) -> Binding:
    return Binding(name, of, at, (Destination((f"{name}.example",), ports=(port,)),), BearerSigner(), mode)  # type: ignore[arg-type]


def resources(*parts: Identity | Source | Binding) -> ResourceSet:
    def some(kind: type) -> tuple[object, ...]:
        return tuple(part for part in parts if isinstance(part, kind))

    owners = {f"WorkloadCredential/{part.name}": "a@example.org" for part in some(Binding)}  # type: ignore[attr-defined]
    return ResourceSet(Revision(3), "digest", some(Identity), some(Source), some(Binding), owners)  # type: ignore[arg-type]


BOTH = resources(
    identity("a"), identity("b"), source("s"), source("t"), binding("one", "a", "s"), binding("two", "a", "t", "observe"),
    binding("three", "b", "t", port=8443),
)  # fmt: skip


def names(rows: tuple[tuple[str, Destination], ...]) -> list[str]:
    return [name for name, _ in rows]


def test_an_identity_has_what_is_enforced_and_what_is_observed_apart() -> None:
    """And nobody has what is another's."""
    running = Running(BOTH)
    assert (names(running.enforced("a")), names(running.observed("a"))) == (["one"], ["two"])
    assert (names(running.enforced("b")), names(running.observed("b"))) == (["three"], [])
    assert running.enforced("nobody") == ()
    assert running.ports() == {443, 8443}
    assert running.identities_using("t") == {"a", "b"}


def test_a_switched_off_binding_only_observes_and_its_identity_is_another_one() -> None:
    """Grants of that identity end, those of others do not; the documents still say what they say."""
    on, off = Running(BOTH), Running(BOTH, {"one", "gone"})
    assert (names(off.enforced("a")), names(off.observed("a"))) == ([], ["one", "two"])
    assert off.fingerprint("a") != on.fingerprint("a")
    assert off.fingerprint("b") == on.fingerprint("b")
    assert off.read is BOTH
    assert {b.name: b.mode for b in off.now.bindings}["one"] == "observe"


def test_the_number_of_a_set_changes_nothing_else() -> None:
    """A reload of the same documents, or a revision of a source, cuts nobody."""
    running = Running(BOTH)
    renumbered = running.numbered(Revision(9))
    assert (renumbered.now.revision, renumbered.read.revision, running.now.revision) == (9, 9, 3)
    moved = tuple(msgspec.structs.replace(s, revision=Revision(8)) for s in BOTH.sources)
    assert Running(msgspec.structs.replace(BOTH, sources=moved)).fingerprint("a") == renumbered.fingerprint("a")
    assert EMPTY.fingerprint("a") == b""


LIVE = (("a", 10), ("a", 10), ("a", 11), ("b", 12))


@pytest.mark.parametrize(
    ("changed", "kind", "name", "says"),
    [
        (source("s", 61), "CredentialSource", "s", "3 connections of 2 processes will be cut"),
        (source("t", 61), "CredentialSource", "t", "4 connections of 3 processes will be cut"),
        (binding("three", "b", "t"), "WorkloadCredential", "three", "1 connection of 1 process will be cut"),
    ],
)
def test_a_change_says_whom_it_cuts(changed: Source | Binding, kind: str, name: str, says: str) -> None:
    """And is the only difference between the two sets; without live connections there is no effect."""
    parts = [
        changed if (type(part), part.name) == (type(changed), name) else part for part in (*BOTH.identities, *BOTH.sources, *BOTH.bindings)
    ]
    before, after = Running(BOTH), Running(resources(*parts))
    assert [(change.kind, change.name, change.what) for change in differences(before, after)] == [(kind, name, "changed")]
    assert effect(kind, name, before, after, LIVE) == says
    assert effect(kind, name, before, after, ()) == ""
    assert effect(kind, name, before, before, LIVE) == ""


def test_what_comes_goes_or_changes_its_owner_is_a_difference() -> None:
    """Equal documents are none, however many there are."""
    before = Running(BOTH)
    assert differences(before, before) == ()
    fewer = Running(resources(*BOTH.identities, *BOTH.sources, *BOTH.bindings[:2]))
    assert [(c.name, c.what) for c in differences(before, fewer)] == [("three", "removed")]
    assert [(c.name, c.what) for c in differences(fewer, before)] == [("three", "added")]
    owned = Running(msgspec.structs.replace(BOTH, owners={**BOTH.owners, "WorkloadCredential/one": "b@example.org"}))
    (change,) = differences(before, owned)
    assert (change.name, change.fields) == ("one", (("owner", "a@example.org", "b@example.org"),))
