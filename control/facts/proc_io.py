"""
Read the few lines of /proc that name a running process.

In: a pid.  Out: when it started and as whom it runs, or a Refusal.  For people's questions; decisions take these from the kernel.
"""

from pathlib import Path

import msgspec

from control.errors import Refusal
from control.facts.proc import parse_stat, parse_status
from control.reason import Reason
from control.units import TICK_NS, Gid, StartNs, Uid


class Running(msgspec.Struct, frozen=True):
    """A process as /proc shows it."""

    start_ns: StartNs
    """Rounded down to a clock tick: /proc knows no better."""
    uid: Uid
    gid: Gid


def identify_running(pid: int) -> Running | Refusal:
    """Read start and effective ids of ``pid``."""
    try:
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
        status = parse_status(Path(f"/proc/{pid}/status").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return Refusal(Reason.PROCESS_GONE, f"there is no process {pid}")
    return Running(StartNs(stat.start_ticks * TICK_NS), Uid(status.uids[1]), Gid(status.gids[1]))
