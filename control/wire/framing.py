"""
Where a body ends.

In: bytes as they arrive.  Out: the payload in them, what is left over, and whether the body is whole.
Rules: RFC 9112 sections 6 and 7.1, refusing where it allows repair; chunk extensions are dropped, trailers are kept.  Pure.
"""

import re
from typing import NamedTuple

from control.wire.head import AnswerHead, Fields, HeadError, RequestHead, read_trailers


class FramingError(Exception):
    """The bytes of a body break the rules; the message says which."""


class Took(NamedTuple):
    """What one call of take() found."""

    payload: bytes
    rest: bytes
    """Bytes after the end of the body; empty while it goes on."""
    done: bool


class LengthBody:
    """A body of known length."""

    __slots__ = ("left",)
    trailers: Fields = []  # noqa: RUF012  # never any, shared on purpose

    def __init__(self, length: int) -> None:
        self.left = length

    def take(self, data: bytes) -> Took:
        """Count ``data`` off."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return Took(data, b"", False)
        left, self.left = self.left, 0
        return Took(data, b"", True) if size == left else Took(data[:left], data[left:], True)


class CloseBody:
    """A body that ends with its connection (answers only)."""

    __slots__ = ()
    trailers: Fields = []  # noqa: RUF012  # never any, shared on purpose

    def take(self, data: bytes) -> Took:
        """Everything is payload."""
        return Took(data, b"", False)


_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,15}+(?:[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r?)?")


class ChunkedBody:
    """A chunked body."""

    __slots__ = ("_buffer", "_in_trailers", "_left", "_line_max", "_max_fields", "_trailer_max", "trailers")

    def __init__(self, *, line_max: int, trailer_max: int, max_fields: int = 32) -> None:
        self._left = 0
        """Payload bytes of the current chunk still to come, plus 2 for its CRLF; 0 before a size line."""
        self._in_trailers = False
        self._buffer = b""
        self._line_max, self._trailer_max, self._max_fields = line_max, trailer_max, max_fields
        self.trailers: Fields = []

    def take(self, data: bytes) -> Took:
        """Unwrap ``data``.  Raises FramingError."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        parts: list[bytes] = []
        at = 0
        while not self._in_trailers:
            if self._left:
                at = self._take_chunk(data, at, parts)
                if self._left:
                    break
            if at == len(data):
                break
            end = data.find(b"\r\n", at, at + self._line_max)
            if end < 0:
                self._check_partial_line(data, at)
                self._buffer = data[at:]
                break
            line = _SIZE_LINE.fullmatch(data, at, end + 2)
            if line is None:
                raise FramingError("a malformed chunk size")
            at = end + 2
            size = int(line[1], 16)
            if size == 0:
                self._in_trailers = True
            else:
                self._left = size + 2
        if self._in_trailers:
            return self._take_trailers(data[at:], b"".join(parts))
        return Took(parts[0] if len(parts) == 1 else b"".join(parts), b"", False)

    def _take_chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Take what is there of the current chunk and of the CRLF after it; give the place behind."""
        payload = self._left - 2
        if payload > 0:
            part = data[at : at + payload]
            if part:
                parts.append(part)
            at += len(part)
            self._left -= len(part)
        if 0 < self._left <= 2 and at < len(data):
            ending = b"\r\n"[2 - self._left :]
            here = data[at : at + self._left]
            if not ending.startswith(here):
                raise FramingError("a chunk that does not end with CRLF")
            at += len(here)
            self._left -= len(here)
        return at

    def _check_partial_line(self, data: bytes, at: int) -> None:
        if len(data) - at >= self._line_max:
            raise FramingError("a chunk size line over the limit")
        if _SIZE_BEGUN.fullmatch(data, at) is None:
            raise FramingError("a malformed chunk size")

    def _take_trailers(self, data: bytes, payload: bytes) -> Took:
        if data.startswith(b"\r\n"):
            return Took(payload, data[2:], True)
        end = data.find(b"\r\n\r\n", 0, self._trailer_max)
        if end < 0:
            if len(data) >= self._trailer_max:
                raise FramingError("trailers over the limit")
            self._buffer = data
            return Took(payload, b"", False)
        try:
            self.trailers = read_trailers(data[: end + 2], max_fields=self._max_fields)
        except HeadError as error:
            raise FramingError(error.detail) from None
        return Took(payload, data[end + 4 :], True)


Body = LengthBody | CloseBody | ChunkedBody


def request_body(head: RequestHead, *, line_max: int, trailer_max: int) -> LengthBody | ChunkedBody | None:
    """Say how the body of a request ends; None when there is none."""
    if head.chunked:
        return ChunkedBody(line_max=line_max, trailer_max=trailer_max)
    return LengthBody(head.length) if head.length else None


def answer_body(head: AnswerHead, method: str, *, line_max: int, trailer_max: int) -> Body | None:
    """Say how the body of an answer ends (RFC 9112 section 6.3); None when there is none."""
    if method == "HEAD" or head.status in (204, 304):
        return None
    if head.chunked:
        return ChunkedBody(line_max=line_max, trailer_max=trailer_max)
    if head.length is None:
        return CloseBody()
    return LengthBody(head.length) if head.length else None


def wrap_chunk(payload: bytes) -> bytes:
    """Make one chunk; nothing of nothing, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def end_chunks(trailers: Fields) -> bytes:
    """Make the last chunk with its trailers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
    return b"0\r\n" + lines.encode("latin-1") + b"\r\n"
