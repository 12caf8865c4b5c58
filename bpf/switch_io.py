"""
The off switch: let everything pass, with every process of ours dead or stopped.

In: the pin directory, root.  Out: one 64-bit store into a pinned map that the programs look at (docs/decisions/0012).  Needs neither bcc
nor a daemon, nor the build that loaded the programs: the map's shape is the same for all of them.
Times are CLOCK_MONOTONIC, as in the programs: they stand still while the machine sleeps, and start anew when it boots.
"""

import ctypes
import math
import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple

from bpf import sys_io
from bpf.errors import KernelError

FOREVER = 2**64 - 1
"""``until_ns`` of a switch that does not turn itself on."""


class Switch(NamedTuple):
    """How the switch stands at this moment."""

    off: bool
    until_ns: int
    """CLOCK_MONOTONIC; FOREVER; 0 when it is on."""


class Cell:
    """The one element of the switch map, mapped: read and written by one aligned access."""

    def __init__(self, fd: int) -> None:
        """Map it; the descriptor stays the caller's."""
        self._map = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._until = ctypes.c_uint64.from_buffer(self._map)

    def read(self) -> Switch:
        """Say how it stands."""
        until = self._until.value
        return Switch(True, until) if until > time.monotonic_ns() else Switch(False, 0)

    def turn_off(self, for_s: float | None) -> None:
        """Turn off for so many seconds from now, None: until it is turned on; in the place of what was said before."""
        if for_s is None:
            self._until.value = FOREVER
            return
        if not (math.isfinite(for_s) and for_s > 0):
            raise KernelError(f'cannot be off for "{for_s}" seconds', hint="give a time that is longer than nothing, or none at all")
        self._until.value = min(time.monotonic_ns() + int(min(for_s, FOREVER / 1e9) * 1e9), FOREVER)

    def turn_on(self) -> None:
        """Turn on if it is off; the moment stays in the cell, by which programs know the connections from before."""
        if self.read().off:
            self._until.value = time.monotonic_ns()

    def close(self) -> None:
        """Unmap."""
        del self._until
        self._map.close()


def _open(pins: Path) -> Cell | None:
    """Map the pinned switch; None when no program is attached.  Raises KernelError for programs that know no switch, OSError."""
    attached = (pins / "links" / "connect4").exists()
    fd = sys_io.get_pinned(pins / "maps" / "switch") if attached else None
    if fd is not None:
        try:
            return Cell(fd)
        finally:
            os.close(fd)
    if attached:
        raise KernelError(
            "the kernel programs are of a version without an off switch", hint=f"take them out: python3 -m bpf.remove_io {pins}"
        )
    return None


def read(pins: Path) -> Switch | None:
    """Say how the switch stands; None when nothing is attached, and so nothing is held.  Raises KernelError, OSError."""
    cell = _open(pins)
    if cell is None:
        return None
    try:
        return cell.read()
    finally:
        cell.close()


def turn_off(pins: Path, for_s: float | None) -> bool:
    """
    Let everything pass from now on: for so many seconds, or (None) until it is turned on.

    False when nothing is attached: traffic is direct already, and a later load starts switched on.  Raises KernelError, OSError.
    """
    cell = _open(pins)
    if cell is None:
        return False
    try:
        cell.turn_off(for_s)
    finally:
        cell.close()
    return True


def turn_on(pins: Path) -> bool:
    """Hold bound processes again; False when nothing is attached.  Raises KernelError, OSError."""
    cell = _open(pins)
    if cell is None:
        return False
    try:
        cell.turn_on()
    finally:
        cell.close()
    return True
