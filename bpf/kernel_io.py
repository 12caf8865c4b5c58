"""
The kernel side as one object: load or adopt, configure, swap filters, read and settle the process table.

In: paths, filters, verdicts.  Out: processes, events, counters.  Used by the agent only; everything it makes is pinned, so that the
programs, the table and the fail-closed rule outlive it.  Pins: ``maps/``, ``links/``, ``programs/`` under one 0700 directory.
"""

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bpf import cache_io, place_io, sys_io
from bpf.abi import (
    LAYOUTS,
    Config,
    Counter,
    Event,
    FilterKey,
    FilterValue,
    KernelFilter,
    KernelReason,
    MapNumber,
    Process,
    ProcessFlag,
    ProcessState,
    fields,
    pack_key,
    size_of,
)
from bpf.errors import KernelError
from bpf.filters import allowed, match, network_keys, port_bits, rows, script_key, scripts_of
from bpf.maps import MAPS, MAX_SCRIPTS, layout_digest
from bpf.programs import PROGRAMS, Program, Where
from bpf.ring_io import Ring
from bpf.switch_io import Cell, Switch

__all__ = ["Kernel", "KernelError", "KernelFilter"]

_ELEMENT = struct.pack("<I", 0)
"""Key of the only element of an array."""
MAX_DRAIN = 8192
"""More than the ring holds: what is there now is taken, what programs add meanwhile is not chased."""
_LD_IMM64 = 0x18
_BY_MAP, _BY_VALUE = 1, 2
"""src_reg of a load: the map's descriptor, or the address of its element (linux/bpf.h BPF_PSEUDO_*)."""
_Integer = ctypes.c_uint64 | ctypes.c_uint32 | ctypes.c_uint16 | ctypes.c_uint8
_INTEGERS: dict[str, type[_Integer]] = {"Q": ctypes.c_uint64, "I": ctypes.c_uint32, "H": ctypes.c_uint16, "B": ctypes.c_uint8}
_SHAPES = {shape.number: shape for shape in MAPS}


def _relocate(code: bytes, fds: dict[MapNumber, int]) -> bytes:
    """Replace map numbers by descriptors."""
    patched = bytearray(code)
    at = 0
    while at < len(patched):
        if patched[at] == _LD_IMM64:
            if patched[at + 1] >> 4 in (_BY_MAP, _BY_VALUE):
                number = MapNumber(struct.unpack_from("<i", patched, at + 4)[0])
                struct.pack_into("<i", patched, at + 4, fds[number])
            at += 8
        at += 8
    return bytes(patched)


_GUARDS = frozenset({"bind4", "bind6"})
"""What keeps others off the listener's port."""


def _pin_over(fd: int, path: Path) -> None:
    """Pin under a name that may be taken; the older object goes in the same moment."""
    fresh = path.with_name(path.name + "_new")  # no dot: the BPF file system refuses it
    fresh.unlink(missing_ok=True)
    sys_io.pin(fd, fresh)
    fresh.rename(path)


