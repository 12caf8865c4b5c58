"""
Write somebody's first resources: one file, commented, short enough to read in a minute.

In: what they said of their program, their secret and where it goes.  Out: YAML of at most 25 lines beside its comments.  Nothing is checked
here: what comes out is read and judged as a reload would.  Pure.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9/._@+-]*|[0-9]+[smhd]|[0-9]{1,10}|[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


class Who(NamedTuple):
    """The program: its executable, its script where it has one, its user."""

    exe: str
    script: str
    uid: int
    user: str
    """For people; empty for a number that has no name."""
    allow_root: bool = False


class Where(NamedTuple):
    """The destination."""

    hosts: Sequence[str]
    ports: Sequence[int] = ()
    methods: Sequence[str] = ()
    paths: Sequence[str] = ()
    networks: Sequence[str] = ()
    upstream_roots: str = ""


class Common(NamedTuple):
    """What both starters need."""

    name: str
    owner: str
    environment: str
    mode: str
    today: str
    review_every: str
    who: Who | None
    """None when ``identity`` is defined elsewhere."""
    identity: str
    where: Where


def api_key(common: Common, secret_file: str, wire: dict[str, str]) -> str:
    """Write an API key's identity, source and binding; ``wire`` is the ``wire`` mapping."""
    source = (
        {"owner": common.owner, "environment": common.environment, "reviewedAt": common.today, "reviewEvery": common.review_every},
        {"static": {"file": secret_file}},
    )
    parts = [
        *_identity(common),
        f"# Where the secret lies; credwire seal {common.name} replaces it.",
        f"# Its owner looks at it every {common.review_every} and sets reviewedAt to that day.",
        *_document("CredentialSource", common.name, *source),
        "---",
        *_credential(common, wire),
    ]
    return "\n".join([*_head(common, "an API key"), *parts]) + "\n"


class Domain(NamedTuple):
    """An OCI identity domain and what it trusts us for."""

    url: str
    client_id: str
    """Empty for an instance principal."""
    secret_file: str
    audience: str
    principal: str


def oci(common: Common, domain: Domain, trust_domain: str) -> str:
    """Write the identity, federation, source and binding of an OCI client."""
    basic = {"basic": {"clientId": domain.client_id, "clientSecretFile": domain.secret_file}}
    federation = (
        {"owner": common.owner, "issuer": "self", "audience": domain.audience, "principal": domain.principal},
        {
            "subjectRule": f"sub eq spiffe://{trust_domain}/apps/{common.name}",
            "reviewedAt": common.today, "reviewEvery": common.review_every,
        },
    )  # fmt: skip
    source = (
        {"owner": common.owner, "environment": common.environment, "federation": common.name, "ttlCap": "1h"},
        {"oci": {"domain": domain.url, "clientAuth": basic if domain.client_id else "instancePrincipal"}},
    )
    parts = [
        *_identity(common, flow=True),
        "# What the identity domain trusts this workload for: rule and principal stand in its identity propagation trust.",
        *_document("Federation", common.name, *federation),
        "---",
        "# Where the session token comes from.",
        *_document("CredentialSource", common.name, *source),
        "---",
        *_credential(common, {"signer": "oci"}, flow=True),
    ]
    return "\n".join([*_head(common, "an OCI client"), *parts]) + "\n"


def lines_of_yaml(text: str) -> int:
    """Count the lines that are neither comment nor empty."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())


# ---- parts -----------------------------------------------------------------------------------------------------------------------------


def _head(common: Common, what: str) -> list[str]:
    return [
        f"# {common.name}: {what} for {', '.join(common.where.hosts)}; credwire init made it on {common.today}.",
        "# It is yours to edit.  After a change: credwire validate, credwire diff, credwire reload.",
        "#",
    ]


def _identity(common: Common, *, flow: bool = False) -> list[str]:
    who = common.who
    if who is None:
        return []
    selector: dict[str, Any] = {"unix:uid": who.uid, "unix:exe:path": who.exe}
    if who.script:
        selector["script:path"] = who.script
    first: dict[str, Any] = {"workloadID": f"apps/{common.name}", "owner": common.owner, "environment": common.environment}
    if who.allow_root:
        first["allowRoot"] = True
    runs = f"the script {who.script}" if who.script else who.exe
    whose = f"{who.user} (uid {who.uid})" if who.user else f"uid {who.uid}"
    return [
        f"# Who: processes that run {runs} as {whose}, and nobody else.",
        *_document("WorkloadIdentity", common.name, first, {"selectors": [selector]}, flow=flow or who.allow_root),
        "---",
    ]


def _credential(common: Common, wire: dict[str, str], *, flow: bool = False) -> list[str]:
    where = common.where
    to: dict[str, Any] = {"hosts": list(where.hosts)}
    for key, values in (("ports", where.ports), ("methods", where.methods), ("paths", where.paths), ("networks", where.networks)):
        if values:
            to[key] = list(values)
    if where.upstream_roots:
        to["upstreamRoots"] = where.upstream_roots
    first = {"identity": common.identity, "source": common.name, "owner": common.owner, "mode": common.mode}
    narrower = "" if where.methods and where.paths else '  Narrower: methods: [GET], paths: ["/v1/*"] beside hosts.'
    return [
        f"# What for.{narrower}",
        "# mode observe records who would get it and gives nothing; enforce gives it.",
        *_document("WorkloadCredential", common.name, first, {"destinations": [to], "delivery": {"wire": wire}}, flow=flow),
    ]


def _document(kind: str, name: str, *rows: dict[str, Any], flow: bool = True) -> list[str]:
    """Write one document: its spec in flow style, a line for each of ``rows``, or in block style, a line for each field."""
    head = ["apiVersion: credwire/v1alpha1", f"kind: {kind}", f"metadata: {{name: {_scalar(name)}}}"]
    fields = [[f"{key}: {_flow(value)}" for key, value in row.items()] for row in rows]
    if not flow:
        return [*head, "spec:", *(f"  {field}" for row in fields for field in row)]
    lines = ",\n       ".join(", ".join(row) for row in fields).split("\n")
    return [*head, f"spec: {{{lines[0]}", *lines[1:-1], lines[-1] + "}"] if len(lines) > 1 else [*head, f"spec: {{{lines[0]}}}"]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _scalar(value)


def _scalar(text: str) -> str:
    """Write text plainly where every YAML reader takes it for text, else in double quotes, as JSON writes it."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not (text.isdigit())
    return text if plain else json.dumps(text)
