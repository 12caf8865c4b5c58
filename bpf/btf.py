"""
Read BTF, the kernel's description of its own structs.

In: the bytes of /sys/kernel/btf/vmlinux, or of an object's .BTF section.  Out: offsets of fields, looked up through anonymous structs
and unions.  Source: Documentation/bpf/btf.rst.  Pure.
"""

import struct
from typing import NamedTuple

from bpf.errors import KernelError

_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 1, 3, 4, 5, 6, 13, 14, 15, 17, 19
_WRAPPERS = frozenset({8, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag: the type behind is what counts."""
_POINTER = 2


class Member(NamedTuple):
    """One field of a struct."""

    name: str
    type_id: int
    offset: int
    """In bytes."""


class Btf:
    """All types of one BTF blob."""

    def __init__(self, raw: bytes) -> None:
        """Walk the types once; raises KernelError when this is not BTF."""
        magic, _version, _flags, head, types_at, types_bytes, text_at, text_bytes = struct.unpack_from("<HBBIIIII", raw)
        if magic != 0xEB9F:
            raise KernelError("not BTF: the magic number is missing", hint="the kernel needs CONFIG_DEBUG_INFO_BTF")
        self._text = raw[head + text_at : head + text_at + text_bytes]
        self._raw = raw
        self._at: list[int] = [0]
        """Type id to the offset of its description."""
        self._by_name: dict[int, int] = {}
        """Offset of a struct's name to its type id."""
        at, end = head + types_at, head + types_at + types_bytes
        head3 = struct.Struct("<III").unpack_from
        places, named = self._at, self._by_name
        while at < end:
            name, info, _ = head3(raw, at)
            kind, count = (info >> 24) & 31, info & 0xFFFF
            if kind in (_STRUCT, _UNION) and name:
                named.setdefault(name, len(places))
            places.append(at)
            at += 12
            if kind in (_STRUCT, _UNION, _DATASEC, _ENUM64):
                at += 12 * count
            elif kind in (_ENUM, _FUNC_PROTO):
                at += 8 * count
            elif kind in (_INT, _VAR, _DECL_TAG):
                at += 4
            elif kind == _ARRAY:
                at += 12

    def _name(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode()

    def _strip(self, type_id: int) -> int:
        """Follow typedefs and qualifiers to the type itself."""
        while type_id:
            _, info, following = struct.unpack_from("<III", self._raw, self._at[type_id])
            if (info >> 24) & 31 not in _WRAPPERS:
                break
            type_id = following
        return type_id

    def find(self, name: str) -> int:
        """Give the type id of ``struct name``; raises KernelError when there is none."""
        at = self._text.find(b"\0" + name.encode() + b"\0")
        if at < 0 or at + 1 not in self._by_name:
            raise KernelError(f'the kernel\'s BTF has no struct "{name}"', hint="this kernel is not supported: docs/kernels.md")
        return self._by_name[at + 1]

    def members(self, type_id: int) -> list[Member]:
        """Give the direct fields of a struct or union."""
        at = self._at[self._strip(type_id)]
        _, info, _ = struct.unpack_from("<III", self._raw, at)
        if (info >> 24) & 31 not in (_STRUCT, _UNION):
            return []
        bits_mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF  # kind_flag: the upper byte is the width of a bit field
        found = []
        for i in range(info & 0xFFFF):
            name, member_type, offset = struct.unpack_from("<III", self._raw, at + 12 + 12 * i)
            found.append(Member(self._name(name), member_type, (offset & bits_mask) // 8))
        return found

    def size(self, type_id: int) -> int:
        """Give the size of a type in bytes."""
        at = self._at[self._strip(type_id)]
        _, info, size = struct.unpack_from("<III", self._raw, at)
        kind = (info >> 24) & 31
        if kind == _POINTER:
            return 8
        if kind == _ARRAY:
            element, _, count = struct.unpack_from("<III", self._raw, at + 12)
            return self.size(element) * int(count)
        return int(size)

    def member(self, type_id: int, path: str) -> Member:
        """Find ``ns.inum`` and the like from the start of a struct; raises KeyError when there is no such field."""
        first, _, rest = path.partition(".")
        for m in self.members(type_id):
            if m.name == first:
                if not rest:
                    return m
                inner = self.member(m.type_id, rest)
                return Member(path, inner.type_id, m.offset + inner.offset)
            if not m.name:
                try:
                    inner = self.member(m.type_id, path)
                except KeyError:
                    continue
                return Member(path, inner.type_id, m.offset + inner.offset)
        raise KeyError(path)

    def offset(self, name: str, path: str) -> int:
        """Give the offset of ``struct name``'s field in bytes."""
        try:
            return self.member(self.find(name), path).offset
        except KeyError:
            raise KernelError(
                f'the kernel\'s struct "{name}" has no field "{path}"', hint="this kernel is not supported: docs/kernels.md"
            ) from None


NEEDED: tuple[tuple[str, str], ...] = (
    ("task_struct", "group_leader"),
    ("task_struct", "start_boottime"),
    ("task_struct", "self_exec_id"),
    ("task_struct", "tgid"),
    ("task_struct", "real_cred"),
    ("task_struct", "mm"),
    ("task_struct", "ptrace"),
    ("task_struct", "nsproxy"),
    ("task_struct", "signal"),
    ("cred", "euid"),
    ("cred", "egid"),
    ("cred", "user_ns"),
    ("user_namespace", "ns.inum"),
    ("nsproxy", "mnt_ns"),
    ("mnt_namespace", "ns.inum"),
    ("mm_struct", "exe_file"),
    ("file", "f_inode"),
    ("inode", "i_ino"),
    ("inode", "i_sb"),
    ("super_block", "s_dev"),
    ("signal_struct", "live"),
    ("linux_binprm", "filename"),
    ("linux_binprm", "interp"),
)
"""Every field of the kernel's that a program reads."""


def defines(btf: Btf) -> list[str]:
    """Give the compiler's ``-DOFFSET_task_struct_mm=…`` for every field in NEEDED."""
    return [f"-DOFFSET_{name}_{path.replace('.', '_')}={btf.offset(name, path)}" for name, path in NEEDED]
