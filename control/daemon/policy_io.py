"""
The running resource set: load it, keep the last good one, tell it to the others.

In: the resources directory, or the last good set under the state directory.  Out: what the kernel filters on, what keys and exchange hold,
bundles and public snapshots on disk.  A set is swapped whole or not at all; its revision only grows, also over restarts.
"""

import errno
import hashlib
import json
import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from bpf.abi import KernelFilter
from control.binding.compile_io import plan
from control.binding.load import Loaded
from control.binding.load_io import load_directory
from control.binding.model import Binding, Destination, OciSource, ResourceSet, Source
from control.daemon import message as m
from control.daemon.channel_io import Channel
from control.daemon.log_io import log
from control.secret import Secret
from control.units import Revision

SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
"""The distribution's bundle (ca-certificates); an identity's bundle is this plus its bindings' CAs."""
ASK_S = 5.0
SECRET_MOST = 64 << 10
"""Bytes of a client secret."""
SET_MOST = m.MAX_MESSAGE - 4096
"""Bytes of one identity's bindings, so that each message that carries them fits."""
EMPTY = ResourceSet(Revision(0), "", (), (), (), {})


Marks = tuple[tuple[str, int, int, int], ...]
LOOK_AGAIN_S = 30.0
"""The CA files that documents name lie elsewhere and leave no mark in the directory."""


class OnDisk(NamedTuple):
    """What was found in the directory when it was last read."""

    marks: Marks | None
    digest: str
    at: float


