"""
``kind: WorkloadIdentity``: which processes are this workload.

In: the Sheet of its spec.  Out: an IdentityDraft.  docs/reference/workload-identity.md.  Pure.
"""

from typing import NamedTuple

from control.binding.compile import FILTER_HINT, FILTERABLE
from control.binding.document import Listing, Mapping, Node, Scalar, kind_of
from control.binding.kind.header import Header
from control.binding.name import check_label, check_workload_id
from control.binding.sheet import Sheet, nearest
from control.errors import Place
from control.identity.model import Selector
from control.identity.program import is_interpreter, is_relay
from control.identity.selector.registry import KINDS
from control.reason import Reason

KIND = "WorkloadIdentity"
MAX_VALUES = 64
"""Values of one selector."""


class IdentityDraft(NamedTuple):
    """What the document says, before names are looked up."""

    header: Header
    workload_id: str
    environment: str
    groups: tuple[tuple[Selector, ...], ...]
    places: tuple[Place, ...]
    """Of each group."""
    egress: str
    allow_root: bool


def read(header: Header, spec: Sheet) -> IdentityDraft:
    """Read the spec."""
    workload_id = spec.text("workloadID", needed=True, check=check_workload_id, example="ops/oci-cli")
    environment = spec.text("environment", needed=True, check=check_label, example="prod")
    allow_root = spec.truth("allowRoot")
    egress = spec.choice("egress", ("open", "bound-only"), default="open")
    groups: list[tuple[Selector, ...]] = []
    places: list[Place] = []
    for node in spec.listing("selectors", needed=True, example="a list of selector objects"):
        group = _group(node, spec, allow_root=allow_root)
        if group:
            groups.append(group)
            places.append(node.place)
    spec.close()
    return IdentityDraft(header, workload_id, environment, tuple(groups), tuple(places), egress, allow_root)


def _group(node: Node, spec: Sheet, *, allow_root: bool) -> tuple[Selector, ...]:
    if not isinstance(node, Mapping):
        hint = "write - unix:uid: 1001, and further keys below it"
        spec.fault(f"a selector is {kind_of(node)} instead of a mapping of selectors", node.place, hint=hint)
        return ()
    before = len(spec.faults)
    group: list[Selector] = []
    for name, entry in node.entries.items():
        kind = KINDS.get(name)
        if kind is None:
            spec.fault(f'there is no selector "{name}"', entry.place, hint=nearest(name, KINDS))
            continue
        nodes = entry.value.items if isinstance(entry.value, Listing) else (entry.value,)
        if not 0 < len(nodes) <= MAX_VALUES:
            spec.fault(f"{name} has {len(nodes)} values", entry.value.place, hint=f"name 1 to {MAX_VALUES}")
            continue
        values = [_value(one, name, spec) for one in nodes]
        if len(set(values)) < len(values) and "" not in values:
            spec.fault(f"{name} names a value twice", entry.value.place, hint="keep one", reason=Reason.RESOURCE_DUPLICATE)
        group.append(Selector(name, tuple(dict.fromkeys(value for value in values if value))))
    if len(spec.faults) == before:
        _judge(group, node, spec, allow_root=allow_root)
    return tuple(group)


def _value(node: Node, name: str, spec: Sheet) -> str:
    kind = KINDS[name]
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
        return spec.checked(node.value, node, kind.check)
    if kind.numeric and isinstance(node, Scalar) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return spec.checked(node.text, node, kind.check)
    spec.fault(
        f"{name} is {kind_of(node)} instead of {'a number' if kind.numeric else 'text'}", node.place, hint="write one value or a list"
    )
    return ""


def _judge(group: list[Selector], node: Mapping, spec: Sheet, *, allow_root: bool) -> None:
    """Refuse what the kernel cannot filter on and what matches more than a program."""
    of = {selector.kind: selector.values for selector in group}
    if not of:
        spec.fault("a selector object without selectors matches every process", node.place, hint="name unix:uid, unix:exe:path or both",
                   reason=Reason.RESOURCE_OVERBROAD, rule="one-program")  # fmt: skip
        return
    if not any(KINDS[kind].filters in FILTERABLE for kind in of):
        kinds = " and ".join(of)
        spec.fault(f"{kinds} alone cannot be turned into a kernel filter", node.place, hint=FILTER_HINT,
                   reason=Reason.RESOURCE_UNCOMPILABLE)  # fmt: skip
    if "script:sha256" in of and "script:path" not in of:
        spec.fault("script:sha256 is read from where the script lies, and no script:path says where that may be",
                   node.entries["script:sha256"].value.place, hint="add script:path: with the #! script that is executed",
                   reason=Reason.RESOURCE_UNCOMPILABLE)  # fmt: skip
    for kind, root in (("unix:uid", "0"), ("unix:user", "root")):
        if root in of.get(kind, ()) and not allow_root:
            what = f"{kind} 0 is root" if root == "0" else f"{kind} is root"
            spec.fault(what, node.entries[kind].value.place, hint="give the program its own user, or set allowRoot: true",
                       reason=Reason.RESOURCE_OVERBROAD, rule="no-root")  # fmt: skip
    for path in of.get("unix:exe:path", ()):
        place = node.entries["unix:exe:path"].value.place
        if is_interpreter(path) and "script:path" not in of:
            spec.fault(f'"{path}" runs whatever it is told to: it is no program of its own', place,
                       hint="add script:path: with the #! script that is executed",
                       reason=Reason.RESOURCE_OVERBROAD, rule="one-program")  # fmt: skip
        if is_relay(path):
            spec.fault(f'"{path}" relays for others, who would use its credential', place,
                       hint="bind the program that speaks HTTP itself", reason=Reason.RESOURCE_OVERBROAD, rule="no-relay")  # fmt: skip
