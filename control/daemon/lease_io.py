"""
Fly the exchanges: drive every lease's state machine with the clock, the issuer's key and the exchange process.

In: who needs a credential of which source.  Out: an Issue, or the Refusal that says why there is none; LeaseShown at every change.
One flight per lease however many wait for it, and a bounded number of flights (control/credential/flights.py); a fresh session key per
token, one prepared ahead in a thread.  The flight of a static source is a question to the agent, who reads the file and audits it.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.binding.model import Source, StaticSource
from control.credential import make_io
from control.credential.flights import Flights
from control.credential.jwt import IssuerKey, assertion
from control.credential.lease import SHOWN, Answer, Lease, State, end_of
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
SECRET_S = 5.0
"""Longest wait for the agent to read a secret's file."""
WAIT_S = 25.0
"""Longest wait of one request, in line and in flight; below the 30 s after which the proxy gives it up without knowing why."""
FORGE_MOST = 2
"""Session keys made at once: each takes a core for 0.1 s, and the loop that beats needs one too."""
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
    retired: Refusal | None = None
    """Said to those who wait: the rules changed or the lease was dropped, and what a flight still brings is thrown away."""
    again: bool = False
    """What the source gives was changed during a flight: one more follows it."""
    number: int = 0
    """The issue that the flight would bring."""


_OUTAGES = frozenset(
    {Reason.EXCHANGE_TIMEOUT, Reason.EXCHANGE_UNREACHABLE, Reason.EXCHANGE_UNVERIFIED, Reason.EXCHANGE_MALFORMED}
)  # fmt: skip
"""Failures of the far side itself; a refusal is about one identity and says nothing of the next."""


