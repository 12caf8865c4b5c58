"""
Send one POST over verified TLS and read a bounded answer.

In: an Ask, the trusted roots.  Out: an Answered, or FarSideError with the reason.
h11 keeps the protocol over plain asyncio streams, one connection per exchange.  A client library would bring redirects, cookies, proxies,
content decoding and trust from the environment, each to be found and switched off; what is not here cannot be switched on.
Everything is bounded: 10 s in all, 16 KiB of head, 64 KiB of body, whatever the far side does.
"""

import asyncio
import ssl
from functools import lru_cache
from pathlib import Path

import h11

from control.credential.source.model import Answered, Ask
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


async def post(ask: Ask, *, total_s: float = TOTAL_S) -> Answered:
    """Send ``ask``.  Raises FarSideError, whose message never quotes the far side, or SetupError."""
    tls = context(ask.roots_pem)
    try:
        async with asyncio.timeout(total_s):
            reader, writer = await asyncio.open_connection(
                ask.host, ask.port, ssl=tls, server_hostname=ask.host, happy_eyeballs_delay=0.25, limit=_READ
            )
            try:
                return await _converse(ask, reader, writer)
            finally:
                writer.transport.abort()  # nothing is owed to a far side that has answered, or has not
    except TimeoutError as error:
        raise FarSideError(Reason.EXCHANGE_TIMEOUT, f"no whole answer within {total_s:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise FarSideError(Reason.EXCHANGE_UNVERIFIED, f"its certificate does not verify: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise FarSideError(Reason.EXCHANGE_UNREACHABLE, f"TLS failed: {error.reason or 'closed early'}") from error
    except OSError as error:
        raise FarSideError(Reason.EXCHANGE_UNREACHABLE, f"no connection: {error.strerror or type(error).__name__}") from error
    except h11.RemoteProtocolError as error:
        raise FarSideError(Reason.EXCHANGE_MALFORMED, "its answer is not well-formed HTTP/1.1, or ends early") from error


async def _converse(ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answered:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MOST)
    body = ask.body.reveal()
    headers = [
        *((name.encode("ascii"), value.encode("ascii")) for name, value in ask.headers),
        (b"authorization", ask.authorization.reveal()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    head = http.send(h11.Request(method="POST", target=ask.target, headers=headers))
    writer.write((head or b"") + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b""))
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
