"""The ClientHello reader: whole at any segmentation, and never fooled by what only looks like one."""

import contextlib
import ssl

import pytest

from control.wire.hello import Hello, Malformed, NeedMore, NotTls, read_hello

LIMIT = 64 << 10


def made_by_openssl(host: str | None = "api.cloud.test", alpn: tuple[str, ...] = ("h2", "http/1.1")) -> bytes:
    """A hello nobody here wrote."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


def extension(kind: int, data: bytes) -> bytes:
    """One extension."""
    return kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def sni(name: bytes, kind: int = 0) -> bytes:
    """A server_name extension."""
    entry = bytes((kind,)) + len(name).to_bytes(2, "big") + name
    return extension(0, len(entry).to_bytes(2, "big") + entry)


def handshake(extensions: bytes, *, session: bytes = b"") -> bytes:
    """A handshake message."""
    body = (
        b"\3\3" + bytes(32) + bytes((len(session),)) + session + b"\0\2\x13\1" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
    )
    return b"\1" + len(body).to_bytes(3, "big") + body


def records(message: bytes, size: int) -> bytes:
    """The message in records of ``size``."""
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\3\1" + len(part).to_bytes(2, "big") + part for part in parts)


def test_a_real_hello_is_read() -> None:
    """Name and ALPN."""
    assert read_hello(made_by_openssl(), LIMIT) == Hello("api.cloud.test", (b"h2", b"http/1.1"))


def test_a_real_hello_without_a_name_is_read() -> None:
    """No server_name extension."""
    assert read_hello(made_by_openssl(None, ()), LIMIT) == Hello(None, ())


def test_every_prefix_needs_more_and_never_too_much() -> None:
    """At each byte the reader asks for more than it has, and for no byte beyond the record."""
    raw = made_by_openssl()
    for size in range(len(raw)):
        found = read_hello(raw[:size], LIMIT)
        assert isinstance(found, NeedMore), size
        assert size < found.at_least <= len(raw), size


@pytest.mark.parametrize("size", [1, 3, 100, 1400, 16384])
def test_a_hello_in_many_records_and_longer_than_a_segment_is_read(size: int) -> None:
    """Post-quantum key shares make hellos of 1.8 KB; some clients cut them into records."""
    message = handshake(sni(b"api.cloud.test") + extension(51, bytes(1800)) + extension(21, bytes(12000 if size > 10 else 10)))
    raw = records(message, size)
    assert read_hello(raw, LIMIT) == Hello("api.cloud.test", ())
    assert isinstance(read_hello(raw[:-1], LIMIT), NeedMore)


def test_what_follows_the_hello_does_not_matter() -> None:
    """Early data stands behind it."""
    assert read_hello(made_by_openssl() + b"\x17\3\3\0\1x", LIMIT) == Hello("api.cloud.test", (b"h2", b"http/1.1"))


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n", b"SSH-2.0", b"\x16\x02", b"\x80\x2e\1\3\1", b"\0", b"\x15\3\1\0\2\2\x28"])
def test_other_protocols_are_not_tls(raw: bytes) -> None:
    """The first bytes say so at once."""
    assert read_hello(raw, LIMIT) == NotTls()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"\x16\3\1\0\0", "a record of 0 bytes"),
        (b"\x16\3\1\xff\xff", "a record of 65535 bytes"),
        (b"\x16\3\1\0\4\2\0\0\0", "of type 2"),
        (b"\x16\3\1\0\4\1\xff\xff\xff", "over the limit"),
        (records(handshake(b"")[:20], 20) + b"\x17\3\3\0\1x", "another type"),
        (records(handshake(sni(b"a") + sni(b"b")), 999), "stands twice"),
        (records(handshake(sni(b"a\0b")), 999), "not a host name"),
        (records(handshake(sni(b"")), 999), "not a host name"),
        (records(handshake(sni(b"a.test\xff")), 999), "not a host name"),
        (records(handshake(sni(b"a" * 300)), 999), "not a host name"),
        (records(handshake(sni(b"a.test", kind=1)), 999), "type 1"),
        (records(handshake(extension(0, b"\0\x0a\0\0\1a\0\0\1b\0")), 999), "past the end"),
        (records(handshake(extension(0, b"\0\x08\0\0\1a\0\0\1b")), 999), "more than one"),
        (records(handshake(extension(16, b"\0\1\0")), 999), "empty ALPN"),
        (records(handshake(b"", session=bytes(33)), 999), "session id"),
        (records(handshake(sni(b"a.test") + b"\0"), 999), "past the end"),
        (records(handshake(b"")[:-1] + b"\x09", 999), "past the end"),
    ],
)
def test_broken_hellos_say_what_is_broken(raw: bytes, what: str) -> None:
    """They began as TLS: refused, never spliced as if they were something else."""
    found = read_hello(raw, LIMIT)
    assert isinstance(found, Malformed)
    assert what in found.what


def test_an_endless_hello_is_over_the_limit() -> None:
    """Records that go on and on are not gathered for ever."""
    endless = b"\x16\3\1\0\1\1" + b"\x16\3\1\0\1\0" * 20000
    assert isinstance(read_hello(endless, 1 << 10), Malformed)


def test_names_are_canonical() -> None:
    """Upper case and the trailing dot do not make another name."""
    assert read_hello(records(handshake(sni(b"API.Cloud.Test.")), 999), LIMIT) == Hello("api.cloud.test", ())
