"""
Describe the four kinds of resources as JSON Schema (draft 2020-12), for editors and for checks before a commit.

In: the registries of selectors, sources and signers.  Out: SCHEMAS by file name; ``python -m tests.unit.binding.schema_files`` writes them
to docs/reference/schema.
The reader (control/binding/kind) decides; a schema sees one document, so names that lead nowhere, ties and over-broad values are not its
business.  Whatever field it does not know the reader refuses too, and the other way round.  Pure.
"""

from typing import Any, Final

from control.binding.duration import DURATION
from control.binding.kind import credential_source, federation, workload_credential, workload_identity
from control.binding.kind.header import API_VERSION
from control.binding.kind.workload_identity import MAX_VALUES
from control.binding.name import LABEL, METHODS
from control.binding.signer.registry import SIGNERS
from control.binding.source.registry import SOURCES
from control.identity.selector.registry import KINDS as SELECTORS

Shape = dict[str, Any]
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def _text(description: str, **more: Any) -> Shape:
    return {"type": "string", "minLength": 1, "description": description, **more}


def _label(description: str) -> Shape:
    return _text(description, pattern=f"^{LABEL.pattern}$")


def _duration(description: str, **more: Any) -> Shape:
    return _text(description, pattern=f"^{DURATION.pattern}$", **more)


def _file(description: str) -> Shape:
    return _text(description, pattern="^/")


def _several(items: Shape, description: str) -> Shape:
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": items, "description": description}


def _fields(fields: dict[str, Shape], needed: tuple[str, ...] = (), description: str = "") -> Shape:
    about = {"description": description} if description else {}
    return {"type": "object", **about, "additionalProperties": False, "required": list(needed), "properties": fields}


_COMMON: Final[dict[str, Shape]] = {
    "owner": _text("who answers for it", maxLength=254),
    "reviewedAt": _text("day of the last review", pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    "reviewEvery": _duration("a review is due that long after the last one"),
}


def _selector(numeric: bool) -> Shape:
    value: Shape = {"type": ["integer", "string"]} if numeric else {"type": "string", "minLength": 1}
    return {"anyOf": [value, {"type": "array", "minItems": 1, "maxItems": MAX_VALUES, "items": value}]}


_IDENTITY: Final = _fields(
    {
        **_COMMON,
        "workloadID": _text("path of the SPIFFE ID, without the first slash", pattern="^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"),
        "environment": _label("a source of another environment is refused"),
        "selectors": {
            "type": "array",
            "minItems": 1,
            "description": "objects are alternatives; the keys inside of one must all hold; a list value means any of",
            "items": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": {name: _selector(kind.numeric) for name, kind in SELECTORS.items()},
            },
        },
        "egress": {"enum": ["open", "bound-only"], "default": "open", "description": "what happens to names without a binding"},
        "allowRoot": {"type": "boolean", "default": False, "description": "whether a process of uid 0 may have it"},
    },
    ("owner", "workloadID", "environment", "selectors"),
)

_FEDERATION: Final = _fields(
    {
        **_COMMON,
        "issuer": {"const": "self", "description": "tokens are issued by this installation"},
        "audience": _text("the one aud of its tokens", maxLength=255, pattern=r"^[^*, ]+$"),
        "subjectRule": _text("sub eq <SPIFFE ID>, in full", pattern=r"^sub eq spiffe://[^*\s]+$"),
        "principal": _text("who the exchange must make us", maxLength=255, pattern=r"^[^*]+$"),
    },
    ("owner", "issuer", "audience", "subjectRule", "principal"),
)


def _alternative(name: str) -> Shape:
    """What a source of one kind needs and must not have."""
    kind = SOURCES[name]
    needed = [name, *(["federation"] if kind.federated else []), *(["reviewedAt", "reviewEvery"] if kind.reviewed else [])]
    barred = [other for other in SOURCES if other != name] + ([] if kind.federated else ["federation"])
    return {"required": needed, "properties": dict.fromkeys(barred, False)}


