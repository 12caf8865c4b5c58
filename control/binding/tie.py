"""
Find bindings between which a request could not decide.

In: bindings with the places of their destinations.  Out: a ResourceError for each pair.
Two bindings of one identity tie, in whatever mode, where they name the same host and port, allow a common method, and have globs that
match a common path and are equally specific.  They also must agree on what is needed before a path is known: roots and networks.  Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, combinations, product
from typing import NamedTuple

from control.binding.glob import ANY, Glob, Rank, compile_glob, overlap
from control.binding.model import Binding, Destination
from control.errors import Place, ResourceError
from control.reason import Reason

MAX_TOLD = 1024
"""Errors of this sort in one set; nobody reads more, and each pair of a thousand equal bindings would be one."""


class Claim(NamedTuple):
    """One destination of one binding."""

    binding: str
    destination: Destination
    globs: tuple[Glob, ...]
    """Of its paths; ANY where it names none."""
    place: Place

    @property
    def before_path(self) -> tuple[str, frozenset[str]]:
        """What is needed before a path is known."""
        return self.destination.upstream_roots, frozenset(self.destination.networks)


def ties(placed: Iterable[tuple[Binding, tuple[Place, ...]]]) -> Iterator[ResourceError]:
    """Give one error for every two claims that tie or contradict each other."""
    claims: dict[tuple[str, str, int], list[Claim]] = defaultdict(list)
    for binding, places in placed:
        for destination, place in zip(binding.destinations, places, strict=True):
            globs = tuple(compile_glob(path) for path in destination.paths) or (ANY,)
            claim = Claim(binding.name, destination, globs, place)
            for host in destination.hosts:
                for port in destination.ports:
                    claims[(binding.identity, host, port)].append(claim)
    told: set[tuple[Place, Place]] = set()
    for (identity, host, port), several in claims.items():
        for one, other, says, hint in _clashes(several):
            if (one.place, other.place) not in told:
                told.add((one.place, other.place))
                both = f'bindings "{one.binding}" and "{other.binding}" of identity "{identity}"'
                if one.binding == other.binding:
                    both = f'two destinations of "{one.binding}"'
                where = f"{host}:{port} (the other: {one.place})"
                yield ResourceError(Reason.RESOURCE_DUPLICATE, f"{both} {says.format(where)}", place=other.place, hint=hint)
            if len(told) == MAX_TOLD:
                return


_Clash = tuple[Claim, Claim, str, str]
"""The two, what they do with a place for where, and a hint."""


def _clashes(claims: list[Claim]) -> Iterator[_Clash]:
    """Give what is wrong between claims of one identity, host and port."""
    if len(claims) == 1:
        return
    first, agreed = claims[0], []
    for claim in claims:
        if claim.before_path == first.before_path:
            agreed.append(claim)
            continue
        field = "upstreamRoots" if claim.before_path[0] != first.before_path[0] else "networks"
        yield first, claim, f"disagree about {field} at {{}}", f"give both the same {field}: the server is verified before a path is known"
    for left, right, one, other in _equals(agreed):
        if one.binding != other.binding and _common_method(one.destination, other.destination):
            paths = f"paths {_literal(left.text)} and {_literal(right.text)}" if left.text else "any path"
            yield one, other, f"tie at {{}}: {paths}", "let one be more specific, or keep their methods apart"


def _equals(claims: list[Claim]) -> Iterator[tuple[Glob, Glob, Claim, Claim]]:
    """
    Give the pairs of globs of two claims that are equally specific and match a common path.

    Equal rank means equally long prefixes, so both must begin alike; with one star at most they must also end alike, and then are the
    same.  Only globs of several stars are walked pair by pair.
    """
    shelves: dict[tuple[Rank, str, str | None], list[tuple[int, Glob]]] = defaultdict(list)
    for number, claim in enumerate(claims):
        for glob in claim.globs:
            tail = glob.pieces[-1] if len(glob.pieces) < 3 else None
            shelves[(glob.rank, glob.pieces[0], tail)].append((number, glob))
    for (rank, head, tail), shelf in shelves.items():
        pairs: Iterable[tuple[tuple[int, Glob], tuple[int, Glob]]] = combinations(shelf, 2)
        if tail is not None and (several := shelves.get((rank, head, None))):
            pairs = chain(pairs, product(shelf, several))
        for one, other in pairs:
            (first, left), (second, right) = sorted((one, other))
            if first != second and overlap(left, right):
                yield left, right, claims[first], claims[second]


def _literal(text: str) -> str:
    """A path may hold braces, which str.format would fill."""
    return text.replace("{", "{{").replace("}", "}}")


def _common_method(a: Destination, b: Destination) -> bool:
    return not a.methods or not b.methods or not set(a.methods).isdisjoint(b.methods)
