"""The published schemas are those of the table, take what the reader takes, and refuse the fields that it refuses."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from control.binding.document import Listing, Mapping, Node, Scalar, parse
from control.binding.load import load
from control.binding.schema import SCHEMAS, SPECS
from control.binding.sheet import Sheet
from control.binding.source.registry import LATER
from tests.repo.house import REPO, report
from tests.unit.binding.bad_static import ORDERS
from tests.unit.binding.docs import GOOD
from tests.unit.binding.schema_files import DIRECTORY, files

EXAMPLES = sorted((REPO / "docs" / "examples").glob("*.yaml"))
OF_KIND = {str(shape["title"]): Draft202012Validator(shape) for shape in SCHEMAS.values()}
STRANGE = "zzUnknown"


def plain(node: Node) -> Any:
    """What a JSON reader would have got."""
    if isinstance(node, Mapping):
        return {name: plain(entry.value) for name, entry in node.entries.items()}
    return [plain(item) for item in node.items] if isinstance(node, Listing) else node.value


def documents() -> list[Any]:
    """Every document of the examples and of the tests' good sets."""
    texts = [path.read_text() for path in EXAMPLES] + [GOOD, ORDERS]
    return [plain(node) for text in texts for node in parse("x", text)]


def mappings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where mappings stand in a document."""
    if isinstance(value, dict):
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from mappings(one, (*path, key))


def test_the_published_files_are_those_of_the_table() -> None:
    """``python -m tests.unit.binding.schema_files`` writes them; nothing else lies there."""
    wanted = files()
    assert sorted(DIRECTORY.iterdir()) == sorted(wanted)
    report(
        [
            f"{path.name}: differs; run python -m tests.unit.binding.schema_files"
            for path, text in wanted.items()
            if path.read_text() != text
        ]
    )


def test_each_schema_is_one() -> None:
    """By the draft's own schema."""
    for shape in SCHEMAS.values():
        Draft202012Validator.check_schema(shape)


def test_every_example_is_valid() -> None:
    """By the schema of its kind and by the one for all."""
    assert len(EXAMPLES) >= 3
    found = documents()
    assert {document["kind"] for document in found} == set(SPECS)
    for document in found:
        for validator in (OF_KIND[document["kind"]], OF_KIND["Resource"]):
            assert [error.message for error in validator.iter_errors(document)] == []


def test_an_unknown_field_is_refused_by_both() -> None:
    """In every mapping of every document: the reader says so, and the schemas do."""
    tried = 0
    for document in documents():
        for path in mappings(document):
            changed = copy.deepcopy(document)
            at = changed
            for step in path:
                at = at[step]
            at[STRANGE] = "x"
            errors = load([("x.yaml", json.dumps(changed) + "\n")], lambda _: "", "corp.example").errors
            assert any(STRANGE in error.message or "unknown field" in error.message for error in errors), path
            assert not OF_KIND[changed["kind"]].is_valid(changed), path
            assert not OF_KIND["Resource"].is_valid(changed), path
            tried += 1
    assert tried > 70


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("WorkloadIdentity", ("spec", "owner"), None),
        ("WorkloadIdentity", ("spec", "egress"), "closed"),
        ("WorkloadIdentity", ("spec", "selectors"), []),
        ("Federation", ("spec", "audience"), ["a", "b"]),
        ("Federation", ("spec", "subjectRule"), "sub eq *"),
        ("Federation", ("spec", "subjectRule"), "sub co spiffe://corp.example/x"),
        ("CredentialSource", ("spec", "ttlCap"), "1 hour"),
        ("CredentialSource", ("spec", "environment"), None),
        ("WorkloadCredential", ("spec", "mode"), "shadow"),
        ("WorkloadCredential", ("spec", "delivery"), {"wire": {"signer": "header"}}),
        ("WorkloadCredential", ("spec", "delivery"), {"wire": {"signer": "bearer", "header": "x"}}),
        ("WorkloadCredential", ("spec", "onLeaseFailure"), "stale"),
        ("WorkloadCredential", ("metadata", "name"), "OCI"),
    ],
)
def test_what_one_document_shows_to_be_wrong_is_refused_by_both(kind: str, path: tuple[str, str], value: Any) -> None:
    """Missing owners, several audiences, wide subjects, words that do not exist; None takes the field out."""
    good = [plain(node) for node in parse("x", GOOD)]
    changed = copy.deepcopy(next(document for document in good if document["kind"] == kind))
    changed[path[0]][path[1]] = value
    if value is None:
        del changed[path[0]][path[1]]
    others = [document for document in good if document["kind"] != kind]
    text = "\n---\n".join(json.dumps(document) for document in [*others, changed]) + "\n"
    assert load([("x.yaml", text)], lambda _: "", "corp.example").found is None
    assert not OF_KIND[kind].is_valid(changed)


@pytest.mark.parametrize("change", [{"federation": "x"}, {"reviewedAt": None}, {"reviewEvery": None}, {"static": {}}, {"oci": {}}])
def test_a_static_source_has_dates_and_no_federation_by_both(change: dict[str, Any]) -> None:
    """And exactly one kind, that says where the secret lies."""
    document = plain(parse("x", ORDERS)[0])
    assert OF_KIND["CredentialSource"].is_valid(document)
    spec = {name: value for name, value in (document["spec"] | change).items() if value is not None}
    changed = document | {"spec": spec}
    assert not OF_KIND["CredentialSource"].is_valid(changed)
    assert load([("x.yaml", json.dumps(changed) + "\n")], lambda _: "", "corp.example").found is None


def test_the_reader_knows_no_field_that_the_schema_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each mapping's reader asked for is in the schema, or is asked for only to be refused by name."""
    refused = LATER | {"file", "metadata", "secret", "value", "token", "password", "key", "apiKey", "clientSecret"}
    asked: dict[str, set[str]] = {}
    close = Sheet.close

    def noting(self: Sheet) -> None:
        asked.setdefault(self.what, set()).update(self.known)
        close(self)

    monkeypatch.setattr(Sheet, "close", noting)
    for text in (GOOD, ORDERS, GOOD.replace("onLeaseFailure: refuse", "onLeaseFailure: {stale: 1h}")):
        load([("x.yaml", text)], lambda _: "", "corp.example")
    told = json.dumps(SCHEMAS)
    assert {"spec", "metadata", "destination", "spec.oci", "spec.static", "spec.delivery.wire", "spec.onLeaseFailure"} <= set(asked)
    report(
        [
            f"{what}.{name} is in no schema"
            for what, names in asked.items()
            for name in sorted(names - refused)
            if f'"{name}": {{' not in told
        ]
    )


def test_every_field_of_a_schema_is_known_to_the_reader() -> None:
    """Each property of each spec, given a value of no use: the reader may say what is wrong with it, not that it does not exist."""
    for kind, shape in SPECS.items():
        for name in shape["properties"]:
            text = json.dumps({"apiVersion": "credwire/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": {name: [[]]}}) + "\n"
            errors = load([("x.yaml", text)], lambda _: "", "corp.example").errors
            assert errors
            assert not [error.message for error in errors if f'no field "{name}"' in error.message]


def test_scalars_of_the_reader_are_those_of_json() -> None:
    """The comparison above is one of equals: quoted and plain scalars read as JSON reads them."""
    (node,) = parse("x", '{"a": 1, "b": "1", "c": true, "d": null}\n')
    assert plain(node) == {"a": 1, "b": "1", "c": True, "d": None}
    assert isinstance(node, Mapping)
    assert isinstance(node.entries["a"].value, Scalar)