_SOURCE: Final = _fields(
    {
        **_COMMON,
        "federation": _label("name of a Federation, for kinds that exchange our tokens"),
        "environment": _label("given to identities of the same environment only"),
        "ttlCap": _duration("longest life of a credential; for a static secret: when it is read again", default="1h"),
        **{name: kind.shape for name, kind in SOURCES.items()},
    },
    ("owner", "environment"),
) | {"oneOf": [_alternative(name) for name in SOURCES]}

_DESTINATION: Final = _fields(
    {
        "hosts": _several(_text("a name of two labels or more, or *. before one"), "where the credential may go"),
        "ports": _several({"type": "integer", "minimum": 1, "maximum": 65535}, "443 when left out"),
        "methods": _several({"enum": sorted(METHODS)}, "any when left out"),
        "paths": _several(_text("a glob; * is any run of characters", pattern="^/"), "any when left out"),
        "networks": _several(_text("a private, loopback or link-local CIDR"), "public addresses only when left out"),
        "upstreamRoots": _file("root-owned PEM file of CA certificates"),
    },
    ("hosts",),
)

_CREDENTIAL: Final = _fields(
    {
        **_COMMON,
        "identity": _label("name of a WorkloadIdentity"),
        "source": _label("name of a CredentialSource"),
        "mode": {"enum": ["observe", "enforce"], "default": "enforce", "description": "observe looks and gives nothing"},
        "destinations": {"type": "array", "minItems": 1, "items": _DESTINATION, "description": "alternatives"},
        "caDomains": _several(_text("a name"), "further names that the binding's CA may sign for"),
        "delivery": _fields(
            {
                "wire": {
                    "description": "put on the request by the proxy",
                    "oneOf": [
                        _fields({"signer": {"const": name}, **kind.shape}, ("signer", *kind.needed)) for name, kind in SIGNERS.items()
                    ],
                }
            },
            ("wire",),
        ),
        "onLeaseFailure": {
            "description": "while the source gives nothing",
            "default": "refuse",
            "oneOf": [
                {"enum": ["refuse", "passthrough"]},
                _fields({"stale": _duration("how long past its end the last credential is used, a day at most")}, ("stale",)),
            ],
        },
        "onDaemonDown": {"enum": ["refuse", "direct"], "default": "refuse", "description": "while the agent is dead"},
    },
    ("owner", "identity", "source", "destinations", "delivery"),
)

SPECS: Final[dict[str, Shape]] = {
    workload_identity.KIND: _IDENTITY,
    federation.KIND: _FEDERATION,
    credential_source.KIND: _SOURCE,
    workload_credential.KIND: _CREDENTIAL,
}
_FILES: Final = {
    "workload-identity.json": workload_identity.KIND,
    "federation.json": federation.KIND,
    "credential-source.json": credential_source.KIND,
    "workload-credential.json": workload_credential.KIND,
}


def _document(kind: str) -> Shape:
    return _fields(
        {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": _fields({"name": _label("unique among resources of its kind")}, ("name",)),
            "spec": SPECS[kind],
        },
        ("apiVersion", "kind", "metadata", "spec"),
    )


def _any() -> Shape:
    """For files that hold documents of several kinds: the kind chooses."""
    chosen = [{"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{kind}"}} for kind in SPECS]
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(SPECS)}},
        "allOf": chosen,
        "$defs": {kind: _document(kind) for kind in SPECS},
    }


def _named(title: str, shape: Shape) -> Shape:
    return {"$schema": DRAFT, "$id": f"urn:credwire:schema:{API_VERSION.replace('/', ':')}:{title}", "title": title, **shape}


SCHEMAS: Final[dict[str, Shape]] = {
    **{file: _named(kind, _document(kind)) for file, kind in _FILES.items()},
    "resource.json": _named("Resource", _any()),
}
