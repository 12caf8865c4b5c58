"""
Give a host one spelling, and say whether a path has only one.

In: the text of a Host header, of a server name, of a request target's path.  Out: the canonical form, or a Refusal.
Everything that is decided by name or path goes through here first, so that two spellings of one thing never get two answers.
Nothing is repaired: what could be read in two ways is refused (RFC 9110 4.2.3, RFC 3986 6.2, RFC 5890 2.3.1).  Pure.
"""

import ipaddress
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from control.errors import Refusal
from control.reason import Reason

MAX_HOST = 253
"""Octets of a name without its trailing dot (RFC 1035 2.3.4)."""
MAX_PATH = 16384
"""Bytes of a path that is matched against globs; longer ones are refused where paths are limited."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

_PLAIN_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9\-._~!$&'()*+,=:@]+)*/?")
"""Segments of raw unreserved and reserved bytes, none empty but the last, none a dot segment: read one way by everybody."""
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RAW_UNSAFE = re.compile(r"[^!-~]")
_TWO_WAYS = {
    "%2f": "an encoded slash",
    "%5c": "an encoded backslash",
    "%25": "an encoded percent sign",
    "%3b": "an encoded semicolon",
    "%3f": "an encoded question mark",
    "%23": "an encoded number sign",
}
_DOT_SEGMENT = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)


class Authority(NamedTuple):
    """Whom a request names: a canonical host and a port."""

    host: str
    port: int


def _wrong(detail: str, hint: str = "") -> Refusal:
    return Refusal(Reason.HOST_MISMATCH, detail, hint)


@lru_cache(maxsize=4096)
def host_name(text: str) -> str | Refusal:
    """
    Give the canonical form of a host: lower-case ASCII labels of letters, digits and hyphens.

    Refused: a trailing dot (stripping it would make the signed Host another than the matched one), addresses in any notation that
    inet_aton(3) takes (``10.0.0.1``, ``0x7f.1``, ``[::1]``), non-ASCII (send the A-label), user information, everything else.
    """
    if not text:
        return _wrong("the host is empty")
    if not text.isascii():
        return _wrong(f'host "{shown(text)}" is not ASCII', "send the name in its xn-- form")
    name = text.lower()
    if "@" in name:
        return _wrong("the host carries user information", "send credentials in no part of the address")
    if name.endswith("."):
        return _wrong(f'host "{shown(text)}" ends in a dot', "send the name without the dot")
    if len(name) > MAX_HOST:
        return _wrong(f"the host is longer than {MAX_HOST} octets")
    if is_address(name):
        return _wrong(f'host "{shown(text)}" is an address, not a name', "bindings are made for names")
    if not _NAME.fullmatch(name):
        return _wrong(f'host "{shown(text)}" is not a name of letters, digits, hyphens and dots')
    return name


def is_address(text: str) -> bool:
    """Say whether ``text`` would be taken for an IP address: v6 in or out of brackets, v4 with one to four decimal, octal or hex parts."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(bare.split("%", 1)[0])
    except ValueError:
        # the last label decides: a name whose last label is a number is an address to the URL standard and to inet_aton(3)
        return _NUMERIC_LABEL.fullmatch(bare.rsplit(".", 1)[-1].lower()) is not None
    return True


def authority(text: str, *, default_port: int) -> Authority | Refusal:
    """
    Split a Host header (RFC 9110 7.2) or ``:authority`` into canonical host and port.

    ``host:`` with nothing behind, a port with leading zeros, above 65535 or 0 are refused.
    """
    if "@" in text:
        return _wrong("the host carries user information", "send credentials in no part of the address")
    name, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, digits = text, str(default_port)
    if not _PORT.fullmatch(digits) or int(digits) > 65535:
        return _wrong(f'host "{shown(text)}" has no valid port')
    found = host_name(name)
    return found if isinstance(found, Refusal) else Authority(found, int(digits))


def path_fault(path: str) -> str:
    """
    Say why ``path`` (raw, without the query) can be read in more than one way; empty when it cannot.

    Servers differ in what they do with each of these before they look the path up, so a rule about paths would mean one thing here and
    another there: dot segments, empty segments, parameters (``;``), encoded slashes, percent signs and separators, control bytes, broken
    escapes, escapes that are not UTF-8 (an overlong slash) or that change under compatibility normalisation (a full-width slash).
    """
    if len(path) > MAX_PATH:
        return f"it is longer than {MAX_PATH} bytes"
    if not path.startswith("/"):
        return "it does not begin with a slash"
    if _PLAIN_PATH.fullmatch(path):
        return ""
    if (odd := _RAW_UNSAFE.search(path)) is not None:
        return f"it holds the byte 0x{ord(odd[0]) & 0xFF:02x} unencoded"
    lower = path.lower()
    for sign, name in (("\\", "a backslash"), (";", "a semicolon"), ("?", "a question mark"), ("#", "a number sign")):
        if sign in path:
            return f"it holds {name}"
    if _ESCAPE.search(path):
        return "it holds a percent sign that is no escape"
    for escape, name in _TWO_WAYS.items():
        if escape in lower:
            return f"it holds {name}"
    segments = path.split("/")[1:]
    if any(_DOT_SEGMENT.fullmatch(segment) for segment in segments):
        return "it holds a dot segment"
    if "" in segments[:-1]:
        return "it holds a double slash"
    return _decoded_fault(path)


def _decoded_fault(path: str) -> str:
    raw = unquote_to_bytes(path)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "it holds escapes that are not UTF-8"
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        return "it holds an encoded control byte"
    if not text.isascii() and unicodedata.normalize("NFKC", text) != text:
        return "it holds characters that compatibility normalisation changes"
    return ""


def path_meaning(path: str) -> str:
    """
    Give what every server makes of ``path``: its escapes undone.  Globs are matched against this, so that ``/%61`` is ``/a``.

    Only for a path without ``path_fault``.
    """
    return unquote_to_bytes(path).decode() if "%" in path else path


def shown(text: str) -> str:
    """Make hostile text fit for a message: short, printable ASCII."""
    safe = "".join(c if " " <= c <= "~" else f"\\u{ord(c):04x}" for c in text[:80])
    return safe + ("…" if len(text) > 80 else "")
