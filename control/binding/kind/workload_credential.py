"""
``kind: WorkloadCredential``: which identity may use which source where; the CLI calls it a binding.

In: the Sheet of its spec.  Out: a CredentialDraft.  docs/reference/workload-credential.md.  Pure.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

from control.binding.document import Node, Scalar
from control.binding.kind.header import Header
from control.binding.model import Destination
from control.binding.name import check_host, check_label, check_method, check_network, check_path_glob
from control.binding.sheet import Sheet
from control.errors import Place
from control.reason import Reason

KIND = "WorkloadCredential"


class CredentialDraft(NamedTuple):
    """What the document says, before names are looked up."""

    header: Header
    identity: str
    identity_place: Place | None
    source: str
    source_place: Place | None
    mode: Literal["observe", "enforce"]
    destinations: tuple[Destination, ...]
    places: tuple[Place, ...]
    """Of each destination."""
    ca_domains: tuple[str, ...]
    signer: str
    signer_place: Place | None
    on_lease_failure: str
    on_daemon_down: Literal["refuse", "direct"]


def read(header: Header, spec: Sheet, roots: Callable[[Sheet], str]) -> CredentialDraft:
    """Read the spec."""
    identity = spec.text("identity", needed=True, check=check_label, example="the name of a WorkloadIdentity")
    source = spec.text("source", needed=True, check=check_label, example="the name of a CredentialSource")
    mode = spec.choice("mode", ("observe", "enforce"), default="enforce", later=("shadow",))
    nodes = spec.listing("destinations", needed=True, example="a list of {hosts: […]}")
    destinations = tuple(_destination(node, spec, roots) for node in nodes)
    ca_domains = spec.texts("caDomains", check=check_host)
    signer, signer_place = _delivery(spec)
    on_lease_failure = _on_lease_failure(spec)
    on_daemon_down = spec.choice("onDaemonDown", ("refuse", "direct"), default="refuse")
    spec.close()
    return CredentialDraft(
        header,
        identity,
        spec.where("identity"),
        source,
        spec.where("source"),
        cast(Literal["observe", "enforce"], mode),
        destinations,
        tuple(node.place for node in nodes),
        ca_domains,
        signer,
        signer_place,
        on_lease_failure,
        cast(Literal["refuse", "direct"], on_daemon_down),
    )


def _destination(node: Node, spec: Sheet, roots: Callable[[Sheet], str]) -> Destination:
    sheet = Sheet(node, "destination", spec.faults)
    destination = Destination(
        hosts=sheet.texts("hosts", needed=True, check=check_host, example="[identity.us-ashburn-1.oraclecloud.com]"),
        ports=_ports(sheet),
        methods=sheet.texts("methods", check=check_method),
        paths=sheet.texts("paths", check=check_path_glob),
        networks=sheet.texts("networks", check=check_network),
        upstream_roots=roots(sheet),
    )
    sheet.close()
    return destination


def _ports(sheet: Sheet) -> tuple[int, ...]:
    nodes = sheet.listing("ports")
    ports: list[int] = []
    for node in nodes:
        port = sheet.number(node, "a port", 1, 65535)
        if port in ports:
            sheet.fault(f"ports names {port} twice", node.place, hint="keep one", reason=Reason.RESOURCE_DUPLICATE)
        elif port is not None:
            ports.append(port)
    return tuple(ports) if nodes else (443,)


def _delivery(spec: Sheet) -> tuple[str, Place | None]:
    delivery = spec.sheet("delivery", needed=True, example="{wire: {signer: oci}}")
    for later in ("file", "metadata"):
        if delivery.has(later):
            delivery.fault(f'delivery "{later}" is not available in this version', delivery.where(later), hint="use wire: {signer: oci}")
    if delivery.broken:
        return "", None
    wire = delivery.sheet("wire", needed=True, example="{signer: oci}")
    signer = wire.choice("signer", ("oci",), needed=True)
    wire.close()
    delivery.close()
    return signer, wire.where("signer")


def _on_lease_failure(spec: Sheet) -> str:
    node = spec.node("onLeaseFailure")
    if node is not None and not (isinstance(node, Scalar) and node.value == "refuse"):
        word = node.text if isinstance(node, Scalar) else "stale"
        known = word in ("stale", "passthrough")
        fault = f'spec.onLeaseFailure "{word}" is not ' + ("available in this version" if known else "known")
        spec.fault(fault, node.place, hint="write onLeaseFailure: refuse, or leave it out")
    return "refuse"
