"""
What is switched off, as the running agent sees it.

In: the kernel's switch, which tools throw without asking us; ``off.json`` and ``off-bindings.json`` under the state directory; notes that
tools left for the audit.  Out: withdrawn grants, lines in the audit, OffView for status.
Looked at with every beat: who throws the switch waits for us no longer than that (control/daemon/switch_io.py).
"""

import asyncio
import fcntl
import struct
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bpf.switch_io import FOREVER
from control.api.view import OffView
from control.audit.event import Event
from control.daemon import switch_io
from control.daemon.channel_io import Channel
from control.daemon.id_io import new_id
from control.daemon.log_io import log
from control.daemon.switch_io import Note, Off
from control.reason import Reason
from control.whole_io import write_whole

if TYPE_CHECKING:
    from control.daemon.agent_io import Agent

PATIENCE_S = 5.0
WITHDRAWN_S = 0.5
AGAIN_S = 0.01
"""While proxies have not read yet what was withdrawn."""


class Switched:
    """The switches of one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._state = agent.state
        self.everything: Off | None = None
        self.bindings: dict[str, Off] = {}
        self.fault = ""
        """Why the switches of single bindings are not known; for status."""
        self._looking_again = False
        self._ask_again: dict[str, float] = {}
        self._stuck: set[Path] = set()
        """Notes that were written down and could not be removed."""

    def begin(self) -> None:
        """Put into force what was remembered, before anything is held: neither a reboot nor new programs switch on what is to be off."""
        try:
            raw = (self._state / "off-bindings.json").read_bytes()
            self.bindings = msgspec.json.decode(raw, type=dict[str, Off])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log("agent", "off-unreadable", file="off-bindings.json", why=str(error))
            self.fault = f"{self._state}/off-bindings.json cannot be read: bindings that were switched off one by one are on"
        wanted = switch_io.remembered(self._state)
        if wanted is not None and not self._agent.kernel.switch().off:
            self._agent.kernel.turn_off(wanted.until - time.time() if wanted.until else None)
        self.look()

    def names(self) -> frozenset[str]:
        """Bindings that are switched off one by one."""
        return frozenset(self.bindings)

    def over(self) -> list[str]:
        """Bindings whose time is over, each named once in a while: switching takes longer than a beat, and may fail on a full disk."""
        now = time.time()
        over = [name for name, off in self.bindings.items() if off.over(now) and now >= self._ask_again.get(name, 0.0)]
        self._ask_again = {name: at for name, at in self._ask_again.items() if name in self.bindings} | dict.fromkeys(
            over, now + PATIENCE_S
        )
        return over

    def keep_bindings(self, bindings: dict[str, Off]) -> None:
        """Remember which bindings are off.  Raises OSError, and then nothing has changed."""
        write_whole(self._state / "off-bindings.json", msgspec.json.encode(bindings))
        self.bindings = bindings
        self.fault = ""

    async def withdrawn(self) -> None:
        """Wait, shortly, until keys and proxies have read what was withdrawn: who asked for it goes on believing that it is done."""
        agent = self._agent
        for _ in range(int(WITHDRAWN_S / AGAIN_S)):
            channels = [*agent.proxies.values(), *([agent.keys] if agent.keys is not None else [])]
            if not any(_unread(channel) for channel in channels):
                return
            await asyncio.sleep(AGAIN_S)

    def look(self) -> None:
        """See whether somebody threw the switch; cut what must not go on, and write down who it was."""
        switch = self._agent.kernel.switch()
        notes = switch_io.notes(self._state)
        if switch.off:
            if self.everything is None:
                self._went_off(switch.until_ns)
            elif notes:
                self.everything = switch_io.remembered(self._state) or self.everything
            if self.everything is not None and self.everything.over(time.time()):  # the kernel's clock stands still while a machine sleeps
                self._agent.kernel.turn_on()
                self._came_on(told=False)
        elif self.everything is not None:
            self._came_on(told=bool(notes))
        if notes:
            self._take(notes)

    def view(self) -> OffView:
        """For status."""
        off = self.everything
        by = off.by if off is not None else ", ".join(sorted({each.by for each in self.bindings.values()}))
        return OffView(off is not None, off.until if off is not None else 0.0, {n: o.until for n, o in self.bindings.items()}, by)

    # -- everything

    def _went_off(self, until_ns: int) -> None:
        until = 0.0 if until_ns == FOREVER else time.time() + (until_ns - time.monotonic_ns()) / 1e9
        self.everything = switch_io.remembered(self._state)
        if self.everything is None:
            self.everything = Off(until, "somebody who left no note", time.time())
            self._remember(self.everything)
        log("agent", "switched-off", by=self.everything.by, until=self.everything.until)
        for grant in self._agent.grants:
            if grant.bindings:  # what is only observed goes on untouched anyway
                self._agent.admission.withdraw(grant, Reason.OFF_MEANWHILE)

    def _came_on(self, *, told: bool) -> None:
        self.everything = None
        try:
            switch_io.forget(self._state)
        except OSError as error:
            log("agent", "off-not-forgotten", why=error.strerror)
        log("agent", "switched-on")
        if not told:
            self._agent.audit(Event(id=new_id(), event="switched-on", detail="everything; the time was over"))

    def _remember(self, off: Off) -> None:
        try:
            switch_io.remember(self._state, off)
        except OSError as error:
            log("agent", "off-not-remembered", why=error.strerror)

    # -- notes

    def _take(self, notes: list[tuple[Path, Note | None]]) -> None:
        """Write the notes into the audit once the proxies have read what was withdrawn: who left one waits for exactly that."""
        if any(_unread(channel) for channel in self._agent.proxies.values()):
            if not self._looking_again:
                self._looking_again = True
                self._agent.loop.call_later(AGAIN_S, self._look_again)
            return
        for path, note in notes:
            if path in self._stuck:
                continue
            if note is None:
                self._agent.audit(Event(id=new_id(), event="switched-off", detail="a note that cannot be read; status shows how it stands"))
            else:
                until = f" until {clock(note.until)}" if note.until else ""
                detail = f"everything{until if note.event == 'switched-off' else ''}; by {note.by}"
                self._agent.audit(Event(at=note.at, id=new_id(), event=note.event, pid=note.pid, uid=note.uid, detail=detail))
            if self._agent.ailing is not None:
                return  # it is not written: the note stays
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._stuck.add(path)
                log("agent", "note-not-taken", why=error.strerror)

    def _look_again(self) -> None:
        self._looking_again = False
        self.look()


def _unread(channel: Channel) -> int:
    """Bytes that the far end has not read yet: SIOCOUTQ of unix(7), the same number as TIOCOUTQ."""
    if channel.closed:
        return 0
    raw = fcntl.ioctl(channel.sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", raw)[0])


def clock(at: float) -> str:
    """Write a time for people and logs, in UTC; a file may hold any number, and the agent beats on whatever it says."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"
