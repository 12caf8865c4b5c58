"""
Say no to a gRPC client without reading what it says.

In: the first bytes of somebody who has no role.  Out: the answer that makes any gRPC client print our sentence.
Whoever has no business here gets no C parser to play with: frame headers are walked (RFC 9113 section 4.1), nothing in them is decoded, and
the first stream the client opens is answered by one HEADERS frame of literal fields (RFC 7541 section 6.2.2), a "trailers-only" response
of gRPC over HTTP/2.  Pure.
"""

from typing import Final
from urllib.parse import quote

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What an HTTP/2 client says first (RFC 9113 section 3.4)."""

HEAD_MAX: Final = 32 << 10
"""Bytes read in search of the first stream; a gRPC client needs about 500."""

PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
"""Status codes of gRPC."""

_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_HEAD = 9


def first_stream(said: bytes) -> int | None:
    """
    Find the stream that the client opens first; None while more bytes are needed.

    Raises ValueError when this is not an HTTP/2 client or says too much before asking.
    """
    if not said.startswith(PREFACE[: len(said)]):
        raise ValueError("not an HTTP/2 client")
    if len(said) > HEAD_MAX:
        raise ValueError("too much before the first request")
    at = len(PREFACE)
    while len(said) >= at + _FRAME_HEAD:
        length = int.from_bytes(said[at : at + 3], "big")
        if said[at + 3] == _HEADERS:
            return int.from_bytes(said[at + 5 : at + 9], "big") & 0x7FFF_FFFF
        at += _FRAME_HEAD + length
    return None


def greeting() -> bytes:
    """What a server says first: its SETTINGS, and that it has read the client's."""
    return _frame(_SETTINGS, 0, 0, b"") + _frame(_SETTINGS, _ACK, 0, b"")


def answer(stream: int, status: int, message: str, trailers: dict[str, str]) -> bytes:
    """Refuse ``stream`` with a gRPC status and end the connection."""
    fields = {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": str(status),
        "grpc-message": quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),  # percent-encoding of the gRPC protocol
        **trailers,
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    headers = _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, block)
    return headers + _frame(_GOAWAY, 0, 0, stream.to_bytes(4, "big") + b"\0\0\0\0")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541 section 5.2), its length as an integer with a 7-bit prefix (5.1)."""
    raw = text.encode("ascii")
    if len(raw) < 0x7F:
        return bytes((len(raw),)) + raw
    rest, size = len(raw) - 0x7F, bytearray(b"\x7f")
    while rest >= 0x80:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    size.append(rest)
    return bytes(size) + raw
