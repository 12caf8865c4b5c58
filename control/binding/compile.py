"""
Turn identities into what the kernel filters processes by.

In: identities and bindings, the executables of packages.  Out: FilterPlans and the ports of interest.
The filter only has to be wide enough: it must take every process that could match, and user space decides.  What it takes wrongly costs
an attestation; what it misses would pass by.  An identity without a binding makes no filter.  Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from control.binding.model import Binding
from control.errors import ResourceError
from control.identity.match import no_program
from control.identity.model import Identity, Selector
from control.reason import Reason

MAX_FILTERS = 1024
"""Filters that one identity may become."""
FILTERABLE = ("exe", "uid")
"""Parts of a filter that make one; a script alone does not, as the kernel only looks at scripts of processes that it tells apart."""
FILTER_HINT = "add unix:exe:path or unix:uid beside it; unix:exe:package and unix:user do as well"

Packages = Mapping[str, Sequence[str]]
"""Each package that selectors name, with the executables that it has on this machine."""
NO_PACKAGES: Packages = {}


class FilterPlan(NamedTuple):
    """Processes that run this executable and under this uid and by this script; None stands for any."""

    exe_path: str | None
    uid: int | None
    script: str | None
    direct_when_down: bool
    """Whether such a process connects directly while the agent is dead; only when all of its bindings say so."""
    observe: bool = False
    """Whether such a process is only looked at: all bindings of its identity are in mode observe."""


class _Parts(NamedTuple):
    """What one selector object says of each part of a filter; None where it says nothing, empty where nothing of it exists here."""

    exe: Sequence[str] | None
    uid: Sequence[int] | None
    script: Sequence[str] | None
    room: int
    """Filters that it may become, whoever of the named users exists."""


def filters_of(identity: Identity, *, direct_when_down: bool, observe: bool = False, packages: Packages = NO_PACKAGES) -> list[FilterPlan]:
    """
    Give the filters of one identity.

    A user that nobody has, or has looked up, and a package that is not in ``packages`` make none: nothing runs under them here.
    Raises ResourceError (RESOURCE_UNCOMPILABLE) without a place when the kernel could not tell its processes from others.
    """
    found: list[FilterPlan] = []
    room = 0
    for group in identity.selectors:
        parts = _parts(group, packages)
        if parts.exe is None and parts.uid is None:
            kinds = " and ".join(selector.kind for selector in group) or "nothing"
            raise ResourceError(
                Reason.RESOURCE_UNCOMPILABLE,
                f'identity "{identity.name}": {kinds} alone cannot be turned into a kernel filter',
                hint=FILTER_HINT,
            )
        room += parts.room
        if room > MAX_FILTERS:
            message = f'identity "{identity.name}" would become more than {MAX_FILTERS} kernel filters'
            raise ResourceError(Reason.RESOURCE_UNCOMPILABLE, message, hint="make several identities with fewer values each")
        every = (None,)
        for exe, uid, script in product(
            every if parts.exe is None else parts.exe,
            every if parts.uid is None else parts.uid,
            every if parts.script is None else parts.script,
        ):
            found.append(FilterPlan(exe, uid, script, direct_when_down, observe))
    return found


def _parts(group: Sequence[Selector], packages: Packages) -> _Parts:
    """
    Take the narrowest of what several selectors say of one part that still holds every process that all of them accept.

    Paths alone count beside packages: a process has to have one of these paths, whatever the packages hold.
    """
    of = {selector.kind: selector for selector in group}
    exe: Sequence[str] | None = None
    if "unix:exe:path" in of:
        exe = of["unix:exe:path"].values
    elif "unix:exe:package" in of:
        exe = list(dict.fromkeys(programs_of(group, packages)))
    uid: Sequence[int] | None = None
    if "unix:uid" in of:
        uid = [int(value) for value in of["unix:uid"].values]
    if "unix:user" in of:
        users = [number for number in of["unix:user"].numbers or () if number is not None]
        uid = [number for number in dict.fromkeys(users) if uid is None or number in uid]
    script = of["script:path"].values if "script:path" in of else None
    names = [len(of[kind].values) for kind in ("unix:uid", "unix:user") if kind in of]
    sizes = (len(part) for part in (exe, script) if part is not None)
    return _Parts(exe, uid, script, prod(sizes, start=min(names, default=1)))


def programs_of(group: Sequence[Selector], packages: Packages) -> Iterable[str]:
    """Give the executables of a selector object's packages, without those that it can never match."""
    scripted = any(selector.kind == "script:path" for selector in group)
    for selector in group:
        if selector.kind == "unix:exe:package":
            for name in selector.values:
                yield from (path for path in packages.get(name, ()) if not no_program(path, scripted=scripted))


class Filtered(NamedTuple):
    """What all identities became."""

    plans: list[FilterPlan]
    faults: list[ResourceError]
    """Identities that this machine's packages make too many filters of: they have none."""


def compiled(identities: Iterable[Identity], bindings: Iterable[Binding], packages: Packages = NO_PACKAGES) -> Filtered:
    """Give the filters of all identities that have a binding, each once: where two agree the stricter word counts."""
    direct: dict[str, bool] = {}
    observe: dict[str, bool] = {}
    for binding in bindings:
        observed = binding.mode == "observe"
        observe[binding.identity] = observe.get(binding.identity, True) and observed
        direct[binding.identity] = direct.get(binding.identity, True) and (observed or binding.on_daemon_down == "direct")
    merged: dict[tuple[str | None, int | None, str | None], tuple[bool, bool]] = {}
    faults: list[ResourceError] = []
    for identity in identities:
        if identity.name not in direct:
            continue
        try:
            plans = filters_of(identity, direct_when_down=direct[identity.name], observe=observe[identity.name], packages=packages)
        except ResourceError as error:
            faults.append(error)
            continue
        for plan in plans:
            was_direct, was_observe = merged.get(plan[:3], (True, True))
            merged[plan[:3]] = (was_direct and plan.direct_when_down, was_observe and plan.observe)
    return Filtered([FilterPlan(*key, *words) for key, words in merged.items()], faults)


def filters(identities: Iterable[Identity], bindings: Iterable[Binding], packages: Packages = NO_PACKAGES) -> list[FilterPlan]:
    """Give the filters of all identities that have a binding, each once.  Raises as ``filters_of``."""
    plans, faults = compiled(identities, bindings, packages)
    if faults:
        raise faults[0]
    return plans


def ports(bindings: Iterable[Binding]) -> frozenset[int]:
    """Give every port that some binding names."""
    return frozenset(port for binding in bindings for destination in binding.destinations for port in destination.ports)
