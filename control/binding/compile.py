"""
Turn identities into what the kernel filters processes by.

In: identities and bindings.  Out: FilterPlans and the ports of interest.
The filter only has to be wide enough: it must take every process that could match, and user space decides.  What it takes wrongly costs
an attestation; what it misses would pass by.  An identity without a binding makes no filter.  Pure.
"""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from control.binding.model import Binding
from control.errors import ResourceError
from control.identity.model import Identity
from control.identity.selector.registry import KINDS
from control.reason import Reason

MAX_FILTERS = 1024
"""Filters that one identity may become."""


class FilterPlan(NamedTuple):
    """Processes that run this executable and under this uid and by this script; None stands for any."""

    exe_path: str | None
    uid: int | None
    script: str | None
    direct_when_down: bool
    """Whether such a process connects directly while the agent is dead; only when all of its bindings say so."""


def filters_of(identity: Identity, *, direct_when_down: bool) -> list[FilterPlan]:
    """
    Give the filters of one identity.

    Raises ResourceError (RESOURCE_UNCOMPILABLE) without a place when the kernel could not tell its processes from others.
    """
    found: list[FilterPlan] = []
    for group in identity.selectors:
        by: dict[str, tuple[str, ...]] = {}
        for selector in group:
            field = KINDS[selector.kind].filters
            if field:
                by[field] = selector.values
        if "exe" not in by and "uid" not in by:
            kinds = " and ".join(selector.kind for selector in group) or "nothing"
            raise ResourceError(
                Reason.RESOURCE_UNCOMPILABLE,
                f'identity "{identity.name}": {kinds} alone cannot be turned into a kernel filter',
                hint="add unix:exe:path or unix:uid beside it",
            )
        for exe, uid, script in product(by.get("exe", (None,)), by.get("uid", (None,)), by.get("script", (None,))):
            found.append(FilterPlan(exe, None if uid is None else int(uid), script, direct_when_down))
            if len(found) > MAX_FILTERS:
                message = f'identity "{identity.name}" would become more than {MAX_FILTERS} kernel filters'
                raise ResourceError(Reason.RESOURCE_UNCOMPILABLE, message, hint="make several identities with fewer values each")
    return found


def filters(identities: Iterable[Identity], bindings: Iterable[Binding]) -> list[FilterPlan]:
    """Give the filters of all identities that have a binding, each once.  Raises as ``filters_of``."""
    direct: dict[str, bool] = {}
    for binding in bindings:
        direct[binding.identity] = direct.get(binding.identity, True) and binding.on_daemon_down == "direct"
    merged: dict[tuple[str | None, int | None, str | None], bool] = {}
    for identity in identities:
        if identity.name in direct:
            for plan in filters_of(identity, direct_when_down=direct[identity.name]):
                merged[plan[:3]] = merged.get(plan[:3], True) and plan.direct_when_down
    return [FilterPlan(*key, is_direct) for key, is_direct in merged.items()]


def ports(bindings: Iterable[Binding]) -> frozenset[int]:
    """Give every port that some binding names."""
    return frozenset(port for binding in bindings for destination in binding.destinations for port in destination.ports)
