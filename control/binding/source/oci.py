"""
``oci:`` an OCI identity domain that exchanges our JWT for a UPST.

In: the Sheet of the ``oci`` field.  Out: an OciSource.  docs/reference/source-oci.md.  Pure.
"""

from collections.abc import Callable

from control.binding.document import Node, Scalar
from control.binding.model import OciSource
from control.binding.name import check_file, check_https, malformed
from control.binding.sheet import Sheet

NAME = "oci"
SIGNER = "oci"


def read(sheet: Sheet, roots: Callable[[Sheet], str]) -> OciSource:
    """Read the field; ``roots`` reads ``upstreamRoots`` of a sheet."""
    domain = sheet.text("domain", needed=True, check=check_https, example="https://idcs-….identity.oraclecloud.com")
    client_id, secret_file = _client(sheet)
    source = OciSource(domain, client_id, secret_file, roots(sheet))
    sheet.close()
    return source


def _client(sheet: Sheet) -> tuple[str, str]:
    example = "{basic: {clientId: …, clientSecretFile: /etc/credwire/secrets/…}}"
    node = sheet.node("clientAuth", needed=True, example=example)
    if node is None:
        return "", ""
    if _is_word(node, "instancePrincipal"):
        sheet.fault("clientAuth instancePrincipal is not available in this version", node.place, hint=f"write clientAuth: {example}")
        return "", ""
    if isinstance(node, Scalar):
        sheet.fault(f'clientAuth "{node.text}" is not known', node.place, hint=f"write clientAuth: {example}")
        return "", ""
    auth = Sheet(node, sheet.name("clientAuth"), sheet.faults)
    basic = auth.sheet("basic", needed=True, example="{clientId: …, clientSecretFile: …}")
    client_id = basic.text("clientId", needed=True, check=_client_id)
    secret_file = basic.text("clientSecretFile", needed=True, check=check_file, example="/etc/credwire/secrets/oci")
    if "clientSecret" in basic.entries:
        basic.known.add("clientSecret")
        basic.fault("a client secret stands in the document", basic.entries["clientSecret"].place,
                    hint="put it into a root-only file and name that: clientSecretFile: …; then change the secret")  # fmt: skip
    basic.close()
    auth.close()
    return client_id, secret_file


def _is_word(node: Node, word: str) -> bool:
    return isinstance(node, Scalar) and node.value == word


def _client_id(value: str) -> str:
    if not value.isascii() or ":" in value or " " in value or len(value) > 255:  # RFC 7617: a colon would end the user id
        raise malformed(f'clientId "{value}" holds a colon, a blank or non-ASCII', "copy it from the confidential application")
    return value
