"""
Turn answers into what is printed.

In: the answers of control/api/view.py.  Out: text of at most 80 columns, or JSON or YAML that only grows.  Every value passes ``plain``:
hosts, paths and names were chosen by strangers.  Colour adds nothing that words do not say.  Pure.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate, takewhile
from typing import Any

import msgspec

from control.api.view import (
    BindingsView,
    BindingView,
    ChangeView,
    DiffView,
    Event,
    ExplainView,
    FaultView,
    IdentitiesView,
    IdentityView,
    OffView,
    ReloadView,
    RevokeView,
    StatusView,
    SwitchView,
)
from control.text import harmless_json, plain

WIDTH = 80

_NUMBERLIKE = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
"""What YAML 1.2 reads as a number (its specification, section 10.3.2)."""


# ---- documents ---------------------------------------------------------------------------------------------------------------------


def document(value: Any, form: str) -> str:
    """Write a Struct or plain value as ``json`` or ``yaml``, with what text shows beside the fields (``healthy``, ``granted``)."""
    known = _with_properties(value)
    if form == "json":
        return harmless_json(msgspec.json.format(msgspec.json.encode(known), indent=2)).decode() + "\n"
    import yaml  # noqa: PLC0415  # slow to import

    class Writer(yaml.CSafeDumper):
        """Also quotes what only readers of YAML 1.2 take for a number, such as 1e5 and 0o17: libyaml knows YAML 1.1."""

    def text(writer: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
        return writer.represent_scalar("tag:yaml.org,2002:str", value, style="'" if _NUMBERLIKE.fullmatch(value) else None)

    Writer.add_representer(str, text)
    return yaml.dump(known, Dumper=Writer, default_flow_style=False, sort_keys=False, allow_unicode=False)  # escapes what a terminal obeys


def json_line(event: Event) -> str:
    """One event on one line, as the audit file has it."""
    return harmless_json(msgspec.json.encode(event)).decode() + "\n"


def _with_properties(value: Any) -> Any:
    known = msgspec.to_builtins(value)
    match value:
        case StatusView():
            return {"healthy": well(value), "disk_differs": value.disk_differs, **known}
        case DiffView():
            return {"would_swap": not value.errors, "changed": bool(value.changes), **known}
        case ExplainView():
            return {"granted": value.granted, **known}
        case _:
            return known


# ---- text --------------------------------------------------------------------------------------------------------------------------


def status(view: StatusView) -> str:
    """The page an operator reads first: what is off, the verdict, and what is wrong last, where the eye stops."""
    verdict = "healthy" if well(view) else "NOT HEALTHY"
    does = "is OFF" if view.off.everything else f"enforces revision {view.revision}" if view.enforcing else "does not enforce"
    lines = [*_folded_all(off_lines(view.off), "red  "), f"credwire {plain(view.version)} {does}: {verdict}".replace("  ", " "), ""]
    rows = []
    for p in view.processes:
        name = f"{p.role} {p.worker}" if p.role == "proxy" else p.role
        rows.append((name, p.pid or "-", p.state, utc(p.since), _thousands(p.rss_kb) if p.rss_kb else "-", p.restarts))
    lines.append(table(("PROCESS", "PID", "STATE", "SINCE (UTC)", "RSS (kB)", "RESTARTS"), rows, right=(1, 4, 5), empty="no process runs"))
    counted = [(name, _thousands(count)) for name, count in view.counters.items() if count]
    if counted:
        lines.append(table(("COUNTER (since start)", "COUNT"), counted, right=(1,)))
    if not view.digest_disk:
        lines.append("resources: those on disk cannot be loaded; the last good set runs")
    elif view.disk_differs:
        lines.append("resources: disk differs from what runs; credwire reload would swap it")
    else:
        lines.append(f"resources: disk and running are the same ({plain(view.digest_running[:12])})")
    for line in view.health:
        if line.hint.startswith("credwire on"):
            continue  # what is off stands first
        lines += _folded_all([line.says], f"{plain(line.level):<5}")
        if line.hint and line.level != "ok":
            lines += _folded_all([f"hint: {line.hint}"], "     ")
    return "\n".join(lines) + "\n"


def well(view: StatusView) -> bool:
    """Whether nothing is red: what is switched off is."""
    return view.healthy and not view.off.everything and not view.off.bindings


def off_lines(off: OffView) -> list[str]:
    """What is off, until when, and how to end it; nothing where nothing is."""
    by = f" (by {off.by})" if off.by else ""
    lines = []
    if off.everything:
        lines.append(f"everything is off {_until(off.until)}{by}: connections go direct, without a credential; credwire on ends it")
    for name, until in off.bindings.items():
        lines.append(f'binding "{name}" is off {_until(until)}{by}: its hosts get no credential; credwire on --binding {name} ends it')
    return lines


def _until(until: float) -> str:
    return f"until {utc(until)}" if until else "until it is switched on"


def _folded_all(lines: Iterable[str], head: str) -> list[str]:
    """Fold each line behind ``head``, its further lines below."""
    found = []
    for line in lines:
        first, *more = _folded(plain(line), " " * len(head))
        found += [head + first[len(head) :], *more]
    return found


def bindings(view: BindingsView) -> str:
    """One row per binding."""
    rows = []
    for b in view.bindings:
        hosts = "\n".join(_at_dots(host) for to in b.destinations for host in to.hosts)
        rows.append((b.name, b.identity, hosts, b.mode, b.lease.state, b.signed, b.refused))
    heads = ("NAME", "IDENTITY", "HOSTS", "MODE", "LEASE", "SIGNED", "REFUSED")
    return table(heads, rows, right=(5, 6), empty=f"no binding is in force (revision {view.revision})")


def binding(view: BindingView) -> str:
    """Everything about one binding."""
    lease = view.lease
    told = [
        ("name", view.name),
        ("identity", f"{view.identity}  {view.spiffe_id}"),
        ("source", view.source),
        ("owner", view.owner),
        ("reviewed", view.reviewed_at),
        ("mode", view.mode),
        ("delivery", ", ".join(view.delivery)),
    ]
    for to in view.destinations:
        told.append(("destination", f"{', '.join(to.hosts)}  ports {', '.join(map(str, to.ports)) or 'any'}"))
        told.append(("  methods", ", ".join(to.methods) or "any"))
        told.append(("  paths", ", ".join(to.paths) or "any"))
        if to.networks:
            told.append(("  networks", ", ".join(to.networks)))
    expires = f", expires {utc(lease.expires_at)}" if lease.expires_at else ""
    told.append(("lease", f"{lease.state}, issue {lease.issue}{expires}" if lease.issue else lease.state))
    if lease.principal:
        told.append(("  principal", lease.principal))
    if lease.reason and lease.reason != "granted":
        told.append(("  failed", f"{lease.reason}: {lease.detail}" if lease.detail else lease.reason))
    told += [
        ("on lease failure", view.on_lease_failure),
        ("on daemon down", view.on_daemon_down),
        ("processes", ", ".join(map(str, view.processes)) or "none bound now"),
        ("signed", _count(view.signed, "request")),
        ("refused", _count(view.refused, "request")),
        ("observed", _count(view.observed, "connection") if view.observed or view.mode == "observe" else ""),
        ("defined at", view.place),
    ]
    return pairs(told)


def explain(view: ExplainView) -> str:
    """The verdict, the steps that led to it, and what to do."""
    verdict = "granted" if view.granted else f"refused: {plain(view.reason)}"
    lines = [f"{verdict} ({plain(view.said)})" if view.said and not view.granted else verdict, ""]
    told = [("identity", view.identity), ("binding", view.binding), *view.facts.items()]
    if known := pairs(told):
        lines += [known, ""]
    if view.steps:
        rows = [("ok" if s.ok else "NO", s.stage, f"{s.said}\n{s.source}" if s.source else s.said) for s in view.steps]
        lines.append(table(("", "STAGE", "SAID, AND WHERE"), rows))
    lines += [event(e, hinted=False) for e in view.events]
    if view.hint and not view.granted:
        lines.append(f"hint: {plain(view.hint)}\n")
    return "\n".join(line.rstrip("\n") for line in lines if line is not None) + "\n"


def event(event: Event, *, hinted: bool = True) -> str:
    """Two or three lines: when and what, then who asked for what, then the detail and what to try."""
    head = " ".join(filter(None, (utc(event.at), event.event, event.reason or "", f"id {event.id}" if event.id else "")))
    who = [event.identity, event.binding, f"pid {event.pid}" if event.pid else "", f"uid {event.uid}" if event.uid >= 0 else ""]
    where = f"{event.host}:{event.port}" if event.port else event.host
    what = [event.method, where + event.path, str(event.status or ""), f"issue {event.issue}" if event.issue else ""]
    lines = [head]
    hint = f"hint: {event.hint}" if hinted and event.hint else ""
    for parts in (who, [event.script or event.exe], what, [event.detail], [hint]):
        text = "  ".join(part for part in parts if part)
        if text:
            lines += _folded(plain(text), "    ")
    return "\n".join([plain(lines[0]), *lines[1:]]) + "\n"


def reload(view: ReloadView) -> str:
    """What changed, and what runs now."""
    digest = f" (digest {plain(view.digest[:12])})" if view.digest else ""
    if view.swapped:
        return changes(view.changes) + f"revision {view.revision} runs{digest}\n"
    return f"nothing changed: revision {view.revision} still runs{digest}\n"


def diff(view: DiffView) -> str:
    """What a reload would change, or that it would be refused."""
    text = changes(view.changes)
    if view.errors:
        return text + f"a reload would be refused: {_count(len(view.errors), 'error')}; revision {view.revision} would go on running\n"
    if not view.changes:
        return f"no change: revision {view.revision} runs what is on disk\n"
    return text + f"{_count(len(view.changes), 'change')} to revision {view.revision}; credwire reload makes {_them(view.changes)}\n"


def changes(told: Sequence[ChangeView]) -> str:
    """One paragraph a resource: ``+`` added, ``-`` removed, ``~`` changed, each with the word; then its fields and what it means."""
    lines: list[str] = []
    for change in told:
        sign = {"added": "+", "removed": "-"}.get(change.what, "~")
        lines += _folded(plain(f'{sign} {change.kind} "{change.name}" {change.what}'), "")
        for field in change.fields:
            if field.before and field.after:
                said = f"{field.field}: {field.before} -> {field.after}"
            elif change.what in ("added", "removed"):
                said = f"{field.field}: {field.after or field.before}"
            else:
                said = f"{field.field}: {field.after} (new)" if field.after else f"{field.field}: {field.before} (gone)"
            lines += _folded_all([said], "    ")
        if change.effect:
            lines += _folded_all([change.effect], "    => ")
    return "\n".join(lines) + "\n" if lines else ""


def fault(told: FaultView) -> str:
    """The sentence of a fault, behind its place."""
    return f"{told.place}: {told.message}" if told.place else told.message


def _them(told: Sequence[object]) -> str:
    return "it" if len(told) == 1 else "them"


def _count(number: int, what: str) -> str:
    many = what[:-1] + "ies" if what.endswith("y") else what + ("es" if what.endswith("s") else "s")
    return f"{_thousands(number)} {what if number == 1 else many}"


def revoke(view: RevokeView) -> str:
    """What was ended."""
    lines = [f"{_count(view.grants, 'connection')} cut, {_count(view.leases, 'lease')} thrown away"]
    if view.processes:
        pids = ", ".join(map(str, view.processes))
        lines += _folded(f"{'process' if len(view.processes) == 1 else 'processes'} {pids}: nothing more until another program runs", "")
    return "\n".join(lines) + "\n"


def switch(view: SwitchView) -> str:
    """What is off now."""
    lines = _folded_all(off_lines(view.off), "") or ["nothing is off"]
    if view.grants:
        lines.append(f"{_count(view.grants, 'connection')} cut")
    return "\n".join(lines) + "\n"


def switched(until: float, *, off: bool, attached: bool, cut: bool, killed: Sequence[str]) -> str:
    """What the whole switch did."""
    if off:
        said = [f"everything is off {_until(until)}: connections go direct, without a credential", "to end it: credwire on"]
        if cut:
            said.append("the daemon took notice, and connections that bore a credential are cut")
        if killed:
            said.append(f"the daemon did not take notice; killed, because they held connections: {', '.join(killed)}")
    else:
        said = ["everything is on: bound processes are held again; bindings switched off one by one stay off"]
        if attached and not cut:
            said.append("the daemon did not take notice: bound processes are refused until it runs (credwired start)")
    if not attached:
        said.append("no kernel programs are attached: connections went direct before, too")
    return "\n".join(_folded_all(said, "")) + "\n"


def identities(view: IdentitiesView) -> str:
    """One row per identity."""
    rows = []
    for i in view.identities:
        rows.append((i.name, "\n".join(i.selectors), "\n".join(i.bindings) or "-", len(i.processes), "DRIFT" if i.drift else "ok"))
    heads = ("NAME", "SELECTORS", "BINDINGS", "PROCESSES", "FILES")
    return table(heads, rows, right=(3,), empty=f"no identity is in force (revision {view.revision})")


def identity(view: IdentityView) -> str:
    """Everything about one identity."""
    told = [
        ("name", view.name),
        ("spiffe id", view.spiffe_id),
        ("environment", view.environment),
        ("owner", view.owner),
        ("egress", view.egress),
        *(("selectors" if number == 0 else "  or", said) for number, said in enumerate(view.selectors)),
        ("bindings", ", ".join(view.bindings) or "none: nothing is given to it"),
        ("processes", ", ".join(map(str, view.processes)) or "none bound now"),
        *(("drift", said) for said in view.drift),
        ("defined at", view.place),
    ]
    hint = f"hint: credwire identity refresh-digest {plain(view.name)} --diff\n" if view.drift else ""
    return pairs(told) + hint


# ---- pieces ------------------------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = (), empty: str = "") -> str:
    """A table of at most 80 columns; long values go on in the next line, never cut."""
    cells = [tuple("\n".join(map(plain, str(cell).split("\n"))) for cell in row) for row in rows]
    if not cells:
        return empty + "\n"
    cells.insert(0, tuple(heads))
    widths = _fitted([max(_columns(line) for row in cells for line in row[at].split("\n")) for at in range(len(heads))])
    lines = []
    for row in cells:
        folded = [[part for line in cell.split("\n") for part in _folded(line, "", width)] for cell, width in zip(row, widths, strict=True)]
        for deep in range(max(map(len, folded))):
            words = [cell[deep] if deep < len(cell) else "" for cell in folded]
            gaps = [" " * (width - _columns(word)) for word, width in zip(words, widths, strict=True)]
            padded = (gap + word if at in right else word + gap for at, (word, gap) in enumerate(zip(words, gaps, strict=True)))
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _fitted(widths: list[int]) -> list[int]:
    """Take from the widest column, again and again, until all stand beside each other."""
    found = [min(width, WIDTH) for width in widths]
    while sum(found) + 2 * (len(found) - 1) > WIDTH:
        found[found.index(max(found))] -= 1
    return found


def _columns(text: str) -> int:
    """Count the columns that a text takes on a terminal: a wide letter takes two, a combining one none (Unicode TR 11)."""
    return len(text) if text.isascii() else sum(map(_column, text))


def _column(sign: str) -> int:
    return 0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def pairs(told: Iterable[tuple[str, str]]) -> str:
    """Names and values, one pair a line; empty values are left out."""
    known = [(name, plain(value)) for name, value in told if value]
    wide = max((len(name) for name, _ in known), default=0) + 2
    lines = []
    for name, value in known:
        first, *more = _folded(value, "", WIDTH - wide)
        lines.append(f"{plain(name):<{wide}}{first}")
        lines += [" " * wide + line for line in more]
    return "\n".join(lines) + "\n" if lines else ""


def utc(at: float) -> str:
    """``2026-11-22T00:00:00Z``; ``-`` for never."""
    if not at:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s"


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _at_dots(host: str, most: int = 24) -> str:
    """Break a long host after a dot, so that the parts are still words."""
    lines = [""]
    for part in re.findall(r"[^.]*\.?", host):
        if len(lines[-1]) + len(part) > most and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _folded(text: str, indent: str, width: int = WIDTH) -> list[str]:
    """Break at blanks where it can, within words where it must."""
    room = width - len(indent)
    lines: list[str] = []
    while _columns(text) > room:
        most = _fitting(text, room)
        at = text.rfind(" ", 1, most + 1)
        at = at if at > 0 else most
        lines.append(indent + text[:at].rstrip())
        text = text[at:].lstrip(" ")
    return [*lines, indent + text]


def _fitting(text: str, room: int) -> int:
    """Count the characters at the beginning of ``text`` that take no more columns than ``room``; at least one."""
    if text.isascii():
        return room
    taken = accumulate(map(_column, text))
    return max(1, sum(1 for _ in takewhile(lambda columns: columns <= room, taken)))
