"""
What an administrator has to create at an OCI identity domain so that our sources work there.

In: a resource set, our issuer.  Out: one Plan per identity domain, and its text.
Rules: Oracle, "Exchange a JSON Web Token for a UPST": SCIM schemas IdentityPropagationTrust and User; a trust for each subject type; two
confidential applications, because the one that exchanges must not be able to change trusts.  Pure.
"""

import json
from collections import defaultdict
from typing import Any

import msgspec

from control.binding.model import OciSource, ResourceSet, Source
from control.text import plain

TRUST_SCHEMA = "urn:ietf:params:scim:schemas:oracle:idcs:IdentityPropagationTrust"
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
SERVICE_SCHEMA = "urn:ietf:params:scim:schemas:oracle:idcs:extension:user:User"
SKEW_S = 60


class Plan(msgspec.Struct, frozen=True):
    """One identity domain."""

    domain: str
    issuer: str
    sources: tuple[str, ...]
    applications: tuple[dict[str, Any], ...]
    service_users: tuple[dict[str, Any], ...]
    trusts: tuple[dict[str, Any], ...]
    policies: tuple[str, ...]
    warnings: tuple[str, ...]


def plans(found: ResourceSet, issuer: str, setup_client: str = "", source: str = "") -> tuple[Plan, ...]:
    """
    Give the plan of every domain that a source names, or of the one that ``source`` names.

    ``setup_client`` is the id of the application that creates all this, when it is known.  A trust is whole: it has the rules of every
    source of its domain, also when one source was asked for.
    """
    by_domain: defaultdict[str, list[Source]] = defaultdict(list)
    for one in found.sources:
        if isinstance(one.of, OciSource):
            by_domain[one.of.domain].append(one)
    wanted = {one.of.domain for one in found.sources if isinstance(one.of, OciSource) and source in ("", one.name)}
    return tuple(_plan(found, issuer, domain, here, setup_client) for domain, here in sorted(by_domain.items()) if domain in wanted)


def _plan(found: ResourceSet, issuer: str, domain: str, sources: list[Source], setup_client: str) -> Plan:
    users = sorted({source.principal for source in sources if _of(source).asks_for == "upst"})
    kinds = sorted({_of(source).asks_for for source in sources}, reverse=True)
    clients = sorted({_of(source).client_id for source in sources if _of(source).client_auth == "basic"})
    warnings = []
    for client in clients:
        if client == setup_client:
            warnings.append(
                f'application "{client}" would both exchange and change trusts: whoever has its secret could map any token to any user; '
                "create two"
            )
    if len(kinds) > 1:
        warnings.append("upst and rpst in one domain want two trusts with one issuer: try that in a domain for tests first")
    unused = [source.name for source in sources if not _subjects(found, source)]
    warnings += [f'source "{name}" has no binding, so nobody is trusted for it yet' for name in unused]
    if any(_of(source).client_auth == "instancePrincipal" for source in sources):
        warnings.append(
            "oauthClients of an instance principal: Oracle documents no form for it; the instance's OCID is what was tried here"
        )
    return Plan(
        domain=domain,
        issuer=issuer,
        sources=tuple(source.name for source in sources),
        applications=tuple(_applications(clients, setup_client)),
        service_users=tuple(_service_user(name) for name in users),
        trusts=tuple(_trust(found, issuer, [s for s in sources if _of(s).asks_for == kind], kind) for kind in kinds),
        policies=tuple(_policies(found, sources)),
        warnings=tuple(warnings),
    )


def _of(source: Source) -> OciSource:
    assert isinstance(source.of, OciSource)  # noqa: S101  # plans() lets no other through
    return source.of


def _subjects(found: ResourceSet, source: Source) -> list[str]:
    """SPIFFE IDs of the identities whose bindings use ``source``; the loader has compared them with the federation's subjectRule."""
    names = {binding.identity for binding in found.bindings if binding.source == source.name}
    return sorted(identity.spiffe_id for identity in found.identities if identity.name in names)


