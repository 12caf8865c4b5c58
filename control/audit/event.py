"""
One thing that happened, and its one line in the audit.

In: an Event, made by whichever stage saw it.  Out: a line of JSON that cannot be mistaken for two, however hostile the bytes that were
asked for.  Fields keep the order of the class and empty ones are left out, so that lines compare and compress well.
An attacker chooses hosts, paths and methods; nothing here refuses an event for what they hold (that would be a way not to be audited):
long values are cut with a mark, and what a terminal or a log viewer would obey is written as a JSON escape.  Pure.
"""

from typing import Annotated, Any, Final

import msgspec

from control.reason import Reason
from control.text import harmless_json

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=48)]
"""Past tense, lower case, hyphens: ``request-signed``.  ``EVENTS`` lists those in use."""

EVENTS: Final[dict[str, str]] = {
    "agent-started": "the agent began to enforce",
    "agent-stopped": "the agent ended",
    "audit-resumed": "the audit can be written again",
    "reloaded": "a resource set went live",
    "reload-refused": "a reload was refused and the last good set kept",
    "connection-granted": "a bound process got a grant for one connection",
    "connection-refused": "a connection was closed without a grant",
    "connection-spliced": "a connection was passed through untouched",
    "connection-observed": "a connection that a binding in mode observe names was passed through untouched",
    "connection-failed": "a connection ended in an error",
    "grant-withdrawn": "a grant was taken back while its connection was open",
    "request-signed": "a credential was put on a request",
    "request-answered": "the far side answered a signed request",
    "request-passed": "a request went out without a credential, because its binding says so while there is none",
    "request-refused": "a request got no credential",
    "leaf-minted": "a leaf certificate was made for a bound name",
    "leaf-refused": "a leaf certificate was asked for and not given",
    "exchange-done": "a source gave a credential",
    "exchange-failed": "a source gave none",
    "secret-read": "the file of a static source was read",
    "secret-refused": "the file of a static source was not read",
    "switched-off": "somebody switched credwire, or one binding, off",
    "switched-on": "somebody switched credwire, or one binding, on again, or the time was over",
    "revoked": "somebody ended grants and leases",
    "digest-drifted": "a pinned file on disk is no longer the one whose digest is pinned",
    "caller-refused": "somebody asked the admin socket for what their role does not allow",
    "audit-lost": "a follower read too slowly and missed lines; the file has them",
}
"""The words of ``Event.event`` and what they mean; a new word is added here."""

TEXT_MAX: Final = 512
"""Characters of an ordinary value; longer ones are cut."""

LONG_MAX: Final = {"path": 2048, "detail": 2048, "hint": 1024}
"""Characters of the values that are long by nature."""

LINE_MAX: Final = 64 << 10
"""Bytes no line can pass: the caps above, each character escaped at its widest."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that happened.  No field ever holds a secret."""

    at: float = 0.0
    """Seconds since 1970-01-01 UTC; 0 means the journal stamps it."""
    id: str = ""
    """What ``credwire explain ID`` takes; several events may share one."""
    event: Word
    reason: Reason | None = None
    """None where nothing was decided (a start, an answer)."""
    identity: str = ""
    binding: str = ""
    source: str = ""
    issue: int = 0
    """Which rotation of the lease; counts from 1."""
    pid: int = 0
    uid: int = -1
    """-1 where nobody's; 0 is root."""
    exe: str = ""
    script: str = ""
    method: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    """Raw request path without the query: queries carry secrets of other people's schemes."""
    status: int = 0
    """HTTP status of the far side's answer, or of ours."""
    revision: int = 0
    detail: str = ""
    grant: str = ""
    speaker: str = ""
    """Which process says so when it is not the agent: a proxy's word is a claim."""
    hint: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """
    Give the line of ``event``, newline included: printable ASCII and harmless letters, no other control byte.

    Never raises for what a value holds.
    """
    try:
        line = _encoder.encode(event)
    except UnicodeEncodeError:  # lone surrogates: a file name that is not UTF-8, as os.fsdecode gives it
        line = _encoder.encode(_capped(event))
    if len(line) > TEXT_MAX:  # else no single value can be over its cap
        line = _encoder.encode(_capped(event))
    return harmless_json(line) + b"\n"


def _capped(event: Event) -> Event:
    changed: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, str):
            text = cut(value.encode("utf-8", "backslashreplace").decode(), LONG_MAX.get(name, TEXT_MAX))
            if text != value:
                changed[name] = text
    return msgspec.structs.replace(event, **changed) if changed else event


def cut(text: str, most: int) -> str:
    """Shorten ``text`` to ``most`` characters, the last of which say how many are missing."""
    if len(text) <= most:
        return text
    mark = f" [+{len(text) - most} characters]"
    return text[: max(0, most - len(mark))] + mark


def decode(line: bytes) -> Event:
    """Read one line.  Raises msgspec.DecodeError when it is not an Event, whole and known in every field."""
    return _decoder.decode(line)


def from_fields(fields: dict[str, Any]) -> Event:
    """Read what keys or exchange sent as ``Audited.event``.  Raises msgspec.ValidationError naming the field."""
    return msgspec.convert(fields, Event)
