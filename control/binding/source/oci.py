"""
``oci:`` an OCI identity domain that exchanges our JWT for a UPST or an RPST.

In: the Sheet of the ``oci`` field.  Out: an OciSource.  docs/reference/source-oci.md.  Pure.
"""

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from control.binding.document import Scalar
from control.binding.model import OciSource
from control.binding.name import check_file, check_https, malformed
from control.binding.sheet import Sheet

NAME = "oci"
SIGNER = "oci"
IMDS_V6 = ipaddress.ip_address("fd00:c1::a9fe:a9fe")
"""Oracle's metadata service on instances without IPv4: a unique local address that never leaves the host's virtual card."""

_RESOURCE_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_METADATA_PATH = re.compile(r"(/[A-Za-z0-9._-]+)*")
_AUTH_EXAMPLE = "{basic: {clientId: …, clientSecretFile: /etc/credwire/secrets/…}}, or instancePrincipal"


def read(sheet: Sheet, roots: Callable[[Sheet], str]) -> OciSource:
    """Read the field; ``roots`` reads ``upstreamRoots`` of a sheet."""
    source = OciSource(
        sheet.text("domain", needed=True, check=check_https, example="https://idcs-….identity.oraclecloud.com"), upstream_roots=roots(sheet)
    )
    source = _client(sheet, source)
    source = _asked(sheet, source)
    sheet.close()
    return source


def _client(sheet: Sheet, source: OciSource) -> OciSource:
    node = sheet.node("clientAuth", needed=True, example=_AUTH_EXAMPLE)
    alone = isinstance(node, Scalar) and node.value == "instancePrincipal"
    if sheet.has("metadata") and not alone:
        sheet.fault("metadata is read for clientAuth instancePrincipal only", sheet.where("metadata"), hint="leave metadata out")
    metadata = sheet.text("metadata", default=source.metadata, check=check_metadata)
    if node is None:
        return source
    if alone:
        return msgspec.structs.replace(source, client_auth="instancePrincipal", metadata=metadata)
    if isinstance(node, Scalar):
        sheet.fault(f'clientAuth "{node.text}" is not known', node.place, hint=f"write clientAuth: {_AUTH_EXAMPLE}")
        return source
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
    return msgspec.structs.replace(source, client_id=client_id, client_secret_file=secret_file)


def _asked(sheet: Sheet, source: OciSource) -> OciSource:
    asked = sheet.choice("token", ("upst", "rpst"), default="upst")
    kind = sheet.text("resourceType", needed=asked == "rpst", check=_resource_type, example="credwireworkload")
    if asked != "rpst":
        if kind:
            sheet.fault("resourceType says what an RPST is for", sheet.where("resourceType"), hint="add token: rpst, or leave it out")
        return source
    return msgspec.structs.replace(source, asks_for="rpst", resource_type=kind)


def check_metadata(value: str) -> str:
    """
    Accept ``http://address[:port]/path`` where the address is link-local, loopback or Oracle's own.

    The service hands out a private key over plain HTTP: it has to be this machine's, so a name or any farther address is refused.
    """
    hint = "leave it out; the default is http://169.254.169.254/opc/v2"
    try:
        parts = urlsplit(value)
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port
    except ValueError as error:
        raise malformed(f'metadata "{value}" is not http://address[:port]/path', hint) from error
    if parts.scheme != "http" or parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise malformed(f'metadata "{value}" is not http://address[:port]/path', hint)
    if not (address.is_link_local or address.is_loopback or address == IMDS_V6) or "%" in value or port == 0:
        raise malformed(f'metadata "{value}" is not an address of this machine: a private key would cross a network in clear', hint)
    if not _METADATA_PATH.fullmatch(parts.path):
        raise malformed(f'metadata "{value}" has a path of other than plain segments', hint)
    return value


def _resource_type(value: str) -> str:
    if not _RESOURCE_TYPE.fullmatch(value):
        raise malformed(f'resourceType "{value}" is not a letter and up to 63 of a-z, 0-9, ., - and _', "write the type that policies name")
    return value


def _client_id(value: str) -> str:
    if not value.isascii() or ":" in value or " " in value or len(value) > 255:  # RFC 7617: a colon would end the user id
        raise malformed(f'clientId "{value}" holds a colon, a blank or non-ASCII', "copy it from the confidential application")
    return value
