"""
The exchange process: talks to identity domains over verified TLS.

In: one JSON argument (ExchangeSetup) without secrets; sources with their client secrets from the agent, assertions from keys.
Out: tokens to keys; an audit event for each exchange, told before the answer.
Holds what authenticates us to a domain, in memory only: client secrets, or the instance's token with its own key (instance_io.py).
No key of a workload's is here: the assertion is signed by keys, and the token is worth nothing without the session key that stays there.
What a far side answers is read by the source's own file under control/credential/source/.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from control.audit.event import Event
from control.binding.model import OciSource, Source
from control.credential.source import KINDS, oci_instance
from control.credential.source.model import Ask, Failed, Yielded
from control.daemon import message as m
from control.daemon.beat_io import beat
from control.daemon.channel_io import Channel, connect
from control.daemon.confine_io import confine, scrub_environment
from control.daemon.https_io import TOTAL_S, post
from control.daemon.id_io import new_id
from control.daemon.instance_io import Instances
from control.daemon.log_io import log
from control.daemon.rules import Staging, empty
from control.errors import CredwireError, FarSideError
from control.reason import Reason
from control.secret import Secret

RECONNECT_S = 0.1
FLIGHTS_MOST = 64
"""Exchanges at once (docs/limits.md); leases make one flight each, so more than this is a thousand bindings starting together."""
RULES_S = 1.0
"""A wish that comes before its source waits this long: keys and we hear of a set on channels of our own."""
_SPEAKER = "exchange"


class ExchangeSetup(msgspec.Struct, frozen=True):
    """What the supervisor tells; other fields of the common part are none of ours."""

    run: str
    """Directory of agent.sock and keys.sock."""
    beat_fd: int
    uids: dict[str, int]
    timeout_s: float = TOTAL_S
    rules_s: float = RULES_S


class Exchange:
    """The process: two channels, the sources, the flights."""

    def __init__(self, setup: ExchangeSetup) -> None:
        self._setup = setup
        self._staging, self._rules = Staging(), empty()
        self._instances = Instances(setup.timeout_s)
        self._swapped = asyncio.Event()
        self._agent: Channel | None = None
        self._slots = asyncio.Semaphore(FLIGHTS_MOST)
        self._flights: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until killed; ends when the supervisor's pipe is gone."""
        run = Path(self._setup.run)
        keepers = [
            asyncio.create_task(self._keep("agent", run / "agent.sock", self._agent_came)),
            asyncio.create_task(self._keep("keys", run / "keys.sock", lambda _: None)),
        ]
        try:
            await beat(self._setup.beat_fd)
        except BrokenPipeError:
            log(_SPEAKER, "supervisor-gone")
        finally:
            for task in keepers:
                task.cancel()

    # -- channels

    async def _keep(self, peer: str, path: Path, came: Callable[[Channel], None]) -> None:
        """Stay connected to ``peer``, whoever restarts."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock = await connect(path)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            gone = asyncio.Event()

            def closed(channel: Channel, why: str, gone: asyncio.Event = gone) -> None:
                self._closed(channel, why)
                gone.set()

            channel = Channel(loop, sock, peer=peer, own="exchange", on_message=self._heard, on_closed=closed)
            came(channel)
            channel.send(m.Greeted("exchange"))
            await gone.wait()
            await asyncio.sleep(RECONNECT_S)  # a peer that closes at once must not make us spin

    def _agent_came(self, channel: Channel) -> None:
        self._agent = channel

    def _closed(self, channel: Channel, why: str) -> None:
        log(_SPEAKER, "channel-closed", peer=channel.peer, why=why)
        if channel is self._agent:
            self._agent = None
            self._staging, self._rules = Staging(), empty()  # nothing is exchanged for an agent that is gone; the next one tells all again
            self._instances.clear()

    # -- what is said

    def _heard(self, channel: Channel, message: Any, fds: list[int]) -> None:
        for fd in fds:  # nobody has a reason to hand us a descriptor
            os.close(fd)
        match message:
            case m.ExchangeWanted():
                task = asyncio.create_task(self._fly(channel, message))
                self._flights.add(task)
                task.add_done_callback(self._flights.discard)
            case m.PolicyBegan() | m.PolicySource() | m.PolicyCommitted():
                fresh = self._staging.took(message)
                if fresh is not None:
                    self._rules = fresh
                    self._swapped.set()
                    self._swapped = asyncio.Event()
                    log(_SPEAKER, "rules-swapped", revision=fresh.revision, sources=len(fresh.sources))
            case _:
                pass  # Beat: keys watches the agent for both of us

    async def _fly(self, channel: Channel, wanted: m.ExchangeWanted) -> None:
        async with self._slots:
            outcome = await self._exchange(wanted)
        told = outcome.detail if isinstance(outcome, Failed) else f'principal "{_shown(outcome.principal)}"'
        self._audit(
            "exchange-failed" if isinstance(outcome, Failed) else "exchange-done",
            reason=outcome.reason if isinstance(outcome, Failed) else Reason.GRANTED,
            source=wanted.source, identity=wanted.identity, issue=wanted.issue, detail=told,
        )  # fmt: skip
        if isinstance(outcome, Failed):
            channel.send(m.ExchangeFailed(wanted.call, outcome.reason, outcome.detail, outcome.retry_after_s))
        else:
            channel.send(m.Exchanged(wanted.call, outcome.token, outcome.expires_at, outcome.principal))

    async def _exchange(self, wanted: m.ExchangeWanted) -> Yielded | Failed:
        if wanted.source not in self._rules.sources:
            try:
                await asyncio.wait_for(self._swapped.wait(), self._setup.rules_s)
            except TimeoutError:
                pass  # said below
        source, secret = self._rules.sources.get(wanted.source), self._rules.secrets.get(wanted.source)
        if source is None:
            return Failed(Reason.LEASE_UNAVAILABLE, f'source "{wanted.source}": not told to the exchange process yet')
        if secret is None and not _by_instance(source):
            return Failed(Reason.LEASE_UNAVAILABLE, f'source "{wanted.source}": its clientSecretFile cannot be read')
        try:
            return _compared(source, await self._ask(source, secret or Secret(b""), wanted))
        except CredwireError as error:
            return Failed(error.reason, f'source "{source.name}": {error.message}')
        except Exception as error:  # whatever a far side provokes ends this exchange only; its text may quote bytes, its class does not
            return Failed(Reason.EXCHANGE_MALFORMED, f'source "{source.name}": {type(error).__name__} while reading its answer')

    async def _ask(self, source: Source, secret: Secret, wanted: m.ExchangeWanted) -> Yielded | Failed:
        kind, of = KINDS[source.kind], source.of
        ask = kind.build(source, secret, wanted.assertion, wanted.public_key_der)
        if isinstance(of, OciSource) and _by_instance(source):
            return await self._ask_as_instance(source, of, ask, wanted)
        answered = await post(ask, total_s=self._setup.timeout_s)
        return kind.parse(source, answered, wanted.public_key_der, time.time(), (secret, wanted.assertion, ask.authorization))

    async def _ask_as_instance(self, source: Source, of: OciSource, ask: Ask, wanted: m.ExchangeWanted) -> Yielded | Failed:
        began = time.monotonic()
        held = await self._instance_token(of)
        ask = oci_instance.signed(ask, held, time.time())
        left_s = max(0.1, self._setup.timeout_s - (time.monotonic() - began))  # keys waits for both together
        answered = await post(ask, total_s=left_s)
        if answered.status == 401:
            self._instances.forget(of, held)
        told = (wanted.assertion, held.token, ask.authorization)
        return KINDS[source.kind].parse(source, answered, wanted.public_key_der, time.time(), told)

    async def _instance_token(self, of: OciSource) -> oci_instance.Held:
        try:
            async with asyncio.timeout(self._setup.timeout_s):
                return await self._instances.token(of)
        except TimeoutError as error:
            what = f"no token of this instance within {self._setup.timeout_s:g} s"
            raise FarSideError(Reason.EXCHANGE_TIMEOUT, what) from error

    def _audit(self, event: str, **fields: Any) -> None:
        if self._agent is not None:
            told = Event(at=time.time(), id=new_id(), event=event, speaker=_SPEAKER, **fields)
            self._agent.send(m.Audited(msgspec.to_builtins(told)))


def _by_instance(source: Source) -> bool:
    """Whether the instance itself authenticates us, so that no secret is stored."""
    return isinstance(source.of, OciSource) and source.of.client_auth == "instancePrincipal"


def _compared(source: Source, outcome: Yielded | Failed) -> Yielded | Failed:
    """Compare the principal with the declared one; keys does it again with what reaches it."""
    if isinstance(outcome, Failed) or outcome.principal == source.principal:
        return outcome
    told = f'the token is for "{_shown(outcome.principal)}", the federation declares "{source.principal}"'
    return Failed(Reason.PRINCIPAL_MISMATCH, f'source "{source.name}": {told}')


def _shown(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:128])


def run(setup: ExchangeSetup) -> int:
    """Serve as whoever we are; gives the exit code."""

    async def serve() -> None:
        await Exchange(setup).serve()

    asyncio.run(serve())
    return 0


def main() -> int:
    """Entry of the exchange process: argv[1] is ExchangeSetup."""
    setup = msgspec.json.decode(sys.argv[1], type=ExchangeSetup)
    uid = setup.uids["exchange"]
    scrub_environment()
    for line in confine("exchange", uid, uid, parent=os.getppid()):
        log(_SPEAKER, "not-here", what=line)
    return run(setup)


if __name__ == "__main__":
    sys.exit(main())
