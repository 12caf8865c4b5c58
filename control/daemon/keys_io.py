"""
The keys process: holds issuer, CA and session keys, and signs what a grant allows.

In: one JSON argument (KeysSetup) without secrets, the listener of keys.sock and the beat pipe as inherited descriptors.
Out: certificates, signatures and assertions over typed channels; an audit event before each answer that carries a credential.
No network, no HTTP parser; who may say what is message.SPEAKERS, who may have what is control/daemon/warrant.py.
Nothing is signed without an agent that beats: kill -9 and SIGSTOP of the agent look the same from here, and end the same.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from control.audit.event import Event
from control.binding.model import Binding, kind_of_signer
from control.credential import ca, make_io
from control.credential.jwt import jwks
from control.credential.lease import Answer
from control.credential.store_io import Authorities, Store
from control.daemon import message as m
from control.daemon.beat_io import beat
from control.daemon.channel_io import Channel
from control.daemon.confine_io import confine, scrub_environment
from control.daemon.greet_io import greet
from control.daemon.id_io import new_id
from control.daemon.lease_io import WAIT_S, Leases
from control.daemon.log_io import log
from control.daemon.rules import Staging, empty, names_of, same_source
from control.daemon.seal_io import key_of
from control.daemon.warrant import Grants, Warrant, warrant_leaf, warrant_signature
from control.errors import Refusal, SetupError
from control.reason import ABOUT, Reason
from control.secret import Secret
from control.signer import SIGNERS
from control.signer.model import BODY_HASH_WANTED, Request

WAITING_MOST = 4096
"""Requests that may wait for an exchange at once (docs/limits.md)."""
BUNDLE_MOST = m.MAX_MESSAGE - 1024
"""Bytes of one identity's CAs: about a thousand bindings."""
_SPEAKER = "keys"


class KeysSetup(msgspec.Struct, frozen=True):
    """What the supervisor tells; other fields of the common part are none of ours."""

    keys_listener: int
    keys_dir: str
    """0700, owned by the keys process."""
    beat_fd: int
    uids: dict[str, int]
    """Role to uid: ``agent`` (0 when not named), ``keys``, ``exchange``, ``proxy``."""
    trust_domain: str
    issuer_url: str
    stale_s: float = 2.0
    """Seconds without a beat of the agent after which nothing is signed."""
    wait_s: float = WAIT_S
    """Longest wait of one request for a credential."""
    seal_fd: int = -1
    """The sealing key, as control/daemon/seal_io.py handed it out; -1 when nothing is sealed."""


