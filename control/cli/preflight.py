"""
See before a program starts what credwire will make of it.

In: its arguments, and what the daemon answers.  Out: the URLs it will ask for, and lines for people: what is fine, what would be refused.
Pure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from control.api.view import ExplainView, StatusView

_URL: Final = re.compile(r"https?://[^\s'\"<>\\^`{}|]+")
_METHOD: Final = re.compile(r"--(?:request|http-method|method)(?:=(?P<value>[A-Z]+))?|-X(?P<short>[A-Z]+)?")
MAX_URLS: Final = 8
"""More are not asked about."""
MOST_SAID: Final = 240
"""Characters of a reason; with many identities each has its own."""


class Line(NamedTuple):
    """One thing that was found out."""

    fine: bool
    says: str
    hint: str = ""


class Wish(NamedTuple):
    """One request as the arguments show it."""

    url: str
    method: str


def wishes(arguments: Sequence[str]) -> list[Wish]:
    """
    Find the URLs among the arguments, without user names, queries and fragments: those may hold secrets and decide nothing.

    A method is known only where the arguments say one as curl and its like do.
    """
    method = "GET"
    for at, word in enumerate(arguments):
        found = _METHOD.fullmatch(word)
        if found:
            after = arguments[at + 1] if at + 1 < len(arguments) else ""
            method = found["value"] or found["short"] or (after if after.isalpha() and after.isupper() else method)
        elif word in ("-I", "--head"):
            method = "HEAD"
    urls = (_bare(url) for word in arguments for url in _URL.findall(word))
    return [Wish(url, method) for url in dict.fromkeys(url for url in urls if url)][:MAX_URLS]


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path or '/'}"


def state(status: "StatusView") -> Line:
    """Whether anything is held at all."""
    if status.off.everything:
        return Line(False, "everything is switched off: connections go direct, without a credential", "credwire on")
    if not status.enforcing:
        return Line(False, "credwired does not enforce: bound processes are refused", "credwire status")
    return Line(True, f"credwired enforces revision {status.revision}")


def identity(name: str, view: "ExplainView", uid: int) -> Line:
    """Who the program would be."""
    if view.identity and view.granted:
        return Line(True, f'{name} as uid {uid} would be identity "{view.identity}"')
    return Line(False, f"{name} as uid {uid} would have no identity: {_why(view)}", view.hint)


def wish(asked: Wish, view: "ExplainView", modes: Mapping[str, str], off: Iterable[str]) -> Line:
    """What a request would meet."""
    what = f"{asked.method} {asked.url}"
    if not view.granted:
        return Line(False, f"{what} would get no credential: {_why(view)}", view.hint)
    if view.binding in off:
        return Line(False, f'{what}: binding "{view.binding}" is switched off', f"credwire on --binding {view.binding}")
    if modes.get(view.binding) == "observe":
        hint = "write mode: enforce in its document, then credwire reload"
        return Line(False, f'{what}: binding "{view.binding}" observes: recorded, no credential', hint)
    return Line(True, f'{what} would get the credential of binding "{view.binding}"')


def _why(view: "ExplainView") -> str:
    """The reason and the last step that said no, which is more exact than the reason's own sentence."""
    steps = [step.said for step in view.steps if not step.ok]
    said = (steps[-1] if steps else view.said).strip()
    said = said if len(said) <= MOST_SAID else said[:MOST_SAID] + "…"
    return f"{view.reason} ({said})" if said else view.reason
