"""What a reload would change, told in the words of the documents."""

import msgspec
import pytest

from control.binding.diff import Change, changes
from control.binding.load import load
from control.binding.model import ResourceSet
from tests.unit.binding.bad_static import ORDERS
from tests.unit.binding.docs import GOOD


def made(text: str) -> ResourceSet:
    """The set of one file."""
    loaded = load([("a.yaml", text)], lambda path: "PEM " + path, "corp.example")
    assert [str(error) for error in loaded.errors] == []
    assert loaded.found is not None
    return loaded.found


BOTH = made(GOOD + "---\n" + ORDERS)


def test_equal_sets_differ_in_nothing() -> None:
    """Whatever their revision, digest and places."""
    moved = made("# a line more\n" + GOOD + "---\n" + ORDERS)
    assert moved.places != BOTH.places
    assert changes(BOTH, msgspec.structs.replace(moved, revision=7)) == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("egress: open", "egress: bound-only", Change("WorkloadIdentity", "oci-cli", "changed", (("egress", "open", "bound-only"),))),
        (
            "unix:uid: 1001",
            "unix:uid: [1001, 1002]",
            Change(
                "WorkloadIdentity",
                "oci-cli",
                "changed",
                (
                    (
                        "selectors",
                        "unix:uid 1001 and unix:exe:path /usr/bin/python3.11 and script:path /opt/oci/bin/oci",
                        "unix:uid 1001 or 1002 and unix:exe:path /usr/bin/python3.11 and script:path /opt/oci/bin/oci",
                    ),
                ),
            ),
        ),
        ("ttlCap: 30m", "ttlCap: 2h", Change("CredentialSource", "oci-upst", "changed", (("ttlCap", "30m", "2h"),))),
        (
            "audience: oci-prod",
            "audience: oci-new",
            Change("CredentialSource", "oci-upst", "changed", (("audience", "oci-prod", "oci-new"),)),
        ),
        (
            "secrets/oci}",
            "secrets/oci-2}",
            Change(
                "CredentialSource",
                "oci-upst",
                "changed",
                (("oci.clientSecretFile", "/etc/credwire/secrets/oci", "/etc/credwire/secrets/oci-2"),),
            ),
        ),
        (
            "file: /etc/credwire/secrets/orders-key",
            "systemdCredential: orders",
            Change(
                "CredentialSource",
                "orders-key",
                "changed",
                (("static.file", "/etc/credwire/secrets/orders-key", ""), ("static.systemdCredential", "", "orders")),
            ),
        ),
        (
            "      ports: [443]\n      methods: [GET]\n",
            "      ports: [8443, 443]\n      upstreamRoots: /ca.pem\n",
            Change(
                "WorkloadCredential",
                "oci-prod",
                "changed",
                (
                    (
                        "destinations",
                        "hosts *.us-ashburn-1.oraclecloud.com ports 443 methods GET paths /20160918/users*",
                        "hosts *.us-ashburn-1.oraclecloud.com ports 443,8443 paths /20160918/users* "
                        "upstreamRoots certificates with SHA-256 8c22ce7e823cab95",
                    ),
                ),
            ),
        ),
        (
            "signer: header, header: X-Api-Key",
            'signer: header, header: authorization, template: "Token {secret}"',
            Change(
                "WorkloadCredential",
                "orders",
                "changed",
                (
                    (
                        "delivery",
                        "wire header, header x-api-key, template {secret}",
                        "wire header, header authorization, template Token {secret}",
                    ),
                ),
            ),
        ),
        (
            "onLeaseFailure: refuse",
            "onLeaseFailure: {stale: 10m}",
            Change("WorkloadCredential", "oci-prod", "changed", (("onLeaseFailure", "refuse", "stale 10m"),)),
        ),
        ("mode: enforce", "mode: observe", Change("WorkloadCredential", "oci-prod", "changed", (("mode", "enforce", "observe"),))),
        (
            "reviewedAt: 2026-01-01\n  reviewEvery: 30d",
            "reviewedAt: 2026-02-01\n  reviewEvery: 30d",
            Change("Federation", "oci-domain", "changed", (("reviewedAt", "2026-01-01", "2026-02-01"),)),
        ),
    ],
)
def test_one_change_of_a_document_is_one_change_told(old: str, new: str, change: Change) -> None:
    """The field as people wrote it, before and after; and the same backwards."""
    text = GOOD + "---\n" + ORDERS
    assert text.count(old) == 1
    after = made(text.replace(old, new))
    assert changes(BOTH, after) == (change,)
    (back,) = changes(after, BOTH)
    assert back.fields == tuple((field, was, is_now) for field, is_now, was in change.fields)


def test_what_comes_and_goes_is_told_whole_and_in_order() -> None:
    """By kind, then by name; each with what it had or has."""
    came = changes(made(""), BOTH)
    assert [(change.kind, change.name, change.what) for change in came] == [
        ("WorkloadIdentity", "oci-cli", "added"),
        ("Federation", "oci-domain", "added"),
        ("CredentialSource", "oci-upst", "added"),
        ("CredentialSource", "orders-key", "added"),
        ("WorkloadCredential", "oci-prod", "added"),
        ("WorkloadCredential", "orders", "added"),
    ]
    assert all(before == "" for change in came for _, before, _ in change.fields)
    assert ("owner", "", "team@example.org") in came[0].fields
    assert {change.what for change in changes(BOTH, made(""))} == {"removed"}
    assert changes(BOTH, made(GOOD)) == tuple(change for change in changes(BOTH, made("")) if change.name.startswith("orders"))


def test_the_order_of_alternatives_is_no_change() -> None:
    """Of destinations, and of what one of them lists."""
    line = "    - {hosts: [b.example.com], ports: [443, 8443]}\n"
    text = GOOD.replace("  delivery:", line + "  delivery:")
    turned = GOOD.replace("  destinations:\n", "  destinations:\n" + line.replace("443, 8443", "8443, 443"))
    assert changes(made(text), made(turned)) == ()


def test_every_field_of_the_model_is_told() -> None:
    """A field that nobody thought of here shows all the same."""
    (binding,) = made(GOOD).bindings
    for field in msgspec.structs.fields(binding):
        if field.name in ("name", "stale_s"):
            continue
        other = msgspec.structs.replace(binding, **{field.name: "x" if isinstance(getattr(binding, field.name), str) else ()})
        if field.name == "signer":
            other = msgspec.structs.replace(binding, signer=BOTH.bindings[1].signer)
        if getattr(binding, field.name) == getattr(other, field.name):
            other = msgspec.structs.replace(binding, **{field.name: ("x",)})
        after = msgspec.structs.replace(made(GOOD), bindings=(other,))
        assert [change.what for change in changes(made(GOOD), after)] == ["changed"], field.name
