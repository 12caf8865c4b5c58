"""
The running resource set: load it, keep the last good one, tell it to the others.

In: the resources directory, or the last good set under the state directory.  Out: what the kernel filters on, what keys and exchange hold,
bundles and public snapshots on disk.  A set is swapped whole or not at all; its revision only grows, also over restarts.
"""

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from bpf.abi import KernelFilter
from control.binding.compile_io import named, plan
from control.binding.load import Loaded
from control.binding.load_io import load_directory
from control.binding.model import OciSource, ResourceSet, Source
from control.daemon import message as m
from control.daemon.channel_io import Channel
from control.daemon.log_io import log
from control.daemon.running import EMPTY, Running
from control.errors import CredwireError, Place, ResourceError
from control.reason import Reason
from control.secret import Secret
from control.units import Revision
from control.whole_io import write_whole

SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
"""The distribution's bundle (ca-certificates); an identity's bundle is this, the private CAs of its destinations, and its bindings' CAs."""
ASK_S = 5.0
SET_MOST = m.MAX_MESSAGE - 4096
"""Bytes of one identity's bindings, so that each message that carries them fits."""


Marks = tuple[tuple[str, int, int, int], ...]
LOOK_AGAIN_S = 30.0
"""The CA files that documents name lie elsewhere and leave no mark in the directory."""


class Prepared(NamedTuple):
    """A set that was read, with what the kernel is to be told of it; or why it cannot run."""

    running: Running
    filters: list[KernelFilter]
    warnings: list[ResourceError]
    errors: list[ResourceError]
    """Not empty: the rest is not to be used."""


class OnDisk(NamedTuple):
    """What was found in the directory when it was last read."""

    marks: Marks | None
    digest: str
    at: float


