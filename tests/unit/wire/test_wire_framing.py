"""Where bodies end: the same at any segmentation; what breaks the rules is refused."""

import pytest

from control.wire.framing import ChunkedBody, FramingError, LengthBody, end_chunks, wrap_chunk


def chunked() -> ChunkedBody:
    """With ordinary limits."""
    return ChunkedBody(line_max=1024, trailer_max=8192)


WHOLE = b"5\r\nhello\r\n0006 ; a=b\r\n world\r\n1\r\n!\r\n0\r\nx-sum: 1\r\n\r\nGET /next"


@pytest.mark.parametrize("size", range(1, len(WHOLE) + 1))
def test_chunks_are_taken_apart_at_any_segmentation(size: int) -> None:
    """Payload, trailers and what follows are the same in every cut."""
    body, payload, rest, done = chunked(), b"", b"", False
    for at in range(0, len(WHOLE), size):
        part = WHOLE[at : at + size]
        if done:
            rest += part
            continue
        took = body.take(part)
        payload, rest, done = payload + took.payload, rest + took.rest, took.done
    assert (payload, rest, done) == (b"hello world!", b"GET /next", True)
    assert body.trailers == [("x-sum", "1")]


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        b"zz\r\n", b"-1\r\n", b"0x5\r\nhello", b"5\nhello", b"5\r\nhelloX", b"5\r\nhello\n", b" 5\r\nhello\r\n", b"\r\n",
        b"5;a=\0\r\nhello", b"fffffffffffffffff\r\n", b"5" + b" " * 2000, b"5;" + b"a" * 2000, b"0\r\nx y\r\n\r\n",
        b"0\r\ncontent-length: 5\r\n\r\n", b"0\r\nhost: b\r\n\r\n", b"0\r\nauthorization: b\r\n\r\n", b"0\r\n" + b"x: y\r\n" * 2000,
        b"0\r\ntransfer_encoding: x\r\n\r\n",
    ],
)  # fmt: skip
def test_broken_chunks_are_refused(raw: bytes, step: int) -> None:
    """In one piece and byte by byte."""
    body = chunked()
    with pytest.raises(FramingError):
        for at in range(0, len(raw), step):
            body.take(raw[at : at + step])


def test_a_length_is_counted_off() -> None:
    """What is over belongs to the next request."""
    body = LengthBody(5)
    assert body.take(b"abc") == (b"abc", b"", False)
    assert body.take(b"deGET") == (b"de", b"GET", True)


def test_chunks_are_made() -> None:
    """An empty piece makes no chunk: it would end the body."""
    assert wrap_chunk(b"") == b""
    assert chunked().take(wrap_chunk(b"x" * 300) + end_chunks([("a", "b")])).payload == b"x" * 300
