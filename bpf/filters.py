"""
Turn filters into the rows of kernel maps.

In: KernelFilter, ports, networks.  Out: keys and values for one generation; and the same judgement that the programs make, for tests
and for settling an entry that an older generation judged.  Pure.
"""

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, ip_network

from bpf.abi import FilterFlag, FilterKey, FilterPart, FilterValue, KernelFilter, Process, ProcessFlag
from bpf.errors import KernelError

MAX_PATH_BYTES = 254
"""The kernel cuts a name at 255 bytes and a cut name never matches."""
_NETWORK_KEY = struct.Struct("<II16s")
_LENIENT = {FilterFlag.DIRECT_WHEN_DOWN: ProcessFlag.DIRECT_WHEN_DOWN, FilterFlag.OBSERVE: ProcessFlag.OBSERVED}
"""What a filter allows, and what a process has when every filter that hits it allows it."""


def shape_of(wanted: KernelFilter) -> FilterPart:
    """Say which parts a filter looks at."""
    shape = FilterPart(0)
    if wanted.exe is not None:
        shape |= FilterPart.EXE
    if wanted.uid is not None:
        shape |= FilterPart.UID
    if wanted.script is not None:
        shape |= FilterPart.SCRIPT
    return shape


def check(wanted: KernelFilter) -> None:
    """Raise KernelError for a filter that would match everything or can never match."""
    if not shape_of(wanted):
        raise KernelError("a filter names neither executable, uid nor script", hint="it would take every process of the machine")
    if wanted.script is not None and not (wanted.script.startswith("/") and 1 < len(wanted.script.encode()) <= MAX_PATH_BYTES):
        raise KernelError(
            f'script path "{wanted.script}" is not absolute or longer than {MAX_PATH_BYTES} bytes', hint="give the path that is executed"
        )


def scripts_of(filters: Iterable[KernelFilter]) -> list[str]:
    """List the scripts that filters name, once each, in order."""
    return list(dict.fromkeys(f.script for f in filters if f.script is not None))


def rows(filters: Sequence[KernelFilter], script_ids: Mapping[str, int], generation: int) -> tuple[dict[FilterKey, FilterValue], int]:
    """
    Make the rows of the filters map, and the bit mask of shapes.

    Each executable is listed by a row of its own (without MATCH unless a filter wants the executable alone), so that an executable
    that no filter names costs one look-up.  Filters that differ in what they allow only: the strict one counts.
    """
    found: dict[FilterKey, FilterValue] = {}
    shapes = 0
    for wanted in filters:
        check(wanted)
        shape = shape_of(wanted)
        shapes |= 1 << shape
        dev, ino = wanted.exe or (0, 0)
        script_id = script_ids[wanted.script] if wanted.script is not None else 0
        key = FilterKey(ino, dev, wanted.uid or 0, script_id, generation, shape)
        flags = FilterFlag.MATCH
        if wanted.direct_when_down:
            flags |= FilterFlag.DIRECT_WHEN_DOWN
        if wanted.observe:
            flags |= FilterFlag.OBSERVE
        before = found.get(key)
        found[key] = FilterValue(before.flags & flags if before is not None and before.flags & FilterFlag.MATCH else flags)
        if wanted.exe is not None:
            found.setdefault(FilterKey(ino, dev, 0, 0, generation, FilterPart.EXE), FilterValue(FilterFlag(0)))
    return found, shapes


def match(found: Mapping[FilterKey, FilterValue], process: Process, generation: int) -> FilterFlag:
    """Judge a process as the programs do: 0, or MATCH with the lenient flags that every hit has."""
    hit, lenient = False, FilterFlag.DIRECT_WHEN_DOWN | FilterFlag.OBSERVE
    for number in range(1, 8):
        shape = FilterPart(number)
        if shape & FilterPart.SCRIPT and not process.script_id:
            continue
        exe = (process.exe_ino, process.exe_dev) if shape & FilterPart.EXE else (0, 0)
        key = FilterKey(
            *exe,
            process.uid if shape & FilterPart.UID else 0,
            process.script_id if shape & FilterPart.SCRIPT else 0,
            generation,
            shape,
        )
        value = found.get(key)
        if value is not None and value.flags & FilterFlag.MATCH:
            hit = True
            lenient &= value.flags
    return FilterFlag.MATCH | lenient if hit else FilterFlag(0)


def allowed(hit: FilterFlag) -> ProcessFlag:
    """Say what a process may by what ``match`` gave."""
    flags = ProcessFlag(0)
    for filter_flag, process_flag in _LENIENT.items():
        if hit & filter_flag:
            flags |= process_flag
    return flags


def script_key(path: str) -> bytes:
    """Make the key of the scripts map."""
    return path.encode().ljust(256, b"\0")


def port_bits(ports: Collection[int]) -> bytes:
    """Make one bank of the port bitmap: bit ``port & 63`` of word ``port >> 6``."""
    words = [0] * 1024
    for port in ports:
        if not 0 < port < 65536:
            raise KernelError(f'port "{port}" is out of range', hint="1 to 65535")
        words[port >> 6] |= 1 << (port & 63)
    return struct.pack("<1024Q", *words)


def network_keys(networks: Iterable[str], generation: int) -> list[bytes]:
    """Make keys of the excluded networks; an IPv4 network is held as its mapped IPv6 one."""
    keys = []
    for text in networks:
        network = ip_network(text)
        if isinstance(network, IPv4Network):
            address, bits = b"\0" * 10 + b"\xff\xff" + network.network_address.packed, 96 + network.prefixlen
        else:
            address, bits = network.network_address.packed, network.prefixlen
        keys.append(_NETWORK_KEY.pack(32 + bits, generation, address))
    return keys


def kernel_dev(st_dev: int) -> int:
    """Turn st_dev of stat(2) into the kernel's own encoding (they differ: linux/kdev_t.h)."""
    major = (st_dev >> 8) & 0xFFF | (st_dev >> 32) & ~0xFFF
    minor = st_dev & 0xFF | (st_dev >> 12) & ~0xFF
    return (major << 20) | (minor & 0xFFFFF)
