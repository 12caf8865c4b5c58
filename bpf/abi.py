"""
The kernel boundary in Python: twin of bpf/abi.h.

In: bytes of maps, of the ring buffer and of getsockopt.  Out: named values.  ``LAYOUTS`` describes every struct field by field; the
compiler is made to agree with it (``assertions``) before any program is loaded, and tests compare it with the compiler's BTF.  Pure.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from ipaddress import IPv6Address
from typing import NamedTuple, Self


class MapNumber(IntEnum):
    """What programs call a map by; shapes stand in bpf/maps.py."""

    CONFIG = 0
    ABOUT = 1
    PORTS = 2
    EXCLUDED = 3
    FILTERS = 4
    SCRIPTS = 5
    PROCS = 6
    STRANGERS = 7
    CLIENTS = 8
    HANDOFF = 9
    ACCEPTED = 10
    SENDERS = 11
    EVENTS = 12
    COUNTERS = 13
    SWITCH = 14


class KernelReason(IntEnum):
    """Why the kernel refused; ``slug`` is the word used everywhere else."""

    GRANTED = 0
    DAEMON_DOWN = 1
    NETNS_UNSERVED = 2
    PROTOCOL_UNSUPPORTED = 3
    TABLE_FULL = 4
    SENDER_NOT_BOUND = 5
    PORT_GUARDED = 6
    NO_RECORD = 7
    PROCESS_CHANGED = 8
    SOCKET_BUSY = 9
    OFF_MEANWHILE = 10

    @property
    def slug(self) -> str:
        """``daemon-down``"""
        return self.name.lower().replace("_", "-")


class Counter(IntEnum):
    """Per-CPU counters beyond the reasons; bpf/abi.h says what each one counts."""

    REDIRECTED = 16
    DIRECT = 17
    ATTESTED_FORK = 18
    EVENT_LOST = 19
    HANDOFF_LOST = 20
    ACCEPT_LOST = 21
    SENDER_UNCHECKED = 22
    DEVICE_KEPT = 23
    ENTRY_LOST = 24
    OBSERVED = 25
    OFF = 26
    MAX = 32

    @property
    def slug(self) -> str:
        """``event-lost``"""
        return self.name.lower().replace("_", "-")


class ProcessState(IntEnum):
    """How the kernel's table judges a process."""

    UNKNOWN = 0
    UNBOUND = 1
    PENDING = 2
    BOUND = 3


class FilterPart(IntFlag):
    """What a filter looks at; a shape is a set of these."""

    EXE = 1
    UID = 2
    SCRIPT = 4


class FilterFlag(IntFlag):
    """What a hit means."""

    MATCH = 1
    DIRECT_WHEN_DOWN = 2
    OBSERVE = 4


class ProcessFlag(IntFlag):
    """Facts of the task beside uid and executable."""

    TRACED = 1
    FOREIGN_USERNS = 2
    FOREIGN_MNTNS = 4
    SEEN = 7
    DIRECT_WHEN_DOWN = 8
    OBSERVED = 16


class EventKind(IntEnum):
    """What happened; a hint, since the ring buffer may lose it."""

    PENDING = 1
    EXEC = 2
    EXIT = 3
    FORK = 4
    REFUSED = 5
    SPARED = 6


_KEY = ("start_ns:Q", "exec_id:Q", "tgid:I", "pad:4x")


def _inside(name: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}.{field}" for field in fields)


_RECORD = (
    *_inside("owner", _KEY),
    "cookie:Q", "at_ns:Q",
    "tid:I", "uid:I", "gid:I", "script_id:I", "generation:I", "revision:I", "mark:I", "ifindex:I",
    "port:H", "family:B", "flags:B", "guarded:B", "pad:3x", "address:16s",
)  # fmt: skip

LAYOUTS: dict[str, tuple[str, ...]] = {
    "process_key": _KEY,
    "config": (
        "heartbeat_ns:Q", "stale_ns:Q", "filters:Q", "netns_cookie:Q", "daemon_cgroup:Q",
        "agent_tgid:I", "revision:I", "mntns:I", "userns:I", "next_script:I", "port4:H", "port6:H", "enforce:B", "pad:7x",
    ),
    "off_switch": ("off_until_ns:Q",),
    "about": ("layout:32s", "build:32s"),
    "filter_key": ("exe_ino:Q", "exe_dev:I", "uid:I", "script_id:I", "generation:I", "shape:I", "pad:4x"),
    "filter_value": ("flags:I", "pad:4x"),
    "network_key": ("prefix_bits:I", "generation:I", "address:16s"),
    "port_bits": ("words:8192s",),
    "script_key": ("path:256s",),
    "process": (
        *_inside("key", _KEY),
        "exe_ino:Q", "at_ns:Q",
        "exe_dev:I", "uid:I", "gid:I", "script_id:I", "generation:I", "identity:I", "flags:B", "state:B", "pad:6x",
    ),
    "record": _RECORD,
    "answer": (
        *_inside("record", _RECORD), "identity:I", "revision:I", "reason:B", "state:B", "current:B", "flags:B", "pad:4x",
    ),
    "tuple": ("netns_cookie:Q", "client_port:H", "listener_port:H", "pad:4x", "client:16s", "listener:16s"),
    "event": (
        *_inside("subject", _KEY),
        "cookie:Q", "at_ns:Q", "tid:I", "uid:I", "script_id:I", "other_tgid:I",
        "port:H", "kind:B", "reason:B", "state:B", "family:B", "protocol:B", "pad:1x", "address:16s",
    ),
}  # fmt: skip
"""C struct to its fields, in order, each with its code of the struct module (``x`` is padding)."""

