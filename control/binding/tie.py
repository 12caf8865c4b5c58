"""
Find bindings between which a request could not decide.

In: bindings with the places of their destinations.  Out: a ResourceError for each pair.
Two bindings of one identity and mode tie where they name the same host and port, allow a common method, and have globs that match a
common path and are equally specific.  They also must agree on what is needed before a path is known: roots and networks.  Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from control.binding.glob import ANY, compile_glob, overlap
from control.binding.model import Binding, Destination
from control.errors import Place, ResourceError
from control.reason import Reason


class Claim(NamedTuple):
    """One destination of one binding."""

    binding: str
    destination: Destination
    place: Place


def ties(placed: Iterable[tuple[Binding, tuple[Place, ...]]]) -> Iterator[ResourceError]:
    """Give one error for every two claims that tie or contradict each other."""
    claims: dict[tuple[str, str, str, int], list[Claim]] = defaultdict(list)
    for binding, places in placed:
        for destination, place in zip(binding.destinations, places, strict=True):
            for host in destination.hosts:
                for port in destination.ports:
                    claims[(binding.identity, binding.mode, host, port)].append(Claim(binding.name, destination, place))
    told: set[tuple[Place, Place]] = set()
    for (identity, _, host, port), several in claims.items():
        for one, other in combinations(several, 2):
            error = _clash(identity, host, port, one, other)
            if error is not None and (one.place, other.place) not in told:
                told.add((one.place, other.place))
                yield error


def _clash(identity: str, host: str, port: int, one: Claim, other: Claim) -> ResourceError | None:
    a, b = one.destination, other.destination
    if one.binding == other.binding:
        both = f'two destinations of "{one.binding}"'
    else:
        both = f'bindings "{one.binding}" and "{other.binding}" of identity "{identity}"'
    where = f"{host}:{port} (the other: {one.place})"
    for field, differ in (("upstreamRoots", a.upstream_roots != b.upstream_roots), ("networks", set(a.networks) != set(b.networks))):
        if differ:
            message = f"{both} disagree about {field} at {where}"
            hint = f"give both the same {field}: the server is verified before a path is known"
            return ResourceError(Reason.RESOURCE_DUPLICATE, message, place=other.place, hint=hint)
    if one.binding == other.binding or not _common_method(a, b):
        return None
    for left in [compile_glob(path) for path in a.paths] or [ANY]:
        for right in [compile_glob(path) for path in b.paths] or [ANY]:
            if left.rank == right.rank and overlap(left, right):
                paths = f"paths {left.text} and {right.text}" if left.text else "any path"
                message = f"{both} tie at {where}: {paths}"
                hint = "let one be more specific, or keep their methods apart"
                return ResourceError(Reason.RESOURCE_DUPLICATE, message, place=other.place, hint=hint)
    return None


def _common_method(a: Destination, b: Destination) -> bool:
    return not a.methods or not b.methods or not set(a.methods).isdisjoint(b.methods)