class Policy:
    """Holds the set that runs."""

    def __init__(self, resources: Path, state: Path, trust_domain: str, excluded: tuple[str, ...]) -> None:
        self.resources, self.state, self.trust_domain, self.excluded = resources, state, trust_domain, excluded
        self.current = EMPTY
        self.faults: list[str] = []
        """Why the set on disk is not the one that runs; empty when it is."""
        self.warnings: list[str] = []
        self._on_disk: OnDisk | None = None
        self._filters: list[KernelFilter] = []
        self._destinations: dict[str, tuple[tuple[str, Destination], ...]] = {}
        self._bindings: dict[str, list[Binding]] = {}
        self._numbers: dict[str, int] = {}

    # -- loading

    def load_first(self) -> None:
        """Load at start: the directory, or the last good set when the directory is broken."""
        if self.take(self.read()) and (last := self._last_good()) is not None:
            self._use(last)

    def read(self) -> Loaded:
        """Load the directory; blocking for seconds where there are a thousand bindings, so the running agent calls it from a thread."""
        return load_directory(self.resources, self.trust_domain)

    def take(self, loaded: Loaded) -> list[str]:
        """Use what was read; on any error keep what runs and give the errors as lines."""
        if loaded.found is None:
            self.faults = [str(error) for error in loaded.errors] or ["the resources cannot be read"]
            return self.faults
        if unsendable := _unsendable(loaded.found):
            self.faults = unsendable
            return self.faults
        self.faults, self.warnings = [], [str(warning) for warning in loaded.warnings]
        last = self._last_good()
        if last is not None and last.digest == loaded.found.digest:
            number = last.revision
        else:
            number = Revision(max(self.current.revision, last.revision if last else 0) + 1)
        self._use(msgspec.structs.replace(loaded.found, revision=number))
        self._keep()
        return []

    def take_back(self, former: ResourceSet, why: str) -> list[str]:
        """Return to the set that ran before; gives ``why`` as the one fault."""
        self._use(former)
        self._keep()
        self.faults = [why]
        return self.faults

    def digest_on_disk(self) -> str:
        """Digest of what lies on disk now; empty when it does not load.  Blocking; parses only when a file changed, or now and then."""
        marks = _marks(self.resources)
        kept, now = self._on_disk, time.monotonic()
        if kept is not None and marks is not None and kept.marks == marks and now - kept.at < LOOK_AGAIN_S:
            return kept.digest
        found, _, _ = load_directory(self.resources, self.trust_domain)
        self._on_disk = OnDisk(marks, found.digest if found is not None else "", now)
        return self._on_disk.digest

    def _use(self, fresh: ResourceSet) -> None:
        self.current = fresh
        by_identity: dict[str, list[tuple[str, Destination]]] = defaultdict(list)
        bindings: dict[str, list[Binding]] = defaultdict(list)
        for binding in fresh.bindings:
            bindings[binding.identity].append(binding)
            if binding.mode == "enforce":
                by_identity[binding.identity] += [(binding.name, destination) for destination in binding.destinations]
        self._destinations = {name: tuple(rows) for name, rows in by_identity.items()}
        self._bindings = dict(bindings)
        for identity in fresh.identities:  # a number, once given, stays: the kernel's table may still hold it
            if identity.name not in self._numbers:
                self._numbers[identity.name] = _number(identity.name, self._numbers.values())
        plans, warnings = plan(fresh)
        self.warnings += [str(warning) for warning in warnings]
        self._filters = [KernelFilter(exe=p.exe, uid=p.uid, script=p.script, direct_when_down=p.direct_when_down) for p in plans]

    def _keep(self) -> None:
        target = self.state / "last-good.json"
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(self.current))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(target)

    def _last_good(self) -> ResourceSet | None:
        try:
            return msgspec.json.decode((self.state / "last-good.json").read_bytes(), type=ResourceSet)
        except (OSError, msgspec.DecodeError):
            return None

    # -- what the kernel and the agent ask

    def filters(self) -> list[KernelFilter]:
        """What the kernel filters processes by."""
        return self._filters

    def ports(self) -> set[int]:
        """Every port that some binding names."""
        return {port for binding in self.current.bindings for d in binding.destinations for port in d.ports}

    def destinations(self, identity: str) -> tuple[tuple[str, Destination], ...]:
        """(binding, destination) of every enforced binding of the identity."""
        return self._destinations.get(identity, ())

    def bindings(self, identity: str) -> list[Binding]:
        """Bindings of one identity, in any mode."""
        return self._bindings.get(identity, [])

    def identity_number(self, name: str) -> int:
        """Number of an identity in the kernel's table; from 1, and the same after a restart."""
        return self._numbers[name]

    def source(self, name: str) -> Source | None:
        """Find a source by name."""
        return next((s for s in self.current.sources if s.name == name), None)

    def fingerprint(self, identity: str) -> bytes:
        """Everything that a grant of this identity depends on; equal before and after a reload means it may live on."""
        mine = self._bindings.get(identity, [])
        sources = [self.source(b.source) for b in mine]
        of_itself = [i for i in self.current.identities if i.name == identity]
        return msgspec.json.encode([of_itself, mine, sources])

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

    def tell_exchange(self, exchange: Channel) -> None:
        """Give exchange the sources, each with its client secret."""
        revision = int(self.current.revision)
        exchange.send(m.PolicyBegan(revision))
        for source in self.current.sources:
            secret, of = None, source.of
            if not isinstance(of, OciSource):
                continue  # keys asks for it when it is needed; exchange has no part in it
            try:
                secret = _secret(Path(of.client_secret_file))
            except OSError as error:
                warning = f'source "{source.name}": client secret file {of.client_secret_file}: {error.strerror}'
                if warning not in self.warnings:
                    self.warnings.append(warning)
            exchange.send(m.PolicySource(source, secret))
        exchange.send(m.PolicyCommitted(revision))

    async def publish(self, keys: Channel, run: Path, issuer_url: str) -> None:
        """Write the CA bundle of each identity and the issuer's public documents."""
        roots = SYSTEM_ROOTS.read_bytes() if SYSTEM_ROOTS.exists() else b""
        directory = self.state / "ca"
        directory.mkdir(mode=0o755, exist_ok=True)
        for identity in self.current.identities:
            made = await keys.ask(lambda call, name=identity.name: m.BundleWanted(call, name), ASK_S)  # type: ignore[misc]
            if isinstance(made, m.BundleMade):
                write_public(directory / f"{identity.name}.pem", roots + made.pem)
            elif isinstance(made, m.Refused):
                log("agent", "bundle-refused", identity=identity.name, reason=made.reason, detail=made.detail, hint=made.hint)
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


def _unsendable(found: ResourceSet) -> list[str]:
    """Name each identity whose destinations do not fit into the one message that tells a proxy of them; their roots are what is large."""
    by_identity: dict[str, int] = defaultdict(int)
    for binding in found.bindings:
        by_identity[binding.identity] += len(m.encode(m.PolicyBinding(binding)))
    return [
        f'identity "{name}": its bindings take {size} bytes with their upstreamRoots, more than the {SET_MOST} that one message holds; '
        "name files that hold only the roots which are needed"
        for name, size in sorted(by_identity.items())
        if size > SET_MOST
    ]


def _secret(path: Path) -> Secret:
    """Read a client secret.  Raises OSError also for what is no plain file (a pipe would hold the agent) or is too large."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        raw = os.read(fd, SECRET_MOST + 1)
    finally:
        os.close(fd)
    if len(raw) > SECRET_MOST:
        raise OSError(errno.EFBIG, f"larger than {SECRET_MOST} bytes")
    return Secret(raw.strip())
