"""
Take everything out of the kernel again: ``python -m bpf.remove_io PINS``.

In: the pin directory.  Out: what was removed.  Needs nothing of ours to be alive; what others still hold open is detached first, so that
it ends here and not when they close it.
"""

import os
import sys
from pathlib import Path

from bpf import place_io, sys_io
from bpf.programs import PROGRAMS, Where

_LAST_FIRST = tuple(reversed(PROGRAMS))
"""What takes connections goes first, what knows processes last."""


def _detach_sender(pins: Path, name: str) -> None:
    program, sockhash = sys_io.get_pinned(pins / "programs" / name), sys_io.get_pinned(pins / "maps" / "senders")
    try:
        if program is not None and sockhash is not None:
            sys_io.detach_senders(program, sockhash)
    finally:
        for fd in (program, sockhash):
            if fd is not None:
                os.close(fd)


def remove(pins: Path) -> list[str]:
    """Detach and unpin all, and unmount the BPF file system if we mounted it; gives the names of what was there."""
    removed: list[str] = []
    for program in _LAST_FIRST:
        if program.where is Where.SENDERS:
            _detach_sender(pins, program.name)
            continue
        link = sys_io.get_pinned(pins / "links" / program.name)
        if link is not None:
            sys_io.detach_link(link)
            os.close(link)
    for part in ("links", "programs", "maps"):
        directory = pins / part
        if not directory.is_dir():
            continue
        for pin in sorted(directory.iterdir()):
            pin.unlink()
            removed.append(f"{part}/{pin.name}")
        directory.rmdir()
    if pins.is_dir() and not pins.is_mount() and not any(pins.iterdir()):
        pins.rmdir()
    place_io.release_bpffs(pins)
    return removed


if __name__ == "__main__":
    for name in remove(Path(sys.argv[1])):
        print(name)