def _applications(clients: list[str], setup_client: str) -> list[dict[str, Any]]:
    setup = {
        "for": "set-up", "clientId": setup_client or "<id of the application for set-up>", "type": "confidential",
        "grants": ["client_credentials"], "roles": ["Identity Domain Administrator"],
        "note": "creates the trust; deactivate it afterwards; credwire never has its secret",
    }  # fmt: skip
    exchanging = [
        {
            "for": "exchange", "clientId": client, "type": "confidential", "grants": ["client_credentials"], "roles": [],
            "note": "stands in oauthClients of the trust; its secret goes into clientSecretFile",
        }
        for client in clients
    ]  # fmt: skip
    return [setup, *exchanging]


def _service_user(name: str) -> dict[str, Any]:
    return {
        "schemas": [USER_SCHEMA, SERVICE_SCHEMA],
        "userName": name,
        SERVICE_SCHEMA: {"serviceUser": True},  # immutable: a user made without it can never become one
    }


def _trust(found: ResourceSet, issuer: str, sources: list[Source], kind: str) -> dict[str, Any]:
    instance = any(_of(source).client_auth == "instancePrincipal" for source in sources)
    clients = sorted({_of(source).client_id for source in sources if _of(source).client_auth == "basic"})
    trust: dict[str, Any] = {
        "schemas": [TRUST_SCHEMA],
        "name": "credwire" if kind == "upst" else "credwire-resources",
        "type": "JWT",
        "issuer": issuer,
        "active": True,
        "publicKeyEndpoint": f"{issuer.rstrip('/')}/jwks",
        "oauthClients": [*clients, *(["<ocid1.instance… of each instance>"] if instance else [])],
        "subjectType": "User" if kind == "upst" else "Resource",
        "subjectClaimName": "sub",
        "clientClaimName": "aud",
        "clientClaimValues": sorted({source.audience for source in sources}),
        "clockSkewSeconds": SKEW_S,
    }
    if kind == "upst":
        trust["allowImpersonation"] = True
        trust["impersonationServiceUsers"] = [
            {"rule": f"sub eq {subject}", "value": _value(source.principal)} for source in sources for subject in _subjects(found, source)
        ]
    return trust


def _value(principal: str) -> str:
    return principal if principal.startswith("ocid1.") else f"<id of service user {principal}>"


def _policies(found: ResourceSet, sources: list[Source]) -> list[str]:
    told = []
    for source in sources:
        if _of(source).asks_for == "upst":
            told.append(f"Allow group '<domain name>'/'<group of {source.principal}>' to <verb> <resources> in compartment <compartment>")
            continue
        told += [
            "Allow any-user to <verb> <resources> in compartment <compartment> where all "
            f"{{request.principal.type = '{_of(source).resource_type}', request.principal.sub = '{subject}'}}"
            for subject in _subjects(found, source)
        ]
    return list(dict.fromkeys(told))


def text(plan: Plan) -> str:
    """Write one plan for people who type it."""
    applications: list[str] = []
    for application in plan.applications:
        roles = ", ".join(application["roles"]) or "none"
        applications += [f"{application['for']}: {application['clientId']}", f"  roles: {roles}", f"  {application['note']}"]
    steps = [("Confidential applications: one for set-up, another for the exchange", applications)]
    steps += [(f"Service user: POST {plan.domain}/admin/v1/Users", _lines(user)) for user in plan.service_users]
    steps += [(f"Trust: POST {plan.domain}/admin/v1/IdentityPropagationTrusts", _lines(trust)) for trust in plan.trusts]
    steps += [("Policies (the domain is named unless it is Default)", list(plan.policies))]
    parts = [f"Identity domain {plan.domain}", f"for {', '.join(plan.sources)}"]
    for number, (title, lines) in enumerate(steps, 1):
        parts += ["", f"{number}. {title}", *(f"   {line}" for line in lines)]
    return "\n".join(plain(line) for line in parts) + "\n"


def _lines(document: dict[str, Any]) -> list[str]:
    return json.dumps(document, indent=2, ensure_ascii=False).splitlines()