class Policy:
    """Holds the set that runs."""

    def __init__(self, resources: Path, state: Path, trust_domain: str, excluded: tuple[str, ...]) -> None:
        self.resources, self.state, self.trust_domain, self.excluded = resources, state, trust_domain, excluded
        self.running = EMPTY
        self.faults: list[ResourceError] = []
        """Why the set on disk is not the one that runs; empty when it is."""
        self.warnings: list[ResourceError] = []
        self.keep_fault = ""
        """Why the running set could not be kept for the next start."""
        self.unread: dict[str, str] = {}
        """Source to the reason why its client secret could not be read when exchange was told last."""
        self._on_disk: OnDisk | None = None
        self._filters: list[KernelFilter] = []
        self._numbers: dict[str, int] = {}
        self._published: dict[str, bytes] = {}
        """Identity to the fingerprint under which its bundle was written."""
        self._kept: tuple[str, Revision] = ("", Revision(0))
        """Digest and revision of the last good set."""

    @property
    def current(self) -> ResourceSet:
        """The set in force."""
        return self.running.now

    # -- loading

    def load_first(self, off: Collection[str] = ()) -> None:
        """Load at start: the directory, or the last good set when the directory is broken."""
        last = self._last_good()
        if last is not None:
            self._kept = (last.digest, last.revision)
        fresh = self.prepare(self.read(), off)
        if not fresh.errors:
            self.use(fresh)
            self.keep()
            return
        self.faults = fresh.errors
        if last is not None:
            kept = self._prepared(last, [], off)
            self._take(kept.running, kept)

    def read(self) -> Loaded:
        """Load the directory; blocking for long where there are a thousand bindings, so the running agent calls it from a thread."""
        marks, now = _marks(self.resources), time.monotonic()
        loaded = load_directory(self.resources, self.trust_domain)
        self._on_disk = OnDisk(marks, loaded.found.digest if loaded.found is not None else "", now)
        return loaded

    def prepare(self, loaded: Loaded, off: Collection[str] = ()) -> Prepared:
        """Judge what was read and work out what follows from it; changes nothing, and is as blocking as ``read``."""
        if loaded.found is None:
            nothing = ResourceError(Reason.RESOURCE_MALFORMED, "the resources cannot be read", place=Place(str(self.resources), 1, 1))
            return Prepared(EMPTY, [], loaded.warnings, loaded.errors or [nothing])
        if unsendable := _unsendable(loaded.found):
            return Prepared(EMPTY, [], loaded.warnings, unsendable)
        return self._prepared(loaded.found, loaded.warnings, off)

    def switched(self, off: Collection[str]) -> Prepared:
        """Work out the running set with other bindings switched off; blocking."""
        return self._prepared(self.running.read, [w for w in self.warnings if w.place is not None], off)

    def use(self, fresh: Prepared, *, anew: bool = False) -> None:
        """Let a prepared set run, under the next number unless it is the last good one again; ``anew`` always takes the next."""
        digest, number = self._kept
        if anew or fresh.running.read.digest != digest or not number:
            number = Revision(max(self.current.revision, number) + 1)
        self.faults = []
        self._take(fresh.running.numbered(number), fresh)

    def refuse(self, errors: list[ResourceError]) -> None:
        """Remember why what lies on disk does not run."""
        self.faults = errors

    def before(self) -> Prepared:
        """Give what runs in the form that ``take_back`` takes."""
        return Prepared(self.running, self._filters, self.warnings, [])

    def take_back(self, former: Prepared, why: ResourceError) -> None:
        """Return to the set that ran before, number included."""
        self._take(former.running, former)
        self.faults = [why]

    def digest_on_disk(self) -> str:
        """Digest of what lies on disk now; empty when it does not load.  Blocking; parses only when a file changed, or now and then."""
        marks = _marks(self.resources)
        kept, now = self._on_disk, time.monotonic()
        if kept is not None and marks is not None and kept.marks == marks and now - kept.at < LOOK_AGAIN_S:
            return kept.digest
        loaded = self.read()
        return loaded.found.digest if loaded.found is not None else ""

    def _prepared(self, found: ResourceSet, warnings: list[ResourceError], off: Collection[str]) -> Prepared:
        running = Running(named(found), off)
        plans, more = plan(running.now)
        filters = [KernelFilter(p.exe, p.uid, p.script, direct_when_down=p.direct_when_down, observe=p.observe) for p in plans]
        return Prepared(running, filters, [*warnings, *more], [])

    def _take(self, running: Running, fresh: Prepared) -> None:
        self.running, self._filters, self.warnings = running, fresh.filters, list(fresh.warnings)
        for identity in running.now.identities:  # a number, once given, stays: the kernel's table may still hold it
            if identity.name not in self._numbers:
                self._numbers[identity.name] = _number(identity.name, self._numbers.values())

    def keep(self) -> None:
        """Keep the running set for a start with broken files; blocking, and a full disk makes it a line in status."""
        kept = self.running.read
        target = self.state / "last-good.json"
        try:
            write_whole(target, msgspec.json.encode(kept))
        except OSError as error:
            self.keep_fault = f"the running set could not be kept in {target}: {error.strerror}"
            return
        self.keep_fault = ""
        self._kept = (kept.digest, kept.revision)

    def _last_good(self) -> ResourceSet | None:
        try:
            return msgspec.json.decode((self.state / "last-good.json").read_bytes(), type=ResourceSet)
        except (OSError, msgspec.DecodeError):
            return None

    # -- what the kernel and the agent ask

    def filters(self) -> list[KernelFilter]:
        """What the kernel filters processes by."""
        return self._filters

    def identity_number(self, name: str) -> int:
        """Number of an identity in the kernel's table; from 1, and the same after a restart."""
        return self._numbers[name]

    # -- telling the others

    def tell_keys(self, keys: Channel) -> None:
        """Give keys the whole set."""
        revision = int(self.current.revision)
        keys.send(m.PolicyBegan(revision))
        for identity in self.current.identities:
            keys.send(m.PolicyIdentity(identity))
        for source in self.current.sources:
            keys.send(m.PolicySource(source))
        for binding in self.current.bindings:
            keys.send(m.PolicyBinding(binding))
        keys.send(m.PolicyCommitted(revision))

    async def tell_exchange(self, exchange: Channel, secret_of: Callable[[Source], Secret]) -> None:
        """
        Give exchange the sources that it asks for us, each with its client secret where one is stored.

        ``secret_of`` reads one, in a thread, and raises SetupError.
        """
        while True:
            told = self.current
            secrets, unread = await asyncio.to_thread(_secrets, told, secret_of)
            if told is self.current:
                break  # no other set came while we read
        self.unread = unread
        revision = int(told.revision)
        exchange.send(m.PolicyBegan(revision))
        for source in told.sources:
            if isinstance(source.of, OciSource):  # keys asks for the others when they are needed; exchange has no part in them
                exchange.send(m.PolicySource(source, secrets.get(source.name)))
        exchange.send(m.PolicyCommitted(revision))

    async def publish(self, keys: Channel, run: Path, issuer_url: str, *, everything: bool) -> None:
        """
        Write the CA bundle of each identity, or of each that changed since, and the issuer's public documents.

        The bundle of an identity that is gone stays for programs that were started with it; ``in-force`` says which count.
        """
        roots = await asyncio.to_thread(_system_roots)
        directory = self.state / "ca"
        directory.mkdir(mode=0o755, exist_ok=True)
        running = self.running
        for gone in self._published.keys() - running.identities.keys():
            del self._published[gone]
        for name in running.identities:
            if not everything and self._published.get(name) == running.fingerprint(name):
                continue
            made = await keys.ask(lambda call, name=name: m.BundleWanted(call, name), ASK_S)  # type: ignore[misc]
            if isinstance(made, m.BundleMade):
                write_public(directory / f"{name}.pem", roots + _upstream_roots(running, name) + made.pem)
                self._published[name] = running.fingerprint(name)
            elif isinstance(made, m.Refused):
                log("agent", "bundle-refused", identity=name, reason=made.reason, detail=made.detail, hint=made.hint)
        write_public(directory / "in-force", "".join(f"{name}\n" for name in sorted(running.identities)).encode())
        shown = await keys.ask(m.IssuerWanted, ASK_S)
        if isinstance(shown, m.IssuerShown) and issuer_url:
            public = run / "public"
            public.mkdir(mode=0o755, exist_ok=True)
            write_public(public / "jwks", shown.jwks)
            write_public(public / "openid-configuration", json.dumps(discovery(issuer_url)).encode())


