"""
The running set: what the kernel and the other processes are told of it.

In: small sets, made here.  Out: numbers of identities, and what is refused because it could not be told.
"""

from pathlib import Path

import msgspec

from control.binding.load import Loaded
from control.binding.model import Binding, Destination, ResourceSet
from control.daemon.policy_io import SET_MOST, Policy
from control.daemon.running import EMPTY
from control.identity.model import Identity


def made(kind: type[msgspec.Struct], **known: object) -> object:
    """Make a struct whose other fields hold nothing."""
    blank: dict[type, object] = {str: "", int: 0, bool: False}
    fields = {
        f.name: known.get(f.name, blank.get(f.type, ()))
        for f in msgspec.structs.fields(kind)
        if f.name in known or (f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT)
    }
    return kind(**fields)


def holding(*identities: str, bindings: tuple[object, ...] = ()) -> Loaded:
    found = msgspec.structs.replace(
        EMPTY.read, digest="-".join(identities), identities=tuple(made(Identity, name=n) for n in identities), bindings=bindings
    )
    assert isinstance(found, ResourceSet)
    return Loaded(found, (), ())


def take(held: Policy, loaded: Loaded, off: frozenset[str] = frozenset()) -> list[str]:
    """Do what a reload does, without a kernel."""
    fresh = held.prepare(loaded, off)
    if fresh.errors:
        held.refuse(fresh.errors)
    else:
        held.use(fresh)
        held.keep()
    return [str(error) for error in fresh.errors]


def policy(directory: Path) -> Policy:
    directory.mkdir(exist_ok=True)
    return Policy(directory, directory, "corp.example", ())


def test_an_identity_keeps_its_number_over_a_restart_with_another_set(tmp_path: Path) -> None:
    """The kernel's table outlives the agent: the number of an identity that went must not become another's."""
    before, after = policy(tmp_path / "before"), policy(tmp_path / "after")
    assert take(before, holding("gone", "stays")) == []
    assert take(after, holding("stays", "fresh")) == []
    assert after.identity_number("stays") == before.identity_number("stays")
    assert before.identity_number("gone") not in (after.identity_number("stays"), after.identity_number("fresh"), 0)


def test_a_set_that_does_not_fit_into_a_message_is_refused_and_named(tmp_path: Path) -> None:
    """Five copies of the system's roots in one identity: said at the reload, not found out at the first connection."""
    running = policy(tmp_path)
    roots = "x" * (SET_MOST // 4)
    places = tuple(made(Destination, hosts=(f"h{n}.example",), ports=(443,), upstream_roots=roots) for n in range(5))
    [error] = take(running, holding("wide", bindings=(made(Binding, name="b", identity="wide", destinations=places),)))
    assert '"wide"' in error
    assert "upstreamRoots" in error
    assert take(running, holding("wide", bindings=(made(Binding, name="b", identity="wide", destinations=places[:2]),))) == []


def test_a_directory_that_comes_and_changes_is_seen(tmp_path: Path) -> None:
    """status compares with what lies on disk now: a missing directory is no digest, an empty one is, and a broken file is none again."""
    resources = tmp_path / "resources"
    held = Policy(resources, tmp_path, "corp.example", ())
    assert held.digest_on_disk() == ""
    resources.mkdir()
    empty = held.digest_on_disk()
    assert take(held, held.read()) == []
    assert empty == held.current.digest
    (resources / "broken.yaml").write_text("kind: Nonsense\n")
    assert held.digest_on_disk() == ""
    (resources / "broken.yaml").unlink()
    assert held.digest_on_disk() == empty
