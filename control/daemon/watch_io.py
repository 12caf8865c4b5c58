"""
Look at files that the running set names and that nobody tells us about: pinned executables, secrets.

In: the running set.  Out: lines for status; an audit event for each file that became another than the one that is pinned.
Every minute, at start and after each change; nothing is read while what stat(2) says stays the same.
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from control.api.view import HealthLine
from control.audit.event import Event
from control.binding.drift import Drift, pins
from control.binding.drift_io import drifted
from control.binding.model import OciSource, ResourceSet
from control.daemon.id_io import new_id
from control.daemon.secret_io import Vault
from control.errors import SetupError

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent

EVERY_S = 60.0

_Mark = tuple[str, int, int, int, int, int]


class Watch:
    """What was seen of the files."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._soon = asyncio.Event()
        self._seen: tuple[object, ...] = ()
        """Marks of the files at the last look, and the set they were of."""
        self._told: frozenset[tuple[str, str, str]] = frozenset()
        """(identity, path, digest found) of each drift that is in the audit already."""
        self.drifts: tuple[Drift, ...] = ()
        self.secrets: tuple[HealthLine, ...] = ()

    def look_soon(self) -> None:
        """The set changed."""
        self._soon.set()

    async def keep_looking(self) -> None:
        """Look now and then, for ever."""
        while True:
            await self.look()
            try:
                await asyncio.wait_for(self._soon.wait(), EVERY_S)
            except TimeoutError:
                pass
            self._soon.clear()

    async def look(self) -> None:
        """Look once."""
        current = self._agent.policy.current
        seen = (current.digest, await asyncio.to_thread(_marks, _files(current, self._agent.vault)))
        if seen == self._seen:
            return
        self.drifts = await asyncio.to_thread(drifted, current)
        judged = await asyncio.to_thread(self._agent.vault.judge, current.sources)
        self.secrets = tuple(HealthLine("red" if j.refused else "warn", j.says, j.hint) for j in judged)
        self._seen = seen
        names = frozenset((d.identity, d.path, d.found) for d in self.drifts)
        for drift in self.drifts:
            if (drift.identity, drift.path, drift.found) not in self._told:
                event = Event(id=new_id(), event="digest-drifted", identity=drift.identity, exe=drift.path, detail=str(drift))
                self._agent.audit(event)
        self._told = names

    def lines(self) -> list[HealthLine]:
        """Lines for status."""
        hint = "if it was upgraded: credwire identity refresh-digest --diff; if nobody did: find out who changed the file"
        return [HealthLine("red", str(drift), hint) for drift in self.drifts] + list(self.secrets)


def _files(current: ResourceSet, vault: Vault) -> list[Path]:
    """Every file whose change may matter: paths beside a pinned digest, and stored secrets."""
    found = {Path(path) for pin in pins(current.identities) for path in pin.paths}
    for source in current.sources:
        if isinstance(source.of, OciSource) and not source.of.client_secret_file:
            continue
        try:
            found.add(vault.place(source))
        except SetupError:
            continue
    return sorted(found)


def _marks(paths: Iterable[Path]) -> tuple[_Mark, ...]:
    marks: list[_Mark] = []
    for path in paths:
        try:
            at = os.stat(path)  # noqa: PTH116  # many, each minute
        except OSError:
            marks.append((str(path), 0, 0, 0, 0, 0))
        else:
            marks.append((str(path), at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return tuple(marks)
