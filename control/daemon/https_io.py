"""
Send one POST over verified TLS, or look something up at this machine's metadata service, and read a bounded answer.

In: an Ask with the trusted roots, or a Look.  Out: an Answered, or FarSideError with the reason.
h11 keeps the protocol over plain asyncio streams, one connection per exchange.  A client library would bring redirects, cookies, proxies,
content decoding and trust from the environment, each to be found and switched off; what is not here cannot be switched on.
Everything is bounded: 10 s in all, 16 KiB of head, 64 KiB of body, whatever the far side does.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h11

from control.credential.source.model import Answered, Ask, Look
from control.errors import FarSideError, SetupError
from control.reason import Reason

TOTAL_S = 10.0
HEAD_MOST = 16 * 1024
BODY_MOST = 64 * 1024
WIRE_MOST = HEAD_MOST + 2 * BODY_MOST
"""Bytes read in all: chunk framing and interim answers count too."""
_READ = 16 * 1024

SYSTEM_ROOTS = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL, Oracle Linux
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
)
"""Named here and not taken from OpenSSL's defaults, which follow SSL_CERT_FILE and SSL_CERT_DIR."""


@lru_cache(maxsize=64)
def context(roots_pem: str) -> ssl.SSLContext:
    """
    Make the TLS context that trusts ``roots_pem``, or the system's roots when it is empty.

    Not ssl.create_default_context(): that one writes session keys to the file which SSLKEYLOGFILE names.
    Raises SetupError when there are no roots.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if roots_pem:
        try:
            made.load_verify_locations(cadata=roots_pem)
        except ssl.SSLError as error:
            raise SetupError(Reason.EXCHANGE_UNVERIFIED, "its upstreamRoots hold no readable certificate") from error
        return made
    for path in SYSTEM_ROOTS:
        if path.exists():
            made.load_verify_locations(cafile=str(path))
            return made
    raise SetupError(Reason.EXCHANGE_UNVERIFIED, "this machine has no bundle of trusted roots", hint="install ca-certificates")


async def post(ask: Ask, *, total_s: float = TOTAL_S, whom: str = "") -> Answered:
    """Send ``ask``; ``whom`` names a far side that is not the source's own.  Raises FarSideError, which never quotes it, or SetupError."""
    tls = context(ask.roots_pem)
    body = ask.body.reveal()
    headers = [*_bytes(ask.headers), (b"authorization", ask.authorization.reveal()), (b"content-length", str(len(body)).encode())]
    with _named(f"{whom}: " if whom else "", total_s):
        async with asyncio.timeout(total_s):
            reader, writer = await asyncio.open_connection(
                ask.host, ask.port, ssl=tls, server_hostname=ask.host, happy_eyeballs_delay=0.25, limit=_READ
            )
            return await _converse(h11.Request(method="POST", target=ask.target, headers=[*headers, _CLOSE]), body, reader, writer)


async def look(wanted: Look, *, total_s: float = TOTAL_S) -> Answered:
    """Ask the metadata service, over plain HTTP: binding/source/oci.py lets this machine's addresses through only.  Raises as post."""
    with _named("the metadata service: ", total_s):
        async with asyncio.timeout(total_s):
            reader, writer = await asyncio.open_connection(wanted.host, wanted.port, limit=_READ)
            request = h11.Request(method="GET", target=wanted.target, headers=[*_bytes(wanted.headers), _CLOSE])
            return await _converse(request, b"", reader, writer)


_CLOSE = (b"connection", b"close")


def _bytes(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]


@contextmanager
def _named(whom: str, total_s: float) -> Iterator[None]:
    """Turn what can go wrong into a FarSideError about ``whom``."""
    try:
        yield
    except TimeoutError as error:
        raise FarSideError(Reason.EXCHANGE_TIMEOUT, f"{whom}no whole answer within {total_s:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise FarSideError(Reason.EXCHANGE_UNVERIFIED, f"{whom}its certificate does not verify: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise FarSideError(Reason.EXCHANGE_UNREACHABLE, f"{whom}TLS failed: {error.reason or 'closed early'}") from error
    except OSError as error:
        raise FarSideError(Reason.EXCHANGE_UNREACHABLE, f"{whom}no connection: {error.strerror or type(error).__name__}") from error
    except h11.RemoteProtocolError as error:
        raise FarSideError(Reason.EXCHANGE_MALFORMED, f"{whom}its answer is not well-formed HTTP/1.1, or ends early") from error
    except FarSideError as error:
        raise (FarSideError(error.reason, whom + error.message, hint=error.hint) if whom else error) from error.__cause__


async def _converse(request: h11.Request, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answered:
    try:
        return await _exchanged(request, body, reader, writer)
    finally:
        writer.transport.abort()  # nothing is owed to a far side that has answered, or has not


async def _exchanged(request: h11.Request, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answered:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MOST)
    head = http.send(request)
    data = http.send(h11.Data(data=body)) if body else b""
    writer.write((head or b"") + (data or b"") + (http.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    answer: h11.Response | None = None
    content = bytearray()
    read = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            raw = await reader.read(_READ)
            read += len(raw)
            if read > WIRE_MOST:
                raise FarSideError(Reason.EXCHANGE_MALFORMED, f"its answer is larger than {BODY_MOST} bytes")
            http.receive_data(raw)
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > BODY_MOST:
                raise FarSideError(Reason.EXCHANGE_MALFORMED, f"its answer is larger than {BODY_MOST} bytes")
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            return Answered(answer.status_code, _header(answer, b"content-type"), _header(answer, b"retry-after"), bytes(content))
        elif isinstance(event, h11.ConnectionClosed):
            raise FarSideError(Reason.EXCHANGE_UNREACHABLE, "it closed the connection without an answer")


def _header(answer: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in answer.headers if key == name), "")