ENUMS: dict[str, type[IntEnum | IntFlag]] = {
    "MAP_": MapNumber,
    "REASON_": KernelReason,
    "COUNT_": Counter,
    "STATE_": ProcessState,
    "PART_": FilterPart,
    "FILTER_": FilterFlag,
    "PROCESS_": ProcessFlag,
    "EVENT_": EventKind,
}
"""Prefix of the C names to the Python twin."""


class Field(NamedTuple):
    """One field of a struct, padding included."""

    name: str
    """``tgid``, or ``owner.tgid`` inside of another struct"""
    offset: int
    size: int


def packer(name: str) -> struct.Struct:
    """Make the packer of C struct ``name``; nothing is aligned but what the layout says."""
    return struct.Struct("<" + "".join(field.partition(":")[2] for field in LAYOUTS[name]))


def fields(name: str) -> Iterator[Field]:
    """Give every field of C struct ``name`` with its place."""
    at = 0
    for field in LAYOUTS[name]:
        label, _, code = field.partition(":")
        size = struct.calcsize("<" + code)
        yield Field(label, at, size)
        at += size


def size_of(name: str) -> int:
    """Give the size of C struct ``name`` in bytes."""
    return packer(name).size


def offset_of(name: str, field: str) -> int:
    """Give the offset of one field in bytes."""
    return next(f.offset for f in fields(name) if f.name == field)


def assertions() -> str:
    """Write C that does not compile unless bpf/abi.h agrees with this file."""
    lines = []
    for name in LAYOUTS:
        lines.append(f'_Static_assert(sizeof(struct {name}) == {size_of(name)}, "size of struct {name}");')
        for f in fields(name):
            place = f"__builtin_offsetof(struct {name}, {f.name}) == {f.offset} && sizeof(((struct {name} *)0)->{f.name}) == {f.size}"
            lines.append(f'_Static_assert({place}, "struct {name}: {f.name}");')
    for prefix, twin in ENUMS.items():
        lines += [f'_Static_assert({prefix}{member} == {int(twin[member])}, "{prefix}{member}");' for member in twin.__members__]
    return "\n".join(lines) + "\n"


_PROCESS = packer("process")
_RECORD_PACKER = packer("record")
_ANSWER = packer("answer")
_EVENT = packer("event")
_FILTER_KEY = packer("filter_key")
_PROCESS_KEY = packer("process_key")
_TAIL_AT = offset_of("answer", "identity")
_FLAGS_AT = offset_of("answer", "record.flags")
_TAIL = struct.Struct("<IIBBBB4x")
assert _TAIL_AT + _TAIL.size == _ANSWER.size  # noqa: S101  # true of the layout above or nothing works

ANSWER_BYTES = _ANSWER.size
_REASONS = tuple(KernelReason)
_STATES = tuple(ProcessState)


def address_text(raw: bytes) -> str:
    """Write 16 bytes as people do; an IPv4-mapped address as the IPv4 address it is."""
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


class KernelFilter(NamedTuple):
    """Which processes are ours to judge: what is None is not looked at, all the rest must hold."""

    exe: tuple[int, int] | None
    """(device in the kernel's encoding major << 20 | minor, inode)"""
    uid: int | None
    """Effective uid, as the initial user namespace sees it."""
    script: str | None
    """Absolute path of a ``#!`` script, the very text that is given to execve."""
    direct_when_down: bool = False
    observe: bool = False
    """Redirect and record, refuse nothing."""


