"""The fields of an ``oci`` source: how to authenticate, what to ask for, and where the metadata service may be."""

import pytest

from control.binding.document import parse
from control.binding.model import OciSource
from control.binding.sheet import Faults, Sheet
from control.binding.source.oci import check_metadata, read
from control.errors import ResourceError

DOMAIN = "domain: https://idcs-1.identity.oraclecloud.com\n"
BASIC = DOMAIN + "clientAuth: {basic: {clientId: c, clientSecretFile: /etc/credwire/secrets/x}}\n"
INSTANCE = DOMAIN + "clientAuth: instancePrincipal\n"


def told(text: str) -> tuple[OciSource, list[str]]:
    faults: Faults = []
    (node,) = parse("s.yaml", text)
    source = read(Sheet(node, "spec.oci", faults), lambda sheet: sheet.text("upstreamRoots"))
    return source, [fault.message for fault in faults]


def test_what_is_written_is_what_is_asked_for() -> None:
    """A UPST with a secret unless written; an instance needs none; an RPST has a type."""
    source, faults = told(BASIC)
    assert (source.client_auth, source.client_id, source.asks_for, source.resource_type, faults) == ("basic", "c", "upst", "", [])
    source, faults = told(INSTANCE)
    assert (source.client_auth, source.client_secret_file, source.metadata, faults) == (
        "instancePrincipal", "", "http://169.254.169.254/opc/v2", [],
    )  # fmt: skip
    source, faults = told(INSTANCE + "metadata: http://[fd00:c1::a9fe:a9fe]/opc/v2\ntoken: rpst\nresourceType: credwireworkload\n")
    assert (source.metadata, source.asks_for, source.resource_type, faults) == (
        "http://[fd00:c1::a9fe:a9fe]/opc/v2", "rpst", "credwireworkload", [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BASIC + "metadata: http://169.254.169.254/opc/v2\n", "metadata is read for clientAuth instancePrincipal only"),
        (BASIC + "token: rpst\n", "spec.oci.resourceType is missing"),
        (BASIC + "resourceType: x\n", "resourceType says what an RPST is for"),
        (BASIC + "token: RPST\n", "spec.oci.token"),
        (BASIC + "token: rpst\nresourceType: 'a b'\n", 'resourceType "a b" is not a letter'),
        (DOMAIN + "clientAuth: instanceprincipal\n", 'clientAuth "instanceprincipal" is not known'),
        (DOMAIN, "clientAuth is missing"),
    ],
)
def test_what_does_not_fit_together_is_said(text: str, says: str) -> None:
    """Each mistake alone, in words that name the field."""
    _, faults = told(text)
    assert any(says in fault for fault in faults), faults


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1", "http://127.0.0.1:99999999/",
        "https://169.254.169.254/opc/v2", "http://10.0.0.1/opc/v2", "http://metadata.example/opc/v2", "http://8.8.8.8/", "169.254.169.254",
        "http://u:p@169.254.169.254/", "http://169.254.169.254/?x", "http://169.254.169.254/#x", "http://169.254.169.254:0/", "http://",
        "http://[fd00:c1::1]/opc/v2", "http://169.254.169.254/opc v2", "http://169.254.169.254/a%2fb", "http://169.254.169.254:x/",
        "http://[fe80::1%25eth0]/opc/v2", "http://0.0.0.0/", "ftp://169.254.169.254/",
    ],
)  # fmt: skip
def test_a_metadata_service_elsewhere_is_refused(url: str) -> None:
    """It hands out a private key over plain HTTP: a name, or an address that is not this machine's, could be somebody else's."""
    with pytest.raises(ResourceError):
        check_metadata(url)


def test_addresses_of_this_machine_are_taken() -> None:
    """Link-local, loopback, Oracle's own."""
    for url in (
        "http://169.254.169.254/opc/v2",
        "http://127.0.0.1:8080/opc/v2",
        "http://[::1]/opc/v2",
        "http://[fd00:c1::a9fe:a9fe]/opc/v2",
    ):
        assert check_metadata(url) == url
