"""
Whatever arrives, the readers answer with a value or their own error, ask for no more than the limit, and agree at every segmentation.
"""

from hypothesis import given
from hypothesis import strategies as st

from control.wire.framing import ChunkedBody, FramingError
from control.wire.head import HeadError, partial_fault, read_answer, read_request
from control.wire.hello import Hello, Malformed, NeedMore, NotTls, read_hello
from tests.unit.wire.test_wire_hello import extension, handshake, made_by_openssl, records, sni

LIMIT = 64 << 10
HELLO = made_by_openssl()


@given(st.binary(max_size=600))
def test_any_bytes_make_a_verdict_about_a_hello(raw: bytes) -> None:
    """No exception, and never a wait for what is already there."""
    found = read_hello(raw, LIMIT)
    assert isinstance(found, Hello | NotTls | Malformed | NeedMore)
    if isinstance(found, NeedMore):
        assert len(raw) < found.at_least <= LIMIT + (1 << 14)


@given(st.integers(0, len(HELLO) - 1), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_damaged_hello_never_names_a_host_with_odd_bytes(at: int, bytes_in: bytes, insert: bool) -> None:
    """Whatever is named is a host name."""
    raw = HELLO[:at] + bytes_in + HELLO[at if insert else at + len(bytes_in) :]
    found = read_hello(raw, LIMIT)
    if isinstance(found, Hello) and found.server_name is not None:
        assert set(found.server_name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(st.integers(1, 400), st.integers(0, 3000), st.from_regex(r"[a-z]{1,20}(\.[a-z]{1,20}){1,3}", fullmatch=True))
def test_a_hello_reads_the_same_in_any_records(size: int, padding: int, name: str) -> None:
    """Cut into records of any size, at any total length."""
    raw = records(handshake(extension(21, bytes(padding)) + sni(name.encode())), size)
    assert read_hello(raw, LIMIT) == Hello(name, ())
    assert isinstance(read_hello(raw[:-1], LIMIT), NeedMore)


PIECES = st.lists(
    st.sampled_from(
        [
            b"GET", b"POST", b" ", b"/", b"/a?b", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b":", b"Host", b"h.test",
            b"Content-Length", b"Transfer-Encoding",
            b"chunked", b"5", b"0", b",", b"\0", b"\t", b"Connection", b"close", b"upgrade", b"Expect",
            b"100-continue", b"\x80", b"https://h.test/", b"X", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h.test\r\n",
        ]
    ),
    max_size=24,
)  # fmt: skip


@given(PIECES | st.binary(max_size=200).map(lambda raw: [raw]))
def test_any_bytes_make_a_request_or_its_error(pieces: list[bytes]) -> None:
    """An accepted head is CRLF throughout, has one Host, and at most one framing."""
    raw = b"".join(pieces) + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    partial_fault(raw)
    try:
        head = read_request(raw, max_fields=128, max_target=16384)
    except HeadError as error:
        assert error.status in (400, 405, 414, 417, 421, 431, 501)
        return
    assert raw.count(b"\n") == raw.count(b"\r") == raw.count(b"\r\n") == len(head.fields) + 2
    assert b"\0" not in raw
    names = [name.lower() for name, _ in head.fields]
    assert names.count("host") == 1
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    assert "upgrade" not in names
    assert not (head.chunked and head.has_length)
    assert head.target.startswith("/")
    for size in range(len(raw)):
        assert partial_fault(raw[:size]) == "", size


@given(PIECES.map(lambda pieces: [b"HTTP/1.1 200 OK\r\n", *pieces]) | st.binary(max_size=200).map(lambda raw: [raw]))
def test_any_bytes_make_an_answer_or_its_error(pieces: list[bytes]) -> None:
    """An accepted answer has one framing."""
    raw = b"".join(pieces) + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    try:
        head = read_answer(raw, max_fields=128)
    except HeadError:
        return
    assert 100 <= head.status <= 999
    assert not (head.chunked and head.length is not None)


def _outcome(raw: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool] | None:
    body, payload, rest, done = ChunkedBody(line_max=64, trailer_max=256), b"", b"", False
    try:
        for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            if done:
                rest += raw[begin:end]
            elif begin < end:
                took = body.take(raw[begin:end])
                payload, rest, done = payload + took.payload, took.rest, took.done
    except FramingError:
        return None
    return payload, rest, done


CHUNKS = st.lists(
    st.sampled_from([b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"a", b"1\r\nx\r\n", b"x: y\r\n", b";e=f", b"\n", b" ", b"3", b"\0"]),
    max_size=12,
)


@given(CHUNKS.map(b"".join), st.lists(st.integers(0, 60), max_size=6))
def test_chunks_end_in_the_same_place_at_any_segmentation(raw: bytes, cuts: list[int]) -> None:
    """Two readers of one body never disagree about where the next request begins."""
    assert _outcome(raw, sorted(min(cut, len(raw)) for cut in cuts)) == _outcome(raw, [])