class Leases:
    """All leases of the keys process."""

    def __init__(
        self,
        issuer_url: str,
        issuer: tuple[IssuerKey, ...],
        *,
        alive: Callable[[], bool],
        show: Callable[[m.LeaseShown], None],
        agent: Callable[[], Channel | None],
        wait_s: float = WAIT_S,
    ) -> None:
        """``alive`` says whether the agent answers for us; ``show`` hears of every change; ``agent`` is who reads static secrets."""
        self._issuer_url = issuer_url
        self._issuer = {key.algorithm: key for key in issuer}
        self._alive, self._show, self._agent = alive, show, agent
        self._wait_s = wait_s
        self._entries: dict[LeaseKey, _Entry] = {}
        self._flights = Flights()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outages: dict[str, Refusal] = {}
        """The last failure of each source that does not answer, for those who wait in its line."""
        self._keep_s: dict[LeaseKey, float] = {}
        """How long an ended issue may serve, of the leases for which a binding says ``stale``."""
        self._spare: asyncio.Task[RSAPrivateKey] | None = None
        self._forge = asyncio.Semaphore(FORGE_MOST)
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

    def ask(self, source: Source, identity: Identity, stale_s: float = 0.0) -> Answer:
        """Give what is there at once; where the answer says ``flying``, ``wait`` waits for it."""
        entry = self._entry(source, identity)
        answer = entry.lease.asked(boot_clock(), stale_s)
        if answer.start:
            self._start(entry)
        return answer

    async def wait(self, source: Source, identity: Identity, stale_s: float = 0.0) -> Answer:
        """Wait for the flight that is under way and give what it brought; not for ever."""
        entry = self._entries.get(LeaseKey(source.name, identity.name))
        if entry is None:
            return Answer(refusal=Refusal(Reason.REVISION_OLD))
        late = None
        try:
            await asyncio.wait_for(entry.landed.wait(), self._wait_s)
        except TimeoutError:
            late = self._too_late(source.name)
        if entry.retired is not None:
            return Answer(refusal=entry.retired)
        return entry.lease.waited(boot_clock(), stale_s, late)

    def _too_late(self, source: str) -> Refusal:
        outage = self._outages.get(source)
        why = f"; the last one failed: {outage.detail or outage.reason}" if outage is not None else ""
        waiting = self._flights.waiting(source)
        detail = f'source "{source}": no credential after {self._wait_s:.0f} s, {waiting} exchanges wait for their turn{why}'
        return Refusal(
            outage.reason if outage is not None else Reason.LEASE_UNAVAILABLE, detail, "try again; credwire audit tail shows them"
        )

    def swapped(self, rules: Rules) -> None:
        """New rules are in force: drop the leases of sources and identities that changed or went, read static secrets again."""
        self._keep_s = {}
        for binding in rules.bindings.values():
            if binding.on_lease_failure == "stale":
                of = LeaseKey(binding.source, binding.identity)
                self._keep_s[of] = max(self._keep_s.get(of, 0.0), float(binding.stale_s))
        for key, entry in list(self._entries.items()):
            identity = rules.identities.get(key.identity)
            if (
                not same_source(rules.sources.get(key.source), entry.source)
                or identity is None
                or identity.spiffe_id != entry.identity.spiffe_id
            ):
                self._retire(entry, Refusal(Reason.REVISION_OLD))
                continue
            entry.lease.keep_s = self._keep_s.get(key, 0.0)
            if isinstance(entry.source.of, StaticSource):
                self._hurry(entry)
        if self._spare is None and any(not isinstance(source.of, StaticSource) for source in rules.sources.values()):
            self._spare = asyncio.create_task(self._forged())

    def dropped(self, source: str, identity: str) -> None:
        """Throw leases away, ended issues and flights with them; an empty name means every one."""
        for key, entry in list(self._entries.items()):
            if source in ("", key.source) and identity in ("", key.identity):
                self._retire(entry, Refusal(Reason.REVOKED, f'source "{key.source}": the credential was revoked while it was fetched'))

    def _retire(self, entry: _Entry, why: Refusal) -> None:
        entry.retired = why
        if entry.timer is not None:
            entry.timer.cancel()
        del self._entries[entry.key]
        self._flights.dropped(entry.key)
        entry.landed.set()
        self._show(m.LeaseShown(entry.key.source, entry.key.identity, SHOWN[State.EMPTY], entry.lease.number, 0.0))

    def _hurry(self, entry: _Entry) -> None:
        """Read a static secret again, in the background: its file may hold another one since."""
        if not entry.landed.is_set():
            entry.again = True
        elif entry.lease.hurried(boot_clock()):
            self._start(entry)

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
            entry.lease.keep_s = self._keep_s.get(key, 0.0)
            entry.landed.set()
        return entry

    def _start(self, entry: _Entry) -> None:
        """Join the line; the flight takes off when its turn comes."""
        entry.number = entry.lease.started()
        entry.landed.clear()
        self._tell(entry)
        self._take_off(self._flights.wanted(entry.key))

    def _take_off(self, keys: list[LeaseKey]) -> None:
        for key in keys:
            task = asyncio.create_task(self._fly(self._entries[key]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, entry: _Entry) -> None:
        """One exchange, start to end; whatever happens the lease and the line hear of it."""
        retry_after_s = 0.0
        try:
            outcome = await self._exchange_once(entry, entry.number)
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
            if entry.again:
                entry.again = False
                self._hurry(entry)
        outage = isinstance(outcome, Refusal) and outcome.reason in _OUTAGES
        if isinstance(outcome, Refusal) and outage:
            self._outages[entry.key.source] = outcome
        else:
            self._outages.pop(entry.key.source, None)
        self._take_off(self._flights.ended(entry.key, outage=outage))

    async def _exchange_once(self, entry: _Entry, number: int) -> Issue | Refusal | m.ExchangeFailed:
        source = entry.source
        if isinstance(source.of, StaticSource):
            return await self._read_once(entry, number)
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
        return Issue(number, answer.token, key, now, end, answer.principal, wall + (end - now), source.name)

    async def _read_once(self, entry: _Entry, number: int) -> Issue | Refusal:
        """Have the agent read a static secret; it serves for ttlCap, half of it before it is read again."""
        source, agent = entry.source, self._agent()
        if agent is None or not self._alive():
            return Refusal(Reason.DAEMON_DOWN)
        try:
            answer = await agent.ask(lambda call: m.SecretWanted(call, source.name, entry.identity.name, number), SECRET_S)
        except TimeoutError:
            return Refusal(Reason.LEASE_UNAVAILABLE, f'source "{source.name}": the agent did not read its secret within {SECRET_S:.0f} s')
        except ConnectionResetError:
            return Refusal(Reason.DAEMON_DOWN)
        if isinstance(answer, m.Refused):
            return Refusal(answer.reason, answer.detail, answer.hint)
        if not isinstance(answer, m.SecretShown):
            return Refusal(Reason.LEASE_UNAVAILABLE, f'source "{source.name}": the agent answered something else')
        now = boot_clock()
        life = float(source.ttl_cap_s)
        return Issue(number, answer.secret, None, now, now + life, source.principal or source.name, time.time() + life, source.name)

    async def _session_key(self) -> RSAPrivateKey:
        """Take the key that was prepared, and have the next one prepared."""
        spare = self._spare or asyncio.create_task(self._forged())
        self._spare = asyncio.create_task(self._forged())
        return await spare

    async def _forged(self) -> RSAPrivateKey:
        async with self._forge:
            return await asyncio.to_thread(make_io.session_key)

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
