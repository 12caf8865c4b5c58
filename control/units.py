"""
Names for numbers, so that a pid is never taken for a tick.

Nothing here touches the world.
"""

from typing import NewType

Pid = NewType("Pid", int)
"""Thread group id in the initial pid namespace: what user space calls pid."""

StartNs = NewType("StartNs", int)
"""Nanoseconds after boot (task->start_boottime of the group leader).  Tells a reused pid from its former owner."""

ExecId = NewType("ExecId", int)
"""task->self_exec_id: the kernel counts each successful exec.  Tells the program from its successor in the same pid."""

Uid = NewType("Uid", int)
"""User id as the initial user namespace sees it."""

Gid = NewType("Gid", int)
"""Group id as the initial user namespace sees it."""

Revision = NewType("Revision", int)
"""Number of a resource set; only grows."""

UnixSeconds = NewType("UnixSeconds", float)
"""Seconds since 1970-01-01 UTC, as time.time() gives them."""

Port = NewType("Port", int)
"""TCP port in host byte order."""

TICK_NS = 10_000_000
"""One clock tick of /proc/<pid>/stat in nanoseconds: USER_HZ is 100 on every Linux we run on (proc_pid_stat(5))."""


def start_ticks(start: StartNs) -> int:
    """Turn the kernel's start time into field 22 of /proc/<pid>/stat, which the kernel rounds down."""
    return start // TICK_NS
