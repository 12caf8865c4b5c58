"""The head readers: what can be read in two ways is refused, and says why."""

import pytest

from control.reason import Reason
from control.wire.head import HeadError, partial_fault, read_answer, read_request


def request(raw: bytes) -> object:
    """Read with ordinary limits."""
    return read_request(raw, max_fields=128, max_target=16384)


def test_a_plain_request_is_taken_apart() -> None:
    """Names keep their spelling, values lose the blanks around them."""
    head = request(b"GET /a?b=/%2f HTTP/1.1\r\nHost: h.test\r\nX-Empty:\r\nX-Blank: \t a b \t\r\n\r\n")
    assert (head.method, head.target, head.path, head.host) == ("GET", "/a?b=/%2f", "/a", "h.test")
    assert head.fields == [("Host", "h.test"), ("X-Empty", ""), ("X-Blank", "a b")]
    assert (head.length, head.chunked, head.expects, head.keep_alive) == (0, False, False, True)


def test_an_absolute_target_becomes_a_path_when_it_names_the_host() -> None:
    """RFC 9112 section 3.2.2: a server must take it."""
    head = request(b"GET https://h.test/a?b HTTP/1.1\r\nHost: h.test\r\n\r\n")
    assert (head.target, head.path) == ("/a?b", "/a")


@pytest.mark.parametrize(
    ("lines", "status", "reason", "what"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "Host is missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "host stands twice"),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "HTTP/1.0"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "HTTP/2.0"),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "request line"),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "request line"),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "request line"),
        (b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "request line"),
        (b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "fragment"),
        (b"NOSUCH / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "llhttp"),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "not a path"),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "not a path"),
        (b"GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, Reason.HOST_MISMATCH, "another host"),
        (b"GET https://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, Reason.HOST_MISMATCH, "another host"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, Reason.METHOD_FORBIDDEN, "TRACE"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, Reason.METHOD_FORBIDDEN, "CONNECT"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "Max-Forwards"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400, Reason.UPGRADE_FORBIDDEN, "protocol"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", 400, Reason.UPGRADE_FORBIDDEN, "protocol"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: x\r\n\r\n", 400, Reason.UPGRADE_FORBIDDEN, "protocol"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Authorization\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "authorization"),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "CRLF"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "CRLF"),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "CRLF"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "NUL"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x07\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "control character"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "folded"),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "folded"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "blank before the colon"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "without a colon"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "header name"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "header name"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "twice"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "plain number"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "both"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, Reason.REQUEST_MALFORMED, "other than chunked"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501, Reason.REQUEST_MALFORMED, "other than chunked"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "control character"),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400, Reason.REQUEST_MALFORMED, "twice",
        ),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "looks like content-length"),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n", 417, Reason.REQUEST_MALFORMED, "100-continue"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nauthorization: b\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "twice"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, Reason.REQUEST_HEAD_TOO_LARGE, "header lines"),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, Reason.REQUEST_HEAD_TOO_LARGE, "request target"),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "request line"),
        (b"PRI * HTTP/2.0\r\n\r\n", 400, Reason.REQUEST_MALFORMED, "HTTP/2.0"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(lines: bytes, status: int, reason: Reason, what: str) -> None:
    """Each with the status, the reason and the words of its rule."""
    with pytest.raises(HeadError) as error:
        request(lines)
    assert (error.value.status, error.value.reason) == (status, reason)
    assert what in error.value.detail


@pytest.mark.parametrize(
    "raw", [b"", b"G", b"GET", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHo", b"PUT /a HT"]
)
def test_a_head_that_may_still_become_one_is_waited_for(raw: bytes) -> None:
    """No fault yet."""
    assert partial_fault(raw) == ""


@pytest.mark.parametrize("raw", [b"\x16\3\1", b"\r\n", b"get", b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\nH", b"GET /\0", b"SSH-2.0-x\r\n"])
def test_a_head_that_cannot_become_one_is_refused_at_once(raw: bytes) -> None:
    """Without waiting for an end that never comes."""
    assert partial_fault(raw)


def test_a_plain_answer_is_taken_apart() -> None:
    """An empty phrase and no phrase at all are both common."""
    head = read_answer(b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", max_fields=128)
    assert (head.status, head.phrase, head.length, head.chunked, head.keep_alive) == (200, "", 3, False, True)
    assert read_answer(b"HTTP/1.1 204\r\n\r\n", max_fields=128).length is None
    assert not read_answer(b"HTTP/1.0 200 OK\r\n\r\n", max_fields=128).keep_alive


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "twice"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "other than chunked"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
        (b"HTTP/1.1 200 OK\nX: y\r\n\r\n", "CRLF"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "status line"),
        (b"HTTP/2 200\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "blank before the colon"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", "folded"),
        (b"ICY 200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nConnection: set-cookie, content-length\r\n\r\n", "whole path"),
    ],
)
def test_answers_that_are_refused(raw: bytes, what: str) -> None:
    """A destination that smuggles is as bad as a client that does."""
    with pytest.raises(HeadError, match=what):
        read_answer(raw, max_fields=128)