class FilterKey(NamedTuple):
    """Key of the filters map."""

    exe_ino: int
    exe_dev: int
    uid: int
    script_id: int
    generation: int
    shape: FilterPart

    def pack(self) -> bytes:
        """As the kernel's map holds it."""
        return _FILTER_KEY.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read a key of the map."""
        *numbers, shape = _FILTER_KEY.unpack(raw)
        return cls._make((*numbers, FilterPart(shape)))


class FilterValue(NamedTuple):
    """Value of the filters map."""

    flags: FilterFlag

    def pack(self) -> bytes:
        """As the kernel's map holds it."""
        return struct.pack("<I4x", self.flags)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read a value of the map."""
        return cls(FilterFlag(struct.unpack("<I4x", raw)[0]))


def pack_key(tgid: int, start_ns: int, exec_id: int) -> bytes:
    """Make the key of the process table."""
    return _PROCESS_KEY.pack(start_ns, exec_id, tgid)


class Config(NamedTuple):
    """The one element of the config map, for tests and status; the running agent writes its fields one by one."""

    heartbeat_ns: int
    stale_ns: int
    filters: int
    netns_cookie: int
    daemon_cgroup: int
    agent_tgid: int
    revision: int
    mntns: int
    userns: int
    next_script: int
    port4: int
    port6: int
    enforce: int

    def pack(self) -> bytes:
        """As the kernel's map holds it."""
        return packer("config").pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the element of the map."""
        return cls(*packer("config").unpack(raw))

    @property
    def generation(self) -> int:
        """Of the filters in force."""
        return self.filters >> 32

    @property
    def shapes(self) -> int:
        """Bit mask of the shapes in use."""
        return self.filters & 0xFFFFFFFF


class Process(NamedTuple):
    """What the kernel's table holds of one program in one process."""

    start_ns: int
    exec_id: int
    tgid: int
    exe_ino: int
    at_ns: int
    exe_dev: int
    uid: int
    gid: int
    script_id: int
    generation: int
    identity: int
    flags: ProcessFlag
    state: ProcessState

    def pack(self) -> bytes:
        """As the kernel's map holds it."""
        return _PROCESS.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read a value of the map."""
        *numbers, flags, state = _PROCESS.unpack(raw)
        return cls._make((*numbers, ProcessFlag(flags), ProcessState(state)))

    @property
    def key(self) -> bytes:
        """Under which the table holds it."""
        return pack_key(self.tgid, self.start_ns, self.exec_id)


class Record(NamedTuple):
    """Who connected where, as the kernel saw it at connect()."""

    start_ns: int
    exec_id: int
    tgid: int
    cookie: int
    at_ns: int
    tid: int
    uid: int
    gid: int
    script_id: int
    generation: int
    revision: int
    mark: int
    ifindex: int
    port: int
    family: int
    flags: ProcessFlag
    guarded: int
    address_raw: bytes

    def pack(self) -> bytes:
        """As the kernel's socket storage holds it."""
        return _RECORD_PACKER.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the first part of an answer."""
        *numbers, flags, guarded, address = _RECORD_PACKER.unpack_from(raw)
        return cls._make((*numbers, ProcessFlag(flags), guarded, address))

    @property
    def address(self) -> str:
        """Original destination; v4-mapped addresses unmapped."""
        return address_text(self.address_raw)


class Answer(NamedTuple):
    """A record with the live verdict on its owner; cheap to make, the record is read when it is asked for."""

    identity: int
    """Number given by the agent; 0 unless the owner is BOUND."""
    revision: int
    """Of the resource set in force now (``record.revision`` is that of the connect)."""
    reason: KernelReason
    """GRANTED: same program, live agent.  Else DAEMON_DOWN, PROCESS_CHANGED, or OFF_MEANWHILE (since the connection was opened)."""
    state: ProcessState
    current: bool
    """The owner was judged, or settled, under the filters in force now."""
    flags: int
    raw: bytes

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read what getsockopt answered."""
        identity, revision, reason, state, current, flags = _TAIL.unpack_from(raw, _TAIL_AT)
        return cls(identity, revision, _REASONS[reason], _STATES[state], current == 1, flags, raw)

    @property
    def record(self) -> Record:
        """Who connected where."""
        return Record.unpack(self.raw)

    @property
    def observed(self) -> bool:
        """Whether the owner was only observed when it connected: anybody may have written since, so it must never bear a credential."""
        return bool(self.raw[_FLAGS_AT] & ProcessFlag.OBSERVED)

    @property
    def bound(self) -> bool:
        """Whether the owner is attested, alive and unchanged, and the agent too, and the connection was not only observed."""
        return self.reason is KernelReason.GRANTED and self.state is ProcessState.BOUND and not self.observed


class Event(NamedTuple):
    """One hint of the kernel."""

    start_ns: int
    exec_id: int
    tgid: int
    cookie: int
    at_ns: int
    tid: int
    uid: int
    script_id: int
    other_tgid: int
    """FORK: the parent; REFUSED with sender-not-bound: the connection's owner."""
    port: int
    kind: EventKind
    reason: KernelReason
    state: ProcessState
    family: int
    protocol: int
    address_raw: bytes

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read one element of the ring buffer."""
        *numbers, port, kind, reason, state, family, protocol, address = _EVENT.unpack(raw)
        return cls._make((*numbers, port, EventKind(kind), KernelReason(reason), ProcessState(state), family, protocol, address))

    @property
    def address(self) -> str:
        """Destination; empty for process events."""
        return address_text(self.address_raw) if self.family else ""
