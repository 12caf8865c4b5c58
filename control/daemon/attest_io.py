"""
Attest a process once per program it runs, and tell the kernel what came out.

In: the kernel's record of a connection (process key, uid, exec'd script).  Out: Facts with an Identity, or a Refusal.
The order closes the race (docs/decisions/0002): the key comes from the kernel, facts are read in between, and ``Kernel.settle`` only takes
the verdict if the process still runs the same program.
Verdicts are kept per process key and revision: an exec makes a new key, a reload a new revision, so nothing here can go stale.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from control.errors import Refusal
from control.facts.gather_io import Namespaces, gather
from control.facts.model import Facts, ProcessKey
from control.identity.match import identify, wanted
from control.identity.model import Identity
from control.reason import Reason
from control.units import Gid, Revision, Uid

MAX_KEPT = 8192
"""Verdicts kept; the oldest goes first and is simply attested again."""
ATTEST_S = 2.0
"""Longest attestation; hashing a large executable for the first time is what takes long."""


_Asked = tuple[ProcessKey, int, int, Revision]


class Verdict(msgspec.Struct, frozen=True):
    """What attestation gave: facts when the process could be read, an identity or the reason why none."""

    facts: Facts | None
    identity: Identity | None
    refusal: Refusal | None


class Attestor:
    """Attests processes for one running set at a time."""

    def __init__(self, settle: Callable[[ProcessKey, Identity | Refusal], bool]) -> None:
        """``settle`` tells the kernel table; False means that the process has moved on."""
        self._settle = settle
        self._home = Namespaces.own()
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="attest")
        self._kept: OrderedDict[_Asked, Verdict] = OrderedDict()
        self._flights: dict[_Asked, asyncio.Future[Verdict]] = {}
        self.identities: tuple[Identity, ...] = ()
        self.revision = Revision(0)
        self._wanted: dict[str, frozenset[str]] = {}

    def use(self, identities: tuple[Identity, ...], revision: Revision) -> None:
        """Attest against this set from now on."""
        self.identities, self.revision = identities, revision
        self._wanted = wanted(identities)
        self._kept.clear()

    def read(self, key: ProcessKey, uid: int, gid: int, script: str | None) -> Facts | Refusal:
        """Read the facts of one process now; blocking, also what ``explain`` uses."""
        return gather(
            key,
            uid=Uid(uid),
            gid=Gid(gid),
            script=script,
            want_digest="unix:exe:sha256" in self._wanted,
            home=self._home,
            want_packages=self._wanted.get("unix:exe:package", frozenset()),
            want_script_digest="script:sha256" in self._wanted,
        )

    async def attest(self, key: ProcessKey, uid: int, gid: int, script: str | None) -> Verdict:
        """Give the verdict on a process, kept where there is one; uid and gid are part of the question: setuid without exec."""
        asked = (key, uid, gid, self.revision)
        kept = self._kept.get(asked)
        if kept is not None:
            return kept
        flight = self._flights.get(asked)
        if flight is None:
            flight = asyncio.ensure_future(self._fly(asked, script))
            self._flights[asked] = flight
            flight.add_done_callback(lambda _: self._flights.pop(asked, None))
        try:
            return await asyncio.wait_for(asyncio.shield(flight), ATTEST_S)
        except TimeoutError:
            return Verdict(None, None, Refusal(Reason.ATTESTATION_TIMEOUT))

    async def _fly(self, asked: _Asked, script: str | None) -> Verdict:
        key, uid, gid, revision = asked
        facts = await asyncio.get_running_loop().run_in_executor(self._pool, self.read, key, uid, gid, script)
        if isinstance(facts, Refusal):
            return Verdict(None, None, facts)
        found = identify(facts, self.identities)
        identity = found if isinstance(found, Identity) else None
        if not self._settle(key, found):
            return Verdict(facts, None, Refusal(Reason.PROCESS_CHANGED, f"process {key.tgid} ran another program while it was attested"))
        verdict = Verdict(facts, identity, None if isinstance(found, Identity) else found)
        if revision == self.revision:
            self._kept[asked] = verdict
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return verdict
