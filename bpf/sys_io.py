"""
The bpf(2) system call, and nothing else.

In: maps, programs and links as numbers and bytes.  Out: descriptors and bytes.  Raises OSError as the kernel gives it, except where a
caller can do something with "not there", which is None or False.  Every descriptor is close-on-exec (the kernel makes them so).
Source: linux/bpf.h, bpf(2).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bpf.maps import MapKind, MapShape
from bpf.programs import LICENSE, Hook, ProgramKind

_NUMBERS: Final = {"x86_64": (321, 324), "aarch64": (280, 283)}
"""bpf(2) and membarrier(2) by machine."""
_BPF, _MEMBARRIER = _NUMBERS.get(platform.machine(), (-1, -1))  # -1: ENOSYS, said by supported()

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _PROG_LOAD, _OBJ_PIN, _OBJ_GET = 0, 1, 2, 3, 4, 5, 6, 7
_PROG_ATTACH, _PROG_DETACH, _INFO_BY_FD, _, _TRACEPOINT_OPEN, _BTF_LOAD = 8, 9, 15, 16, 17, 18
_MAP_LOOKUP_BATCH, _LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 24, 28, 29, 34

ANY, NOEXIST, EXIST = 0, 1, 2
"""BPF_ANY, BPF_NOEXIST, BPF_EXIST"""
_LOG_BYTES = 1 << 20
_BATCH = 1024

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Run one command; gives its result and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _syscall(_BPF, command, buffer, len(attributes)), buffer.raw


def _bytes(value: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Address of a buffer; the caller holds it while the kernel uses it."""
    if isinstance(value, ctypes.Array):
        return ctypes.addressof(value)
    return ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value or 0


def supported() -> bool:
    """Whether this machine is one whose system call numbers and byte order we know."""
    return _BPF > 0


def name_of(name: str) -> bytes:
    """Give a name that bpftool shows: ours begin with cw_, 15 characters at most."""
    return f"cw_{name}"[:15].encode()


# ---- maps --------------------------------------------------------------------------------------------------------------------------


def _storage_btf() -> bytes:
    """Describe a key of int and a value of bytes; socket storage is not made without it."""
    text = b"\0int\0char\0value\0data\0"
    integer = struct.pack("<IIII", 1, 1 << 24, 4, (1 << 24) | 32)  # 1: signed int of 32 bits
    character = struct.pack("<IIII", 5, 1 << 24, 1, 8)  # 2: char
    array = struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, 0)  # 3: char[n]; n is set by the caller
    value = struct.pack("<IIIIII", 10, (4 << 24) | 1, 0, 16, 3, 0)  # 4: struct value { char data[n]; }
    types = integer + character + array + value
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + types + text


def _load_storage_btf(value_bytes: int) -> int:
    raw = bytearray(_storage_btf())
    struct.pack_into("<I", raw, 24 + 16 + 16 + 20, value_bytes)  # number of elements of the array
    struct.pack_into("<I", raw, 24 + 16 + 16 + 24 + 8, value_bytes)  # size of the struct
    blob = bytes(raw)
    return _bpf(_BTF_LOAD, struct.pack("<QQIIII", _bytes(blob), 0, len(blob), 0, 0, 0))[0]


