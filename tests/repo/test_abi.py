"""
The kernel boundary is one page in two languages: bpf/abi.h and its twin bpf/abi.py have the same names, offsets and sizes.

This compares the texts, without bcc; tests/kernel compares the compiled layout through BTF.
"""

import enum
import importlib
import inspect
import re
import struct
from typing import NamedTuple

import pytest

from tests.repo.house import REPO, report

HEADER, TWIN = REPO / "bpf" / "abi.h", REPO / "bpf" / "abi.py"
SIZES = {"__u64": 8, "__s64": 8, "__u32": 4, "__s32": 4, "__u16": 2, "__be16": 2, "__be32": 4, "__u8": 1, "char": 1}
FIELD = re.compile(r"^\s*(struct\s+)?(\w+)\s+(\w+)(?:\[(\w+)\])?;", re.MULTILINE)


class Field(NamedTuple):
    """One field as the C compiler lays it out."""

    offset: int
    size: int


class Layout(NamedTuple):
    """One struct as the C compiler lays it out."""

    fields: dict[str, Field]
    size: int
    alignment: int
    holes: list[str]


def _code() -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", HEADER.read_text(), flags=re.DOTALL)


def layouts() -> dict[str, Layout]:
    """Every struct of bpf/abi.h, laid out by the rules of the System V ABI."""
    found: dict[str, Layout] = {}
    for match in re.finditer(r"struct (\w+) \{(.*?)\n\};", _code(), re.DOTALL):
        fields: dict[str, Field] = {}
        holes, at, widest = [], 0, 1
        for nested, kind, field, count in FIELD.findall(match.group(2)):
            size, alignment = (found[kind].size, found[kind].alignment) if nested else (SIZES[kind], SIZES[kind])
            start = -(-at // alignment) * alignment
            if start != at:
                holes.append(f"{start - at} bytes before {field}")
            if nested:
                inner = found[kind].fields.items()
                fields |= {f"{field}.{deeper}": Field(start + place.offset, place.size) for deeper, place in inner}
            else:
                fields[field] = Field(start, size * int(count or 1))
            at, widest = start + size * int(count or 1), max(widest, alignment)
        total = -(-at // widest) * widest
        if total != at:
            holes.append(f"{total - at} bytes at the end")
        found[match.group(1)] = Layout(fields, total, widest, holes)
    return found


def enums() -> dict[str, dict[str, int]]:
    """Every enum of bpf/abi.h."""
    return {
        match.group(1): {word: int(number, 0) for word, number in re.findall(r"(\w+)\s*=\s*(\w+)", match.group(2))}
        for match in re.finditer(r"enum (\w+) \{(.*?)\};", _code(), re.DOTALL)
    }


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))


def test_structs_are_padded_by_hand() -> None:
    """No compiler has to put a hole anywhere, so both see the same bytes without ``packed``."""
    found = layouts()
    assert found, "bpf/abi.h has no structs"
    report([f"bpf/abi.h: struct {name} has a hole of {hole}" for name, layout in found.items() for hole in layout.holes])


def test_structs_have_the_same_layout_in_python() -> None:
    """LAYOUTS of bpf/abi.py has every struct, each with the same fields in the same places, and no other."""
    if not TWIN.exists():
        pytest.skip("bpf/abi.py is not there")
    abi = importlib.import_module("bpf.abi")
    ours, found = layouts(), []
    for name in sorted(set(ours) ^ set(abi.LAYOUTS)):
        found.append(f"bpf/{'abi.h' if name in abi.LAYOUTS else 'abi.py'}: struct {name} is not there")
    for name in sorted(set(ours) & set(abi.LAYOUTS)):
        theirs, at = {}, 0
        for field, shape in (entry.split(":") for entry in abi.LAYOUTS[name]):
            theirs[field] = Field(at, struct.calcsize(f"={shape}"))
            at += theirs[field].size
        if at != ours[name].size:
            found.append(f"bpf/abi.py: {name} has {at} bytes; bpf/abi.h says {ours[name].size}")
        differ = sorted(field for field, _ in set(theirs.items()) ^ set(ours[name].fields.items()))
        if differ:
            found.append(f"bpf/abi.py: {name} differs from bpf/abi.h in {', '.join(dict.fromkeys(differ))}")
    report(found)


def test_enums_have_the_same_numbers_in_python() -> None:
    """Each enum has a twin whose members, without the prefix, have the same numbers."""
    if not TWIN.exists():
        pytest.skip("bpf/abi.py is not there")
    abi = importlib.import_module("bpf.abi")

    found = []
    for word, members in enums().items():
        twin = getattr(abi, _camel(word), None)
        if twin is None or not (inspect.isclass(twin) and issubclass(twin, enum.Enum)):
            found.append(f"bpf/abi.py: enum {word} has no twin {_camel(word)}")
            continue
        prefix = next(iter(members)).split("_")[0] + "_"
        ours = {member.removeprefix(prefix): number for member, number in members.items()}
        theirs = {member.name.removeprefix(prefix): int(member.value) for member in twin.__members__.values()}
        if ours != theirs:
            found.append(f"bpf/abi.py: {_camel(word)} differs from enum {word} in {sorted(set(ours.items()) ^ set(theirs.items()))}")
    report(found)
