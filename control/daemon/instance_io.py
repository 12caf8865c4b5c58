"""
Hold the instance's token, for the sources whose clientAuth is instancePrincipal.

In: a source.  Out: a Held that is good for another minute at least; FarSideError or SetupError when there is none.
One token for each metadata service and set of roots, however many sources and exchanges want it; the session key and the instance's own key
live in this process only, the latter no longer than the request that it signs.
"""

import asyncio
import time
from collections import defaultdict

from control.binding.model import OciSource
from control.credential import make_io
from control.credential.source import oci_instance
from control.credential.source.oci_instance import Held
from control.daemon.https_io import TOTAL_S, look, post

_Which = tuple[str, str]


class Instances:
    """Tokens by metadata service and roots."""

    def __init__(self, total_s: float = TOTAL_S) -> None:
        """``total_s`` bounds each request."""
        self._total_s = total_s
        self._held: dict[_Which, Held] = {}
        self._locks: defaultdict[_Which, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def token(self, of: OciSource) -> Held:
        """Give the token, a new one when the former is about to end.  Raises FarSideError, SetupError."""
        which = (of.metadata, of.upstream_roots)
        async with self._locks[which]:
            held = self._held.get(which)
            if held is None or not held.fresh(time.time()):
                held = self._held[which] = await self._fetch(of)
            return held

    def forget(self, of: OciSource, held: Held) -> None:
        """Drop a token that the identity domain did not take; the next exchange gets a new one."""
        if self._held.get((of.metadata, of.upstream_roots)) is held:
            del self._held[of.metadata, of.upstream_roots]

    def clear(self) -> None:
        """Drop everything."""
        self._held.clear()

    async def _fetch(self, of: OciSource) -> Held:
        answers = [await look(wanted, total_s=self._total_s) for wanted in oci_instance.looks(of.metadata)]
        instance = oci_instance.read_instance(answers, time.time())
        session_key = await asyncio.to_thread(make_io.session_key)
        ask = oci_instance.ask_token(instance, session_key, of.upstream_roots, time.time())
        answered = await post(ask, total_s=self._total_s, whom="the auth service")
        return oci_instance.read_held(answered, session_key, time.time(), (ask.authorization,))
