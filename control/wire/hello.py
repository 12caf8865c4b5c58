"""
Read a ClientHello that is still arriving.

In: the bytes peeked so far, any segmentation, any number of TLS records.  Out: Hello, NeedMore, or NotTls / Malformed with what is wrong.
Rules: RFC 8446 section 4.1.2 and 5.1 (records), RFC 6066 section 3 (server_name), RFC 7301 (ALPN).  Nothing is consumed.  Pure.
"""

import re
from dataclasses import dataclass

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD_MAX = 1 << 14
"""Plaintext length of one record, RFC 8446 section 5.1."""
_SERVER_NAME = 0
_ALPN = 16

_NAME = re.compile(rb"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
"""A host name as RFC 6066 wants it: ASCII labels; underscores occur in practice."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the client asked for in the clear."""

    server_name: str | None
    """Lower case, without trailing dot; None when the extension is missing."""
    alpn: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NeedMore:
    """Not whole yet."""

    at_least: int
    """Total bytes, from the first, below which asking again is pointless."""


@dataclass(frozen=True, slots=True)
class NotTls:
    """The first bytes are not a TLS handshake record."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """It began as TLS and then broke the rules."""

    what: str


_LOOKS_MOST = 32
"""Pieces of a passing hello that are put together; real ones come in one to four."""


class FirstBytes:
    """Looks for a hello in bytes that are on their way already: nothing waits for it."""

    __slots__ = ("_at_least", "_limit", "_looks", "_raw")

    def __init__(self, limit: int) -> None:
        self._limit, self._raw, self._at_least, self._looks = limit, bytearray(), 1, 0

    def take(self, data: bytes) -> Hello | NotTls | Malformed | None:
        """Add ``data``; None while it may still become a hello."""
        self._raw += data[: self._limit + 1 - len(self._raw)]
        if len(self._raw) < self._at_least:
            return None
        self._looks += 1
        found = read_hello(bytes(self._raw), self._limit)
        if not isinstance(found, NeedMore):
            return found
        self._at_least = max(found.at_least, len(self._raw) + 1)
        return None if self._looks < _LOOKS_MOST else Malformed("a hello in too many pieces")


class _Broken(Exception):
    """The reader ran out of bytes inside of a length, or a rule was broken."""


def read_hello(raw: bytes, limit: int) -> Hello | NeedMore | NotTls | Malformed:
    """Look at everything that has arrived so far; ``limit`` bounds the whole hello with its record headers."""
    handshake = bytearray()
    at = 0
    while True:
        head = raw[at : at + 5]
        if not _may_be_handshake(head):
            return Malformed("a record of another type stands inside of the hello") if at else NotTls()
        if len(head) < 5:
            return NeedMore(at + 5)
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= _RECORD_MAX:
            return Malformed(f"a record of {length} bytes")
        part = raw[at + 5 : at + 5 + length]
        at += 5 + length
        handshake += part
        if handshake and handshake[0] != _CLIENT_HELLO:
            return Malformed(f"the first handshake message is of type {handshake[0]}, not ClientHello")
        wanted = 4 + int.from_bytes(handshake[1:4], "big") if len(handshake) >= 4 else 4
        if wanted > limit or at > limit:
            return Malformed(f"the hello is over the limit of {limit} bytes")
        if len(handshake) >= wanted > 4:
            break
        if len(part) < length:
            return NeedMore(at)
    try:
        return _read_body(_Reader(bytes(handshake[4:wanted])))
    except _Broken as broken:
        return Malformed(str(broken) or "a length runs past the end")


def _may_be_handshake(head: bytes) -> bool:
    """Whether the first bytes of a record may still turn out to be a handshake record of SSL 3.0 to TLS 1.3."""
    return (not head or head[0] == _HANDSHAKE) and (len(head) < 2 or head[1] == 3) and (len(head) < 3 or head[2] <= 4)


class _Reader:
    """Bytes taken from the front; running short is _Broken."""

    __slots__ = ("_at", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, size: int) -> bytes:
        part = self._raw[self._at : self._at + size]
        if len(part) != size:
            raise _Broken
        self._at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Take a length of ``size`` bytes, then so many bytes."""
        return self.take(self.number(size))

    @property
    def empty(self) -> bool:
        return self._at == len(self._raw)


def _read_body(body: _Reader) -> Hello:
    body.take(2 + 32)  # legacy_version, random
    if len(body.vector(1)) > 32:
        raise _Broken("a session id longer than 32 bytes")
    suites = body.vector(2)
    if not suites or len(suites) % 2:
        raise _Broken("cipher suites of odd or no length")
    if not body.vector(1):
        raise _Broken("no compression methods")
    if body.empty:  # TLS 1.2 allows a hello without extensions
        return Hello(None, ())
    extensions = _Reader(body.vector(2))
    if not body.empty:
        raise _Broken("bytes after the extensions")
    seen: set[int] = set()
    name: str | None = None
    alpn: tuple[bytes, ...] = ()
    while not extensions.empty:
        kind = extensions.number(2)
        data = _Reader(extensions.vector(2))
        if kind in seen:
            raise _Broken(f"extension {kind} stands twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _read_server_name(data)
        elif kind == _ALPN:
            alpn = _read_alpn(data)
    return Hello(name, alpn)


def _read_server_name(data: _Reader) -> str:
    names = _Reader(data.vector(2))
    if not data.empty:
        raise _Broken("bytes after the server name")
    kind, name = names.number(1), names.vector(2)
    if kind != 0:
        raise _Broken(f"server name of type {kind}")
    if not names.empty:
        raise _Broken("more than one server name")
    if len(name) > 254 or not _NAME.fullmatch(name):
        raise _Broken("the server name is not a host name")
    return name.decode("ascii").rstrip(".").lower()


def _read_alpn(data: _Reader) -> tuple[bytes, ...]:
    names = _Reader(data.vector(2))
    if not data.empty or names.empty:
        raise _Broken("a malformed ALPN extension")
    found = []
    while not names.empty:
        found.append(names.vector(1))
        if not found[-1]:
            raise _Broken("an empty ALPN name")
    return tuple(found)
