"""
``kind: WorkloadCredential``: which identity may use which source where; the CLI calls it a binding.

In: the Sheet of its spec.  Out: a CredentialDraft.  docs/reference/workload-credential.md.  Pure.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

from control.binding.document import Mapping, Node, Scalar, kind_of
from control.binding.duration import seconds
from control.binding.kind.header import Header
from control.binding.model import Destination, WireSigner
from control.binding.name import check_host, check_label, check_method, check_network, check_path_glob
from control.binding.sheet import Sheet, nearest
from control.binding.signer.registry import SIGNERS
from control.errors import Place
from control.reason import Reason

KIND = "WorkloadCredential"
MAX_STALE_S = 24 * 3600
"""A lease that is used for longer after its end has no end."""
_SECRETS = ("secret", "token", "password", "value", "key", "apiKey")
"""Options under which people write the secret itself."""

OnLeaseFailure = Literal["refuse", "stale", "passthrough"]


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
    signer: WireSigner | None
    """None after an error."""
    signer_place: Place | None
    on_lease_failure: OnLeaseFailure
    stale_s: int
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
    on_lease_failure, stale_s = _on_lease_failure(spec)
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
        stale_s,
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


def _delivery(spec: Sheet) -> tuple[WireSigner | None, Place | None]:
    delivery = spec.sheet("delivery", needed=True, example="{wire: {signer: oci}}")
    for later in ("file", "metadata"):
        if delivery.has(later):
            delivery.fault(f'delivery "{later}" is not available in this version', delivery.where(later), hint="use wire: {signer: oci}")
    if delivery.broken:
        return None, None
    wire = delivery.sheet("wire", needed=True, example="{signer: oci}")
    word = wire.choice("signer", SIGNERS, needed=True)
    for secret in _SECRETS:
        if secret in wire.entries:
            wire.known.add(secret)
            wire.fault("a secret stands in the document", wire.where(secret),
                       hint="name it in a static source; then change the secret: this one has been read")  # fmt: skip
    signer = SIGNERS[word].read(wire) if word else None
    if word:
        wire.close()
    delivery.close()
    return signer, wire.where("signer")


def _on_lease_failure(spec: Sheet) -> tuple[OnLeaseFailure, int]:
    """Read ``refuse``, ``passthrough`` or ``{stale: 10m}``."""
    node = spec.node("onLeaseFailure")
    if isinstance(node, Mapping):
        sheet = Sheet(node, "spec.onLeaseFailure", spec.faults)
        stale = sheet.node("stale", needed=True, example="10m")
        stale_s = sheet.duration("stale", low_s=1, high_s=MAX_STALE_S, default_s=0, rule="stale-bounded") if stale else 0
        sheet.close()
        return ("stale", stale_s) if stale_s else ("refuse", 0)
    if isinstance(node, Scalar) and node.value == "stale":
        spec.fault("spec.onLeaseFailure stale says not for how long", node.place, hint="write onLeaseFailure: {stale: 10m}")
        return "refuse", 0
    if isinstance(node, Scalar) and isinstance(node.value, str) and seconds(node.value.removeprefix("stale:").strip()):
        spec.fault(f'spec.onLeaseFailure is "{node.text}"', node.place, hint="write it as a mapping: onLeaseFailure: {stale: 10m}")
        return "refuse", 0
    if node is None or (isinstance(node, Scalar) and node.value in ("refuse", "passthrough")):
        return cast(OnLeaseFailure, node.value if isinstance(node, Scalar) else "refuse"), 0
    word = node.text if isinstance(node, Scalar) else ""
    spec.fault(f"spec.onLeaseFailure is {kind_of(node)}", node.place, hint=nearest(word, ("refuse", "passthrough", "{stale: 10m}")))
    return "refuse", 0