class Keys:
    """The process: channels, rules, grants, authorities, leases."""

    def __init__(self, setup: KeysSetup, store: Store) -> None:
        self._setup = setup
        self._issuer = store.issuer()
        self._authorities = Authorities(store, store.authorities(time.time()))
        self._roles = {"agent": 0, **{r: u for r, u in setup.uids.items() if r in ("agent", "proxy", "exchange")}}
        self._staging, self._rules, self._grants = Staging(), empty(), Grants()
        self._agent: Channel | None = None
        self._last_beat = float("-inf")
        self._leases = Leases(
            setup.issuer_url, self._issuer, alive=self._alive, show=self._tell_agent, agent=lambda: self._agent, wait_s=setup.wait_s,
        )  # fmt: skip
        self._waiting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until killed; ends when the supervisor's pipe is gone."""
        loop = asyncio.get_running_loop()
        listener = socket.socket(fileno=self._setup.keys_listener)
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept, listener)
        log(_SPEAKER, "keys-ready", issuer_kids=[key.kid for key in self._issuer])
        try:
            await beat(self._setup.beat_fd)
        except BrokenPipeError:
            log(_SPEAKER, "supervisor-gone")

    # -- who calls

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        greet(
            asyncio.get_running_loop(), sock, roles=self._roles, on_greeted=self._greeted,
            on_stranger=lambda why: log(_SPEAKER, "stranger-refused", why=why),
        )  # fmt: skip

    def _greeted(self, sock: socket.socket, role: str) -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(loop, sock, peer=role, own="keys", on_message=self._heard, on_closed=self._closed)
        channel.send(m.Greeted("keys"))
        if role == "agent":
            if self._agent is not None:
                self._agent.close("replaced by a new agent")
            self._agent, self._last_beat = channel, float("-inf")
            self._leases.tell_all()
        elif role == "exchange":
            self._leases.exchange_came(channel)

    def _closed(self, channel: Channel, why: str) -> None:
        log(_SPEAKER, "channel-closed", peer=channel.peer, worker=channel.worker, why=why)
        if channel is self._agent:
            self._agent, self._last_beat = None, float("-inf")
            self._grants.clear()
            self._staging = Staging()
        elif channel.peer == "exchange":
            self._leases.exchange_went(channel)

    def _alive(self) -> bool:
        return self._agent is not None and time.monotonic() - self._last_beat <= self._setup.stale_s

    # -- what is said

    def _heard(self, channel: Channel, message: Any, fds: list[int]) -> None:
        for fd in fds:  # nobody has a reason to hand us a descriptor
            os.close(fd)
        match message:
            case m.SignatureWanted():
                self._signature_wanted(channel, message)
            case m.LeafWanted():
                self._leaf_wanted(channel, message)
            case m.Beat():
                self._last_beat = time.monotonic()
            case m.GrantIssued():
                self._grants.issued(message)
                channel.send(m.GrantTaken(message.grant))
            case m.GrantWithdrawn():
                self._grants.withdrawn(message.grant, message.reason)
            case m.LeaseDropped():
                self._leases.dropped(message.source, message.identity)
            case m.BundleWanted():
                self._spawn(self._bundle_wanted(channel, message))
            case m.IssuerWanted():
                channel.send(m.IssuerShown(message.call, jwks(self._issuer)))
            case m.PolicyBegan() | m.PolicyIdentity() | m.PolicySource() | m.PolicyBinding() | m.PolicyCommitted():
                self._policy(message)
            case _:
                pass  # a late answer to a flight that was given up

    def _policy(self, message: m.Message) -> None:
        fresh = self._staging.took(message)
        if fresh is None:
            return
        before, self._rules = self._rules, fresh
        self._grants.swapped(before, fresh)
        self._leases.swapped(fresh)
        log(_SPEAKER, "rules-swapped", revision=fresh.revision, bindings=len(fresh.bindings), grants=len(self._grants))

    async def _bundle_wanted(self, channel: Channel, wanted: m.BundleWanted) -> None:
        """
        Give the CAs of every binding of the identity, in whatever mode: a binding that is switched on later is trusted already.

        A new CA takes a key and two syncs of the disk, so the loop has its turn after each: the supervisor must go on hearing us.
        """
        if wanted.identity not in self._rules.identities:
            detail = f'no identity "{wanted.identity}" is in force'
            channel.send(m.Refused(wanted.call, new_id(), Reason.IDENTITY_NONE, detail, ABOUT[Reason.IDENTITY_NONE].hint))
            return
        now = time.time()
        pem = bytearray()
        for binding in sorted(self._rules.bindings.values(), key=lambda b: b.name):
            if binding.identity == wanted.identity:
                for authority in self._authorities.bundle(binding.name, names_of(binding), now):
                    pem += authority.pem()
                await asyncio.sleep(0)
        if len(pem) > BUNDLE_MOST:
            detail = f'the CAs of identity "{wanted.identity}" take {len(pem)} bytes, more than a message of {BUNDLE_MOST}'
            hint = "give its bindings to several identities, or join bindings that differ in their hosts only"
            channel.send(m.Refused(wanted.call, new_id(), Reason.QUOTA_EXCEEDED, detail, hint))
            return
        channel.send(m.BundleMade(wanted.call, bytes(pem)))

    # -- what a proxy wants

    def _leaf_wanted(self, channel: Channel, wanted: m.LeafWanted) -> None:
        found = warrant_leaf(self._rules, self._grants, wanted) if self._alive() else Refusal(Reason.DAEMON_DOWN)
        if isinstance(found, Refusal):
            self._refuse(channel, wanted.call, found, event="leaf-refused", grant=wanted.grant, binding=wanted.binding, host=wanted.name)
            return
        now = time.time()
        authority = self._authorities.signing(found.binding.name, names_of(found.binding), wanted.name, now)
        minted = (
            ca.leaf(authority, wanted.name, wanted.public_key_der, now=now, serial=make_io.serial())
            if authority is not None
            else Refusal(Reason.KEYS_UNAVAILABLE, f'binding "{found.binding.name}" has no CA for "{wanted.name}"')
        )
        if isinstance(minted, Refusal):
            self._refuse(channel, wanted.call, minted, event="leaf-refused", grant=wanted.grant, binding=wanted.binding, host=wanted.name)
            return
        pem, expires_at = minted
        self._audit(
            "leaf-minted", Reason.GRANTED, grant=wanted.grant, identity=found.identity.name, binding=wanted.binding, host=wanted.name
        )
        channel.send(m.LeafMinted(wanted.call, pem, expires_at))

    def _signature_wanted(self, channel: Channel, wanted: m.SignatureWanted) -> None:
        found = self._warrant_signature(wanted)
        if isinstance(found, Refusal):
            self._refuse_signature(channel, wanted, found)
            return
        answer = self._leases.ask(found.source, found.identity, _stale_s(found.binding))
        if not answer.flying or (answer.refusal is not None and found.binding.on_lease_failure == "passthrough"):
            self._sign(channel, wanted, found, answer)
        elif len(self._waiting) >= WAITING_MOST:
            self._refuse_signature(channel, wanted, Refusal(Reason.QUOTA_EXCEEDED, "too many requests wait for the exchange"))
        else:
            task = asyncio.create_task(self._sign_later(channel, wanted, found))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sign_later(self, channel: Channel, wanted: m.SignatureWanted, found: Warrant) -> None:
        """Wait for the exchange, then decide again: grant, rules and agent may have gone meanwhile."""
        answer = await self._leases.wait(found.source, found.identity, _stale_s(found.binding))
        again = self._warrant_signature(wanted)
        if isinstance(again, Refusal):
            self._refuse_signature(channel, wanted, again)
        elif not same_source(again.source, found.source) or again.identity != found.identity:
            self._refuse_signature(channel, wanted, Refusal(Reason.REVISION_OLD))
        else:
            self._sign(channel, wanted, again, answer)

    def _warrant_signature(self, wanted: m.SignatureWanted) -> Warrant | Refusal:
        return warrant_signature(self._rules, self._grants, wanted) if self._alive() else Refusal(Reason.DAEMON_DOWN)

    def _sign(self, channel: Channel, wanted: m.SignatureWanted, found: Warrant, answer: Answer) -> None:
        """Sign in the loop: 0.5 ms of RSA is less than a thread's hand-over costs, and a beat waits for one request at most."""
        issue, why = answer.issue, answer.refusal or Refusal(Reason.LEASE_UNAVAILABLE)
        if issue is None:
            if found.binding.on_lease_failure == "passthrough":
                self._audit("request-passed", why.reason, detail=why.detail, **self._of_request(wanted, found))
                channel.send(m.RequestSigned(wanted.call, (), (), passed=True))
            else:
                self._refuse_signature(channel, wanted, why)
            return
        request = Request(wanted.asked.method, wanted.target, wanted.headers)
        signed = SIGNERS[kind_of_signer(found.binding.signer)](request, issue, time.time(), found.binding.signer)
        if isinstance(signed, Refusal):
            self._refuse_signature(channel, wanted, signed)
            return
        detail = f"stale, its end was at {issue.wall_expires_at:.0f}: {why.detail or why.reason}" if answer.stale else ""
        self._audit("request-signed", Reason.GRANTED, issue=issue.number, detail=detail, **self._of_request(wanted, found))
        channel.send(m.RequestSigned(wanted.call, signed.remove, signed.set, signed.body_sha256, signed.target))

    def _of_request(self, wanted: m.SignatureWanted, found: Warrant) -> dict[str, Any]:
        """What the audit says of a request that was warranted."""
        asked = wanted.asked
        return {
            "grant": wanted.grant, "identity": found.identity.name, "binding": found.binding.name, "source": found.source.name,
            "pid": found.grant.process.tgid, "method": asked.method, "host": asked.host, "port": asked.port, "path": asked.path,
            "revision": self._rules.revision,
        }  # fmt: skip

    def _refuse_signature(self, channel: Channel, wanted: m.SignatureWanted, why: Refusal) -> None:
        asked = wanted.asked
        self._refuse(
            channel, wanted.call, why, event="request-refused", grant=wanted.grant, binding=wanted.binding,
            method=asked.method, host=asked.host, port=asked.port, path=asked.path,
        )  # fmt: skip

    def _refuse(self, channel: Channel, call: int, why: Refusal, *, event: str, **fields: Any) -> None:
        about = ABOUT[why.reason]
        refused_id = new_id()
        if why.detail != BODY_HASH_WANTED:  # that one is a question, not an end
            self._audit(event, why.reason, id=refused_id, detail=why.detail or about.says, **fields)
        channel.send(m.Refused(call, refused_id, why.reason, why.detail or about.says, why.hint or about.hint))

    # -- what the agent hears

    def _audit(self, event: str, reason: Reason, **fields: Any) -> None:
        """Tell the agent, before the proxy gets its answer.  Hosts, paths and methods are a proxy's claims until they were warranted."""
        fields.setdefault("id", new_id())
        self._tell_agent(m.Audited(msgspec.to_builtins(Event(at=time.time(), event=event, reason=reason, speaker=_SPEAKER, **fields))))

    def _tell_agent(self, message: m.Message) -> None:
        if self._agent is not None:
            self._agent.send(message)


