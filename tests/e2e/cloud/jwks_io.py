"""
Fetch an issuer's key set as the identity domain does.

In: a trust.  Out: the bytes of its JWKS, at most a few seconds old, or ExchangeRefused.
TLS is always verified; redirects, long answers and slow servers are refused.
"""

import socket
import ssl
import time

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from tests.e2e.cloud.assertion import ExchangeRefused
from tests.e2e.cloud.model import Trust

_MAX_BYTES = 64 << 10
_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=2)


class _Table(AbstractResolver):
    """Names of the configuration first, then the system's resolver."""

    def __init__(self, table: dict[str, str]) -> None:
        self._table, self._system = table, ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        if host not in self._table:
            return await self._system.resolve(host, port, family)
        address = self._table[host]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)]

    async def close(self) -> None:
        await self._system.close()


class KeySets:
    """A short cache of JWKS documents, one per endpoint."""

    def __init__(self, resolve: dict[str, str]) -> None:
        self._resolve = resolve
        self._held: dict[str, tuple[float, bytes]] = {}

    async def get(self, trust: Trust, *, afresh: bool = False) -> bytes:
        """Give the key set; ``afresh`` skips the cache (an unknown kid: the issuer may have rotated)."""
        at, document = self._held.get(trust.name, (float("-inf"), b""))
        if not afresh and time.monotonic() - at < trust.jwks_cache_seconds:
            return document
        document = await self._fetch(trust)
        self._held[trust.name] = (time.monotonic(), document)
        return document

    async def _fetch(self, trust: Trust) -> bytes:
        url = trust.public_key_endpoint
        try:
            context = ssl.create_default_context(cafile=trust.public_key_endpoint_roots or None)
            connector = aiohttp.TCPConnector(ssl=context, resolver=_Table(self._resolve), force_close=True)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False) as session,
                session.get(url, allow_redirects=False, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status != 200:
                    raise ExchangeRefused("invalid_grant", f"the issuer's key set at {url} answers {answer.status}")
                body = b""
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise ExchangeRefused("invalid_grant", f"the issuer's key set at {url} is over {_MAX_BYTES} bytes")
                return body
        except (TimeoutError, aiohttp.ClientError, OSError) as error:  # ssl.SSLError is an OSError
            raise ExchangeRefused(
                "invalid_grant", f"the issuer's key set at {url} cannot be fetched: {error or type(error).__name__}"
            ) from error
