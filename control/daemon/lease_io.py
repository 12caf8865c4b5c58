"""
Fly the exchanges: drive every lease's state machine with the clock, the issuer's key and the exchange process.

In: who needs a credential of which source.  Out: an Issue, or the Refusal that says why there is none; LeaseShown at every change.
One flight per lease however many wait for it; a fresh session key per token, one prepared ahead in a thread.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.binding.model import Source
from control.credential import make_io
from control.credential.jwt import IssuerKey, assertion
from control.credential.lease import SHOWN, Lease, State, end_of
from control.credential.model import Issue, LeaseKey
from control.credential.source import KINDS
from control.daemon import message as m
from control.daemon.channel_io import Channel
from control.daemon.rules import Rules, same_source
from control.errors import Refusal
from control.identity.model import Identity
from control.reason import Reason

EXCHANGE_S = 15.0
"""Longest wait for the exchange process, which gives up by itself after 10 s."""
CONNECT_S = 2.0
"""Longest wait for an exchange process that is starting again."""
IDLE_S = 1.0
"""A refresh that came due while no agent was there is looked at again after this."""


def boot_clock() -> float:
    """Seconds since boot, suspend included: what leases are counted in, so that setting the wall clock ages nothing."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Entry:
    """A lease with what it was made from."""

    key: LeaseKey
    source: Source
    identity: Identity
    lease: Lease = field(default_factory=Lease)
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no flight is under way."""
    timer: asyncio.TimerHandle | None = None
    retired: bool = False
    """The rules changed: what a flight still brings is thrown away."""


class Leases:
    """All leases of the keys process."""

    def __init__(
        self, issuer_url: str, issuer: tuple[IssuerKey, ...], *, alive: Callable[[], bool], show: Callable[[m.LeaseShown], None]
    ) -> None:
        """``alive`` says whether the agent answers for us; ``show`` hears of every change."""
        self._issuer_url = issuer_url
        self._issuer = {key.algorithm: key for key in issuer}
        self._alive, self._show = alive, show
        self._entries: dict[LeaseKey, _Entry] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._spare: asyncio.Task[RSAPrivateKey] | None = None
        self._exchange: Channel | None = None
        self._connected = asyncio.Event()

    # -- the exchange process comes and goes

    def exchange_came(self, channel: Channel) -> None:
        """Use this channel from now on; close the former one."""
        if self._exchange is not None:
            self._exchange.close("replaced by a new exchange process")
        self._exchange = channel
        self._connected.set()

    def exchange_went(self, channel: Channel) -> None:
        """Forget a channel that closed."""
        if self._exchange is channel:
            self._exchange = None
            self._connected.clear()

    # -- asking

    def ask(self, source: Source, identity: Identity) -> Issue | Refusal | None:
        """Give what is there at once; None when a flight is under way, and ``wait`` waits for it."""
        entry = self._entry(source, identity)
        answer = entry.lease.asked(boot_clock())
        if answer.start:
            self._start(entry)
        return answer.issue or answer.refusal

    async def wait(self, source: Source, identity: Identity) -> Issue | Refusal:
        """Wait for the flight that is under way and give what it brought."""
        entry = self._entries.get(LeaseKey(source.name, identity.name))
        if entry is not None:
            await entry.landed.wait()
        if entry is None or entry.retired:
            return Refusal(Reason.REVISION_OLD)
        return entry.lease.issue or entry.lease.failure or Refusal(Reason.LEASE_UNAVAILABLE)

    def swapped(self, rules: Rules) -> None:
        """New rules are in force: drop the leases of sources and identities that changed or went."""
        for key, entry in list(self._entries.items()):
            identity = rules.identities.get(key.identity)
            if (
                same_source(rules.sources.get(key.source), entry.source)
                and identity is not None
                and identity.spiffe_id == entry.identity.spiffe_id
            ):
                continue
            entry.retired = True
            if entry.timer is not None:
                entry.timer.cancel()
            del self._entries[key]
            self._show(m.LeaseShown(key.source, key.identity, SHOWN[State.EMPTY], entry.lease.number, 0.0))
        if rules.sources and self._spare is None:
            self._spare = asyncio.create_task(asyncio.to_thread(make_io.session_key))

    def tell_all(self) -> None:
        """Show every lease: a new agent knows none."""
        for entry in self._entries.values():
            self._tell(entry)

    # -- flights

    def _entry(self, source: Source, identity: Identity) -> _Entry:
        key = LeaseKey(source.name, identity.name)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key, source, identity)
            entry.landed.set()
        return entry

    def _start(self, entry: _Entry) -> None:
        number = entry.lease.started()
        entry.landed.clear()
        self._tell(entry)
        task = asyncio.create_task(self._fly(entry, number))
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)

    async def _fly(self, entry: _Entry, number: int) -> None:
        """One exchange, start to end; whatever happens the lease hears of it."""
        retry_after_s = 0.0
        try:
            outcome = await self._exchange_once(entry, number)
            if isinstance(outcome, m.ExchangeFailed):
                retry_after_s = outcome.retry_after_s
                outcome = Refusal(outcome.reason, outcome.detail)
        except Exception as error:  # a flight that ends without a word would leave the lease in flight for ever
            outcome = Refusal(Reason.LEASE_UNAVAILABLE, f'source "{entry.key.source}": the exchange broke: {type(error).__name__}')
        if not entry.retired:
            jitter = random.random()  # noqa: S311  # spreads refreshes, hides nothing
            entry.lease.passed(boot_clock())
            if isinstance(outcome, Issue):
                entry.lease.succeeded(outcome, jitter)
            else:
                entry.lease.failed(boot_clock(), outcome, jitter, retry_after_s)
            self._arm(entry)
            self._tell(entry)
        entry.landed.set()

    async def _exchange_once(self, entry: _Entry, number: int) -> Issue | Refusal | m.ExchangeFailed:
        source = entry.source
        key = await self._session_key()
        try:
            await asyncio.wait_for(self._connected.wait(), CONNECT_S)
        except TimeoutError:
            return Refusal(Reason.LEASE_UNAVAILABLE, f'source "{source.name}": the exchange process is not there')
        exchange = self._exchange
        if exchange is None or not self._alive():
            return Refusal(Reason.DAEMON_DOWN)
        token = assertion(
            self._issuer[KINDS[source.kind].algorithm],
            issuer=self._issuer_url, subject=entry.identity.spiffe_id, audience=source.audience,
            now=time.time(), token_id=make_io.token_id(),
        )  # fmt: skip
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        try:
            answer = await exchange.ask(
                lambda call: m.ExchangeWanted(call, source.name, token, public, entry.identity.name, number), EXCHANGE_S
            )
        except TimeoutError:
            return Refusal(Reason.EXCHANGE_TIMEOUT, f'source "{source.name}": the exchange process did not answer')
        except ConnectionResetError:
            return Refusal(Reason.LEASE_UNAVAILABLE, f'source "{source.name}": the exchange process went away')
        if isinstance(answer, m.ExchangeFailed):
            return answer
        if answer.principal != source.principal:
            return Refusal(
                Reason.PRINCIPAL_MISMATCH,
                f'source "{source.name}": the token is for "{_shown(answer.principal)}", the federation declares "{source.principal}"',
            )
        now, wall = boot_clock(), time.time()
        end = end_of(now, wall, answer.expires_at, source.ttl_cap_s)
        return Issue(number, answer.token, key, now, end, answer.principal, wall + (end - now))

    async def _session_key(self) -> RSAPrivateKey:
        """Take the key that was prepared, and have the next one prepared."""
        spare = self._spare or asyncio.create_task(asyncio.to_thread(make_io.session_key))
        self._spare = asyncio.create_task(asyncio.to_thread(make_io.session_key))
        return await spare

    def _arm(self, entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        wait = max(0.0, entry.lease.next_at - boot_clock())
        entry.timer = asyncio.get_running_loop().call_later(wait, self._due, entry)

    def _due(self, entry: _Entry) -> None:
        """Refresh a lease whose time has come; one that nobody uses waits until it is asked for."""
        if not self._alive():
            entry.timer = asyncio.get_running_loop().call_later(IDLE_S, self._due, entry)
        elif entry.lease.due(boot_clock()):
            self._start(entry)

    def _tell(self, entry: _Entry) -> None:
        lease, issue = entry.lease, entry.lease.issue
        failure = lease.failure
        self._show(
            m.LeaseShown(
                entry.key.source,
                entry.key.identity,
                SHOWN[lease.state],
                lease.number,
                issue.wall_expires_at if issue else 0.0,
                issue.principal if issue else "",
                failure.reason if failure else Reason.GRANTED,
                failure.detail if failure else "",
            )
        )


def _shown(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:128])