def _number(name: str, taken: Collection[int]) -> int:
    """
    Give an identity a number that no other has, and the same one whenever it is alone with it.

    The kernel's table outlives the agent and so do its numbers: counted ones would give an entry of the former set to whoever is first in
    the next one.
    """
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    while not number or number in taken:
        number = (number + 1) & 0xFFFFFFFF
    return number


def _marks(directory: Path) -> Marks | None:
    """Name, inode, size and change time of the directory and each file: equal marks mean that nothing was written.  None: no directory."""
    try:
        found = [(path.name, path.stat()) for path in (directory, *sorted(directory.iterdir()))]
    except OSError:
        return None
    return tuple((name, made.st_ino, made.st_size, made.st_ctime_ns) for name, made in found)


def discovery(issuer_url: str) -> dict[str, object]:
    """OpenID Connect discovery document of the issuer: the fields that token services read (OpenID Connect Discovery 1.0, section 3)."""
    return {
        "issuer": issuer_url,
        "jwks_uri": issuer_url.rstrip("/") + "/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
    }


def write_public(target: Path, content: bytes) -> None:
    """Replace a world-readable file as a whole."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(0o644)
    fresh.rename(target)


def _system_roots() -> bytes:
    return SYSTEM_ROOTS.read_bytes() if SYSTEM_ROOTS.exists() else b""


def _upstream_roots(running: Running, identity: str) -> bytes:
    """
    Give the private CAs behind the bindings of an identity, each file once.

    Its clients need them wherever they meet the service itself: while everything is off, in mode observe, on a daemon that is down with
    ``onDaemonDown: direct`` (docs/decisions/0014).
    """
    texts = dict.fromkeys(d.upstream_roots for b in running.of(identity) for d in b.destinations if d.upstream_roots)
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts).encode()


def _secrets(told: ResourceSet, secret_of: Callable[[Source], Secret]) -> tuple[dict[str, Secret], dict[str, str]]:
    """Read the client secret of each source: those that could be read, and for the others why not."""
    found, unread = {}, {}
    for source in told.sources:
        if not isinstance(source.of, OciSource) or not source.of.client_secret_file:
            continue  # an instance authenticates itself: nothing is stored
        try:
            found[source.name] = secret_of(source)
        except CredwireError as error:
            unread[source.name] = str(error)
    return found, unread


def _unsendable(found: ResourceSet) -> list[ResourceError]:
    """Name each identity whose destinations do not fit into the one message that tells a proxy of them; their roots are what is large."""
    by_identity: dict[str, int] = defaultdict(int)
    for binding in found.bindings:
        by_identity[binding.identity] += len(m.encode(m.PolicyBinding(binding)))
    return [
        ResourceError(
            Reason.RESOURCE_OVERBROAD,
            f'identity "{name}": its bindings take {size} bytes with their upstreamRoots, more than the {SET_MOST} that one message holds',
            hint="name upstreamRoots files that hold only the roots which are needed",
        )
        for name, size in sorted(by_identity.items())
        if size > SET_MOST
    ]
