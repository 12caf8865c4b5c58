"""
The maps: name, kind and size of each, in the order of bpf/abi.h's ``enum map_number``.

In: nothing.  Out: MAPS, and a digest by which two builds know whether they can share them.  Pure.
"""

import hashlib
from enum import IntEnum
from typing import NamedTuple

from bpf.abi import LAYOUTS, Counter, MapNumber, size_of


class MapKind(IntEnum):
    """enum bpf_map_type, linux/bpf.h"""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    SOCKHASH = 18
    SK_STORAGE = 24
    RINGBUF = 27


NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC, which these kinds demand."""
MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE: the heartbeat is one store, not one system call."""


class MapShape(NamedTuple):
    """What BPF_MAP_CREATE needs."""

    number: MapNumber
    kind: MapKind
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int = 0

    @property
    def name(self) -> str:
        """File name of the pin, and (after cw_) the name that bpftool shows."""
        return self.number.name.lower()


MAX_PROCESSES = 16384
"""Programs that a filter hit and that run at once; one more is refused (table-full)."""
MAX_SCRIPTS = 4096
MAX_FILTERS = 32768
"""Rows of two generations, executables listed apart."""

MAPS: tuple[MapShape, ...] = (
    MapShape(MapNumber.CONFIG, MapKind.ARRAY, 4, size_of("config"), 1, MMAPABLE),
    MapShape(MapNumber.ABOUT, MapKind.ARRAY, 4, size_of("about"), 1),
    MapShape(MapNumber.PORTS, MapKind.ARRAY, 4, size_of("port_bits"), 2),
    MapShape(MapNumber.EXCLUDED, MapKind.LPM_TRIE, size_of("network_key"), 4, 4096, NO_PREALLOC),
    MapShape(MapNumber.FILTERS, MapKind.HASH, size_of("filter_key"), size_of("filter_value"), MAX_FILTERS, NO_PREALLOC),
    MapShape(MapNumber.SCRIPTS, MapKind.HASH, size_of("script_key"), 4, MAX_SCRIPTS, NO_PREALLOC),
    MapShape(MapNumber.PROCS, MapKind.HASH, size_of("process_key"), size_of("process"), MAX_PROCESSES),
    MapShape(MapNumber.STRANGERS, MapKind.LRU_HASH, size_of("process_key"), size_of("process"), MAX_PROCESSES),
    MapShape(MapNumber.CLIENTS, MapKind.SK_STORAGE, 4, size_of("record"), 0, NO_PREALLOC),
    MapShape(MapNumber.HANDOFF, MapKind.LRU_HASH, size_of("tuple"), size_of("record"), 16384),
    MapShape(MapNumber.ACCEPTED, MapKind.SK_STORAGE, 4, size_of("record"), 0, NO_PREALLOC),
    MapShape(MapNumber.SENDERS, MapKind.SOCKHASH, 8, 4, 65536),
    MapShape(MapNumber.EVENTS, MapKind.RINGBUF, 0, 0, 512 * 1024),
    MapShape(MapNumber.COUNTERS, MapKind.PERCPU_ARRAY, 4, 8, int(Counter.MAX)),
    MapShape(MapNumber.SWITCH, MapKind.ARRAY, 4, size_of("off_switch"), 1, MMAPABLE),
)


def layout_digest() -> bytes:
    """Tell whether programs of this build may use the maps of another."""
    return hashlib.sha256(repr((LAYOUTS, [tuple(shape) for shape in MAPS])).encode()).digest()