def _stale_s(binding: Binding) -> float:
    return float(binding.stale_s) if binding.on_lease_failure == "stale" else 0.0


def _seal_key(fd: int) -> Secret | None:
    """Take the sealing key; whoever starts after us is handed the same descriptor again, so ours is closed."""
    if fd < 0:
        return None
    try:
        return key_of(fd)
    finally:
        os.close(fd)


def run(setup: KeysSetup) -> int:
    """Serve as whoever we are; gives the exit code."""
    try:
        directory = os.open(setup.keys_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        store = Store(directory, _seal_key(setup.seal_fd))
        asyncio.run(Keys(setup, store).serve())
    except SetupError as error:
        log(_SPEAKER, "keys-doubtful", reason=error.reason, detail=error.message, hint=error.hint)
        return 1
    except OSError as error:
        log(_SPEAKER, "keys-unreachable", detail=f"{setup.keys_dir}: {error.strerror}")
        return 1
    return 0


def main() -> int:
    """Entry of the keys process: argv[1] is KeysSetup."""
    setup = msgspec.json.decode(sys.argv[1], type=KeysSetup)
    uid = setup.uids["keys"]
    scrub_environment()
    for line in confine("keys", uid, uid, writable=[Path(setup.keys_dir)], parent=os.getppid()):
        log(_SPEAKER, "not-here", what=line)
    return run(setup)


if __name__ == "__main__":
    sys.exit(main())