def create_map(shape: MapShape) -> int:
    """Create a map; gives its descriptor."""
    btf = _load_storage_btf(shape.value_bytes) if shape.kind is MapKind.SK_STORAGE else -1
    try:
        attributes = struct.pack(
            "<IIIIIII16sIIIIII",
            shape.kind, shape.key_bytes, shape.value_bytes, shape.entries, shape.flags, 0, 0, name_of(shape.name), 0,
            max(btf, 0), 1 if btf >= 0 else 0, 4 if btf >= 0 else 0, 0, 0,
        )  # fmt: skip
        return _bpf(_MAP_CREATE, attributes)[0]
    finally:
        if btf >= 0:
            os.close(btf)


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Read one value; None when the key is not there."""
    value = ctypes.create_string_buffer(value_bytes)
    try:
        _bpf(_MAP_LOOKUP, struct.pack("<IIQQQ", fd, 0, _bytes(key), _bytes(value), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def update(fd: int, key: bytes, value: bytes, flags: int = ANY) -> bool:
    """Write one value; False when ``flags`` is EXIST and the key is not there."""
    try:
        _bpf(_MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, _bytes(key), _bytes(value), flags))
    except OSError as error:
        if error.errno == errno.ENOENT and flags == EXIST:
            return False
        raise
    return True


def delete(fd: int, key: bytes) -> bool:
    """Delete one key; False when it was not there."""
    try:
        _bpf(_MAP_DELETE, struct.pack("<IIQ", fd, 0, _bytes(key)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def keys(fd: int, key_bytes: int) -> list[bytes]:
    """List the keys of a map that only we write to."""
    found: list[bytes] = []
    following = ctypes.create_string_buffer(key_bytes)
    previous: bytes | None = None
    while True:
        try:
            _bpf(_MAP_NEXT_KEY, struct.pack("<IIQQ", fd, 0, _bytes(previous) if previous is not None else 0, _bytes(following)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        previous = following.raw
        found.append(previous)


def values(fd: int, shape: MapShape) -> Iterator[bytes]:
    """Give every value of a hash that programs are writing to; one that comes or goes meanwhile may be missed."""
    token = ctypes.create_string_buffer(4)
    names = ctypes.create_string_buffer(shape.key_bytes * _BATCH)
    contents = ctypes.create_string_buffer(shape.value_bytes * _BATCH)
    started = False
    while True:
        attributes = struct.pack(
            "<QQQQIIQQ", _bytes(token) if started else 0, _bytes(token), _bytes(names), _bytes(contents), _BATCH, fd, 0, 0
        )
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        done = False
        try:
            _syscall(_BPF, _MAP_LOOKUP_BATCH, buffer, len(attributes))
        except OSError as error:
            if error.errno != errno.ENOENT:  # ENOENT: that was the last of them
                raise
            done = True
        count = struct.unpack_from("<I", buffer.raw, 32)[0]
        raw = contents.raw
        for i in range(count):
            yield raw[i * shape.value_bytes : (i + 1) * shape.value_bytes]
        if done:
            return
        started = True


# ---- programs and links ------------------------------------------------------------------------------------------------------------


def load_program(kind: ProgramKind, hook: Hook, name: str, code: bytes) -> int:
    """Have a program verified; on refusal raises OSError whose message ends with the verifier's last words."""

    license_text = LICENSE + b"\0"

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        attributes = struct.pack(
            "<IIQQIIQII16sII",
            kind, len(code) // 8, _bytes(code), _bytes(license_text),
            1 if log is not None else 0, _LOG_BYTES if log is not None else 0, _bytes(log) if log is not None else 0,
            0, 0, name_of(name), 0, hook,
        )  # fmt: skip
        return _bpf(_PROG_LOAD, attributes)[0]

    try:
        return attempt(None)
    except OSError as first:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except OSError:
            words = log.value.decode(errors="replace").strip().splitlines()[-12:]
            raise OSError(first.errno, f'the kernel refuses program "{name}": {first.strerror}: ' + " | ".join(words)) from None


def attach_cgroup(program: int, cgroup: int, hook: Hook) -> int:
    """Link a program to a cgroup; gives the link's descriptor."""
    return _bpf(_LINK_CREATE, struct.pack("<IIIIQQ", program, cgroup, hook, 0, 0, 0))[0]


def attach_tracepoint(program: int, name: str) -> int:
    """Link a program to a raw tracepoint; gives the link's descriptor."""
    text = name.encode() + b"\0"
    return _bpf(_TRACEPOINT_OPEN, struct.pack("<QII", _bytes(text), program, 0))[0]


def attach_senders(program: int, sockhash: int) -> None:
    """Put the sender check on a sockhash.  Linux 6.1 has no link for it: the map holds the program."""
    _bpf(_PROG_ATTACH, struct.pack("<IIIII", sockhash, program, Hook.SK_MSG_VERDICT, 0, 0))


def detach_senders(program: int, sockhash: int) -> bool:
    """Take the sender check off; False when another program, or none, is there."""
    try:
        _bpf(_PROG_DETACH, struct.pack("<IIIII", sockhash, program, Hook.SK_MSG_VERDICT, 0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return False
        raise
    return True


def update_link(link: int, program: int) -> None:
    """Swap the program behind a link; there is no moment without one."""
    _bpf(_LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0))


def detach_link(link: int) -> bool:
    """Detach a link although others may hold it; False where the kind of link cannot (raw tracepoints: unpin and close)."""
    try:
        _bpf(_LINK_DETACH, struct.pack("<I", link))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


class LinkInfo(NamedTuple):
    """What a link is."""

    kind: int
    program_id: int
    cgroup_id: int
    """0 when the cgroup is gone, or the link is not one to a cgroup."""


_LINK_CGROUP = 3


def link_info(fd: int) -> LinkInfo:
    """Ask what a link is attached to."""
    buffer = ctypes.create_string_buffer(256)
    _bpf(_INFO_BY_FD, struct.pack("<IIQ", fd, len(buffer), _bytes(buffer)))
    kind, _id, program_id, _, cgroup_id = struct.unpack_from("<IIIIQ", buffer.raw)
    return LinkInfo(kind, program_id, cgroup_id if kind == _LINK_CGROUP else 0)


def pin(fd: int, path: Path) -> None:
    """Give an object a name in bpffs, under which it outlives us."""
    text = os.fsencode(path) + b"\0"
    _bpf(_OBJ_PIN, struct.pack("<QII", _bytes(text), fd, 0))


def get_pinned(path: Path) -> int | None:
    """Open a pinned object; None when there is none."""
    text = os.fsencode(path) + b"\0"
    try:
        return _bpf(_OBJ_GET, struct.pack("<QII", _bytes(text), 0, 0))[0]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def wait_for_programs() -> bool:
    """
    Wait until every program that is running now has ended (membarrier GLOBAL is synchronize_rcu).

    False where the kernel does not offer it (nohz_full): then the caller leaves old rows where they are.
    """
    try:
        _syscall(_MEMBARRIER, 1, 0, 0)
    except OSError:
        return False
    return True