class _Loader:
    """What happens once, at start."""

    def __init__(self, pins: Path, scope: Path, daemon_cgroup: Path) -> None:
        self.pins, self.scope, self.daemon_cgroup = pins, scope, daemon_cgroup
        self.maps: dict[MapNumber, int] = {}
        self.build = b""

    def adopt_maps(self) -> bool:
        """Open the pinned maps if they are of this layout."""
        about = sys_io.get_pinned(self.pins / "maps" / "about")
        if about is None:
            return False
        self.maps[MapNumber.ABOUT] = about
        raw = sys_io.lookup(about, _ELEMENT, size_of("about")) or b""
        layout, self.build = raw[:32], raw[32:]
        if layout == layout_digest():
            for shape in MAPS:
                fd = about if shape.number is MapNumber.ABOUT else sys_io.get_pinned(self.pins / "maps" / shape.name)
                if fd is None:
                    break
                self.maps[shape.number] = fd
            else:
                return True
        self.close()
        return False

    def create_maps(self) -> None:
        """Make fresh maps, not yet pinned; the switch is taken over, whatever build made it: who is off stays off."""
        for shape in MAPS:
            old = sys_io.get_pinned(self.pins / "maps" / shape.name) if shape.number is MapNumber.SWITCH else None
            self.maps[shape.number] = sys_io.create_map(shape) if old is None else old

    def pin_maps(self) -> None:
        """Give the maps their names, replacing those of another layout."""
        for shape in MAPS:
            _pin_over(self.maps[shape.number], self.pins / "maps" / shape.name)

    def _cgroup_of(self, program: Program) -> Path:
        return self.daemon_cgroup if program.where is Where.DAEMON else self.scope

    def hangs_right(self, program: Program) -> bool:
        """Whether the program's pin is a link to the cgroup it should be on."""
        if program.where is Where.SENDERS:
            fd = sys_io.get_pinned(self.pins / "programs" / program.name)
        else:
            fd = sys_io.get_pinned(self.pins / "links" / program.name)
        if fd is None:
            return False
        try:
            if program.where in (Where.KERNEL, Where.SENDERS):
                return True
            return sys_io.link_info(fd).cgroup_id == place_io.cgroup_id(self._cgroup_of(program))
        finally:
            os.close(fd)

    def hang(self, program: Program, fd: int, *, same_maps: bool) -> None:
        """Attach a loaded program: by swapping it into its link where that is possible, else by a new link pinned over the old one."""
        path = self.pins / "links" / program.name
        match program.where:
            case Where.SENDERS:
                sys_io.attach_senders(fd, self.maps[MapNumber.SENDERS])
                _pin_over(fd, self.pins / "programs" / program.name)
                return
            case Where.KERNEL:
                link = sys_io.attach_tracepoint(fd, program.tracepoint)
            case _:
                if same_maps and self.hangs_right(program):
                    old = sys_io.get_pinned(path)
                    if old is not None:
                        try:
                            sys_io.update_link(old, fd)
                        finally:
                            os.close(old)
                        return
                cgroup = os.open(self._cgroup_of(program), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    link = sys_io.attach_cgroup(fd, cgroup, program.hook)
                finally:
                    os.close(cgroup)
        try:
            _pin_over(link, path)
        finally:
            os.close(link)

    def close(self) -> None:
        """Close the maps."""
        for fd in set(self.maps.values()):
            os.close(fd)
        self.maps.clear()


class _ConfigCells:
    """The config map's element, mapped: each field is read and written by one aligned access."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        codes = dict(field.split(":") for field in LAYOUTS["config"])
        self._cells = {
            f.name: _INTEGERS[codes[f.name]].from_buffer(self._map, f.offset) for f in fields("config") if codes[f.name] in _INTEGERS
        }
        self.heartbeat = self._cells["heartbeat_ns"]

    def __getitem__(self, name: str) -> int:
        return self._cells[name].value

    def __setitem__(self, name: str, value: int) -> None:
        self._cells[name].value = value

    def snapshot(self) -> Config:
        return Config.unpack(self._map[: size_of("config")])

    def close(self) -> None:
        del self.heartbeat
        self._cells.clear()
        self._map.close()


class Kernel:
    """Handle on the programs and maps."""

    def __init__(self, maps: dict[MapNumber, int], pins: Path, *, adopted: bool, compiled: bool) -> None:
        """Not for callers: use ``load``."""
        self._maps = maps
        self.pins = pins
        self.adopted = adopted
        """The process table of an earlier agent was taken over."""
        self.loaded = compiled
        """Programs were loaded (False: those of an earlier agent run on)."""
        self._config = _ConfigCells(maps[MapNumber.CONFIG])
        self._switch = Cell(maps[MapNumber.SWITCH])
        self._ring = Ring(maps[MapNumber.EVENTS], _SHAPES[MapNumber.EVENTS].entries)
        self._rows: dict[FilterKey, FilterValue] = {}
        self._scripts: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._read_tables()

    # -- life

    @classmethod
    def load(cls, *, pins: Path, cache: Path, scope: Path, daemon_cgroup: Path) -> "Kernel":
        """
        Bring the programs into the kernel, or take over those that are there.

        Same build: everything stays as it is.  Same map layout: programs are swapped, the process table stays.  Otherwise: new maps, new
        links pinned over the old ones; connections redirected before lose their record.  ``scope`` and ``daemon_cgroup`` are cgroup v2
        directories.  Raises KernelError or OSError; on a first load that fails, nothing is left behind.
        """
        if not sys_io.supported():
            raise KernelError("this machine is neither x86-64 nor arm64", hint="docs/kernels.md lists what is supported")
        place_io.ensure_bpffs(pins)
        for part in ("maps", "links", "programs"):
            (pins / part).mkdir(mode=0o700, exist_ok=True)
        loader = _Loader(pins, scope, daemon_cgroup)
        same_maps = loader.adopt_maps()
        first = not same_maps and not any((pins / "links").iterdir())
        try:
            loaded = not (same_maps and loader.build == cache_io.build_key() and all(loader.hangs_right(p) for p in PROGRAMS))
            if loaded:
                cls._load_programs(loader, cache, same_maps=same_maps)
            kernel = cls(loader.maps, pins, adopted=same_maps, compiled=loaded)
        except BaseException:
            loader.close()
            if first:
                from bpf.remove_io import remove  # noqa: PLC0415  # the other way round it is a program of its own

                remove(pins)
            raise
        config = kernel._config
        config["netns_cookie"] = place_io.own_netns_cookie()
        config["mntns"] = place_io.own_namespace("mnt")
        config["userns"] = place_io.own_namespace("user")
        config["daemon_cgroup"] = place_io.cgroup_id(daemon_cgroup)
        return kernel

    @staticmethod
    def take_port(*, pins: Path, daemon_cgroup: Path) -> None:
        """
        Let whoever lives in ``daemon_cgroup`` bind the guarded port, before anything is loaded.

        The programs of a daemon that has ended still guard its port, for a cgroup that may be gone: a service manager makes a new one each
        time.  Only for a caller who knows that no other daemon lives.  Where the maps are of another layout the guard is taken off, and
        ``load`` hangs it on again.  Raises OSError.
        """
        loader = _Loader(pins, daemon_cgroup, daemon_cgroup)
        if loader.adopt_maps():
            config = _ConfigCells(loader.maps[MapNumber.CONFIG])
            config["daemon_cgroup"] = place_io.cgroup_id(daemon_cgroup)
            config.close()
            loader.close()
            return
        for program in PROGRAMS:
            path = pins / "links" / program.name
            if program.name in _GUARDS and (link := sys_io.get_pinned(path)) is not None:
                sys_io.detach_link(link)
                os.close(link)
                path.unlink()

    @staticmethod
    def _load_programs(loader: _Loader, cache: Path, *, same_maps: bool) -> None:
        key, code = cache_io.programs(cache)
        if not same_maps:
            loader.create_maps()
        fds: dict[str, int] = {}
        try:
            for program in PROGRAMS:
                fds[program.name] = sys_io.load_program(
                    program.kind, program.hook, program.name, _relocate(code[program.name], loader.maps)
                )
            for program in PROGRAMS:
                loader.hang(program, fds[program.name], same_maps=same_maps)
        finally:
            for fd in fds.values():
                os.close(fd)
        if not same_maps:
            loader.pin_maps()
        sys_io.update(loader.maps[MapNumber.ABOUT], _ELEMENT, layout_digest() + key)

    def close(self) -> None:
        """Close descriptors; pins, programs and the table stay, and the heartbeat runs out."""
        self._ring.close()
        self._config.close()
        self._switch.close()
        for fd in self._maps.values():
            os.close(fd)
        self._maps.clear()

    # -- configuration

    def configure(self, *, port4: int, port6: int, agent_tgid: int, stale_ns: int, enforce: bool) -> None:
        """Say where the listeners are (0: none), whose death stops everything, and after how long silence counts as death."""
        config = self._config
        if not enforce:
            config["enforce"] = 0
        config["port4"] = port4
        config["port6"] = port6
        config["stale_ns"] = stale_ns
        config["agent_tgid"] = agent_tgid
        if enforce:
            config["enforce"] = 1

    def config(self) -> Config:
        """Read the whole configuration, for status and tests."""
        return self._config.snapshot()

    def switch(self) -> Switch:
        """Read how the off switch stands; nothing but ``turn_off`` and ``turn_on``, ours or a tool's, ever moves it."""
        return self._switch.read()

    def turn_off(self, for_s: float | None) -> None:
        """Let everything pass untouched: for so many seconds, or until it is turned on."""
        self._switch.turn_off(for_s)

    def turn_on(self) -> None:
        """Hold bound processes again."""
        self._switch.turn_on()

    def beat(self) -> None:
        """Say that the agent is alive: one store, no system call."""
        self._config.heartbeat.value = time.monotonic_ns()

    def swap_filters(self, filters: Sequence[KernelFilter], *, ports: Collection[int], excluded: Sequence[str], revision: int) -> None:
        """
        Put a whole set of filters, ports and excluded networks into force.

        Rows of the new generation are written beside the old ones, then one store makes programs look at the new ones only, so there is no
        moment in which a listed process passes unseen.  Every known process is judged again at its next connect.  Raises KernelError
        (the old set stays in force).
        """
        before = self._config["filters"] >> 32
        self._forget(keep={before})  # what a crash in the middle may have left
        generation = before + 1
        self._number_scripts(scripts_of(filters))
        found, shapes = rows(filters, self._scripts, generation)
        limit = _SHAPES[MapNumber.FILTERS].entries
        if len(found) + len(self._rows) > limit:
            raise KernelError(f"{len(found)} rows of filters do not fit beside {len(self._rows)}", hint=f"the table holds {limit}")
        bank = struct.pack("<I", generation & 1)
        try:
            sys_io.update(self._maps[MapNumber.PORTS], bank, port_bits(ports))
            for key in network_keys(excluded, generation):
                sys_io.update(self._maps[MapNumber.EXCLUDED], key, struct.pack("<I", 1))
            for row, value in found.items():
                sys_io.update(self._maps[MapNumber.FILTERS], row.pack(), value.pack())
        except (OSError, KernelError):
            self._forget(keep={before})
            raise
        self._config["revision"] = revision
        self._config["filters"] = generation << 32 | shapes
        self._rows = found
        if sys_io.wait_for_programs():  # a program that began before the store may still be reading the old rows
            self._forget(keep={generation})

    def _number_scripts(self, paths: Sequence[str]) -> None:
        """Give each script a number that it keeps: processes that run it carry the number."""
        fresh = [path for path in paths if path not in self._scripts]
        if len(self._scripts) + len(fresh) > MAX_SCRIPTS:
            for path in set(self._scripts) - set(paths):
                sys_io.delete(self._maps[MapNumber.SCRIPTS], script_key(path))
                self._texts.pop(self._scripts.pop(path), None)
        for path in fresh:
            number = self._config["next_script"] or 1
            self._config["next_script"] = number + 1
            sys_io.update(self._maps[MapNumber.SCRIPTS], script_key(path), struct.pack("<I", number))
            self._scripts[path] = number
            self._texts[number] = path

    def script_text(self, script_id: int) -> str | None:
        """Give the path that a process's or record's ``script_id`` stands for."""
        return self._texts.get(script_id)

    def watches(self, script: str) -> bool:
        """Whether an exec of this script is noticed: it is in the kernel's table, of this agent or of one before."""
        return script in self._scripts

    def _forget(self, *, keep: set[int]) -> None:
        """Delete the rows of other generations."""
        for key in sys_io.keys(self._maps[MapNumber.FILTERS], size_of("filter_key")):
            if FilterKey.unpack(key).generation not in keep:
                sys_io.delete(self._maps[MapNumber.FILTERS], key)
        for key in sys_io.keys(self._maps[MapNumber.EXCLUDED], size_of("network_key")):
            if struct.unpack_from("<I", key, 4)[0] not in keep:
                sys_io.delete(self._maps[MapNumber.EXCLUDED], key)

    def _read_tables(self) -> None:
        """Learn what an earlier agent wrote."""
        generation = self._config["filters"] >> 32
        for raw in sys_io.keys(self._maps[MapNumber.FILTERS], size_of("filter_key")):
            key = FilterKey.unpack(raw)
            value = sys_io.lookup(self._maps[MapNumber.FILTERS], raw, size_of("filter_value"))
            if key.generation == generation and value is not None:
                self._rows[key] = FilterValue.unpack(value)
        for raw in sys_io.keys(self._maps[MapNumber.SCRIPTS], size_of("script_key")):
            value = sys_io.lookup(self._maps[MapNumber.SCRIPTS], raw, 4)
            if value is not None:
                path, number = raw.rstrip(b"\0").decode(), struct.unpack("<I", value)[0]
                self._scripts[path] = number
                self._texts[number] = path

    # -- processes

    def find(self, tgid: int, start_ns: int, exec_id: int) -> Process | None:
        """Look up exactly this program in this process; None when it is not in the table (any more)."""
        key = pack_key(tgid, start_ns, exec_id)
        for number in (MapNumber.PROCS, MapNumber.STRANGERS):
            raw = sys_io.lookup(self._maps[number], key, size_of("process"))
            if raw is not None:
                return Process.unpack(raw)
        return None

    def process(self, tgid: int) -> Process | None:
        """Look up what runs under a pid now; goes through the whole table, so it is for people: decisions use ``find``."""
        return next((p for p in self.processes() if p.tgid == tgid), None)

    def processes(self) -> Iterator[Process]:
        """Give every entry: those that a filter hit, then those passed over."""
        for number in (MapNumber.PROCS, MapNumber.STRANGERS):
            for raw in sys_io.values(self._maps[number], _SHAPES[number]):
                yield Process.unpack(raw)

    def settle(self, tgid: int, start_ns: int, exec_id: int, state: ProcessState, identity: int) -> bool:
        """
        Write a verdict into the table; False when the process has moved on (other program, gone, no longer listed).

        The entry's key is the process key, and the kernel replaces it only if it is still there, so a verdict can never land on another
        program.  Facts that the verdict rests on (uid, namespaces, filters) stay in the entry, and the programs compare them.
        """
        key = pack_key(tgid, start_ns, exec_id)
        raw = sys_io.lookup(self._maps[MapNumber.PROCS], key, size_of("process"))
        if raw is None:
            return False
        process = Process.unpack(raw)
        generation = self._config["filters"] >> 32
        if process.generation != generation:
            hit = match(self._rows, process, generation)
            if not hit:
                return False
            process = process._replace(generation=generation, flags=process.flags & ProcessFlag.SEEN | allowed(hit))
        fresh = process._replace(state=state, identity=identity if state is ProcessState.BOUND else 0)
        return sys_io.update(self._maps[MapNumber.PROCS], key, fresh.pack(), sys_io.EXIST)

    # -- what happened

    def map_fd(self, number: MapNumber) -> int:
        """Give a map's descriptor, which stays ours: for tests and diagnosis."""
        return self._maps[number]

    def events_fd(self) -> int:
        """Readable when there are events."""
        return self._maps[MapNumber.EVENTS]

    def drain(self, most: int = MAX_DRAIN) -> list[Event]:
        """Take up to ``most`` of the events that are there; hints, since the buffer may have lost some (counter ``event-lost``)."""
        return [Event.unpack(raw) for raw in self._ring.drain(most)]

    def counters(self) -> dict[str, int]:
        """Sum the per-CPU counters by name: a reason's slug, or what bpf/abi.h's ``enum counter`` names."""
        cpus = _possible_cpus()
        names: dict[int, str] = {int(r): r.slug for r in KernelReason if r is not KernelReason.GRANTED}
        names |= {int(c): c.slug for c in Counter if c is not Counter.MAX}
        found = {}
        for number, name in names.items():
            raw = sys_io.lookup(self._maps[MapNumber.COUNTERS], struct.pack("<I", number), 8 * cpus) or b""
            found[name] = sum(struct.unpack(f"<{len(raw) // 8}Q", raw))
        return found


def _possible_cpus() -> int:
    """Count CPUs as per-CPU maps do: all that may ever come, not those online."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1
