"""
Decide whether keys may do what a proxy wants.

In: the grants the agent gave, the rules it committed, and what a proxy asks for.  Out: a Warrant, or a Refusal.
The proxy parses bytes from strangers, so nothing it says is believed: the grant must be the agent's, the binding the grant's, and the
decision is made again from what will be sent.  A proxy that lies gets nothing (tests/unit/keys/test_process.py plays one).  Pure.
"""

from collections import OrderedDict
from dataclasses import dataclass

from control.binding import canonical
from control.binding.model import Binding, Source
from control.daemon import message as m
from control.daemon.rules import Rules
from control.errors import Refusal
from control.identity.model import Identity
from control.reason import Reason

WITHDRAWN_MOST = 4096
"""Withdrawn grants whose reason is remembered, so that a late request hears why and not only that."""
_SECOND_METHOD = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
_SECOND_TARGET = frozenset({"x-original-url", "x-rewrite-url"})
"""Headers by which common frameworks and gateways take another method or path than the request line's, which alone is decided on."""
HTTP, HTTPS = 80, 443
"""Port of a Host header that names none: of the scheme the client spoke (RFC 9110 4.2)."""


@dataclass(frozen=True, slots=True)
class Warrant:
    """What was found while deciding, so that nobody looks it up twice."""

    grant: m.GrantIssued
    identity: Identity
    binding: Binding
    source: Source


class Grants:
    """The grants that are in force, as the agent told."""

    def __init__(self) -> None:
        self._held: dict[str, m.GrantIssued] = {}
        self._withdrawn: OrderedDict[str, Reason] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def issued(self, grant: m.GrantIssued) -> None:
        """Take a grant."""
        self._held[grant.grant] = grant
        self._withdrawn.pop(grant.grant, None)

    def withdrawn(self, grant_id: str, reason: Reason) -> None:
        """Drop a grant and remember why for a while."""
        if self._held.pop(grant_id, None) is None:
            return
        self._withdrawn[grant_id] = reason
        while len(self._withdrawn) > WITHDRAWN_MOST:
            self._withdrawn.popitem(last=False)

    def clear(self) -> None:
        """Drop everything: the agent that answers for the grants is gone."""
        self._held.clear()
        self._withdrawn.clear()

    def swapped(self, before: Rules, after: Rules) -> None:
        """A new set is in force: grants of identities for which anything changed end."""
        names = {g.identity for g in self._held.values()}
        changed = {name for name in names if before.fingerprint(name) != after.fingerprint(name)}
        for grant in [g for g in self._held.values() if g.identity in changed]:
            self.withdrawn(grant.grant, Reason.REVISION_OLD)

    def find(self, grant_id: str) -> m.GrantIssued | Refusal:
        """Give the grant, or why there is none (any more)."""
        grant = self._held.get(grant_id)
        if grant is None:
            return Refusal(self._withdrawn.get(grant_id, Reason.GRANT_UNKNOWN))
        return grant


def warrant(rules: Rules, grants: Grants, grant_id: str, binding_name: str) -> Warrant | Refusal:
    """Check what every wish has in common: the grant is known, it holds the binding, and the rules in force still join the two."""
    grant = grants.find(grant_id)
    if isinstance(grant, Refusal):
        return grant
    if grant.revision > rules.revision:
        return Refusal(Reason.REVISION_OLD, "the grant is of a set that did not arrive")
    if binding_name not in grant.bindings:
        return Refusal(Reason.GRANT_UNKNOWN, f'the grant does not hold binding "{canonical.shown(binding_name)}"')
    binding, identity = rules.bindings.get(binding_name), rules.identities.get(grant.identity)
    if binding is None or identity is None or binding.identity != identity.name or binding.mode != "enforce":
        return Refusal(Reason.REVISION_OLD, f'binding "{canonical.shown(binding_name)}" is not in force for the grant\'s identity')
    source = rules.source_of(binding)
    if source is None:
        return Refusal(Reason.LEASE_UNAVAILABLE, f'binding "{binding.name}" has no source in force')
    return Warrant(grant, identity, binding, source)


def warrant_leaf(rules: Rules, grants: Grants, wanted: m.LeafWanted) -> Warrant | Refusal:
    """Decide on a leaf: the name must be canonical and bound to exactly that binding of the grant's identity."""
    found = warrant(rules, grants, wanted.grant, wanted.binding)
    if isinstance(found, Refusal):
        return found
    if canonical.host_name(wanted.name) != wanted.name:
        return Refusal(Reason.DESTINATION_UNKNOWN, f'"{canonical.shown(wanted.name)}" is not a host name in canonical form')
    table = rules.tables.of(found.identity.name)
    for port in {port for destination in found.binding.destinations for port in destination.ports}:
        place = table.at(wanted.name, port)
        if place is not None and any(row.binding == found.binding.name for row in place.rows):
            return found
    return Refusal(Reason.DESTINATION_UNKNOWN, f'binding "{found.binding.name}" does not name "{wanted.name}"')


def warrant_signature(rules: Rules, grants: Grants, wanted: m.SignatureWanted) -> Warrant | Refusal:
    """Decide on a signature: what was asked must be what will be sent, and the rules must give it to exactly that binding."""
    found = warrant(rules, grants, wanted.grant, wanted.binding)
    if isinstance(found, Refusal):
        return found
    asked = wanted.asked
    if wanted.target.partition("?")[0] != asked.path:
        return Refusal(Reason.PATH_AMBIGUOUS, "the request target is not the path that was decided on")
    for name in {name.lower().replace("_", "-") for name, _ in wanted.headers}:
        if name in _SECOND_METHOD:
            return Refusal(Reason.METHOD_FORBIDDEN, f"header {name} names another method than the one that was decided on")
        if name in _SECOND_TARGET:
            return Refusal(Reason.PATH_AMBIGUOUS, f"header {name} names another path than the one that was decided on")
    hosts = [value for name, value in wanted.headers if name.lower() == "host"]
    if len(hosts) != 1:
        return Refusal(Reason.HOST_MISMATCH, f"the request has {len(hosts)} Host headers")
    named = canonical.authority(hosts[0].strip(" \t"), default_port=HTTP if asked.port == HTTP else HTTPS)
    if isinstance(named, Refusal):
        return named
    if named.host != asked.host or named.port != asked.port:
        return Refusal(Reason.HOST_MISMATCH, "the Host header does not name the destination that was decided on")
    if found.grant.port not in (0, asked.port):
        return Refusal(Reason.HOST_MISMATCH, f"the connection went to port {found.grant.port}, not to {asked.port}")
    decision = rules.tables.of(found.identity.name).decide(asked)
    if not decision.granted:
        return Refusal(decision.reason, decision.detail)
    if decision.binding != found.binding.name:
        return Refusal(Reason.GRANT_UNKNOWN, f'the request belongs to binding "{decision.binding}", not to the one named')
    return found
