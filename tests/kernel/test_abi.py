"""The C compiler's BTF, the kernel's BTF and bpf/abi.py agree."""

import subprocess

import pytest

from bpf import abi, btf, cache_io
from bpf.errors import KernelError
from bpf.layout_io import c_enums, c_layouts, c_struct_fields, compiled_btf


def test_structs_lie_in_c_as_python_reads_them() -> None:
    """Every field of every struct has the offset and size that BTF of the compiled header gives it, padding included."""
    for name, (size, fields) in c_layouts().items():
        assert size == abi.size_of(name), name
        assert fields == tuple(abi.fields(name)), name


def test_python_names_every_field() -> None:
    """A field that C has and Python does not would go unread."""
    for name in abi.LAYOUTS:
        assert c_struct_fields(name) == list(dict.fromkeys(f.name.partition(".")[0] for f in abi.fields(name))), name


def test_enumerators_have_the_same_numbers() -> None:
    """Each Python member has C's value, told through the size of an array that the compiler laid out."""
    for name, value in c_enums().items():
        prefix, _, member = name.partition("_")
        assert int(abi.ENUMS[prefix + "_"][member]) == value, name


def test_programs_do_not_compile_against_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assertions that stand before every compilation refuse a layout that moved by one field."""
    good = '#include "{}"\n{}'.format(cache_io.HERE / "abi.h", abi.assertions())
    types = "typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;\n"
    compiled_btf(types + good)
    monkeypatch.setitem(abi.LAYOUTS, "filter_value", ("pad:4x", "flags:I"))
    bad = '#include "{}"\n{}'.format(cache_io.HERE / "abi.h", abi.assertions())
    with pytest.raises(KernelError, match="filter_value: flags"):
        compiled_btf(types + bad)


def test_offsets_are_the_ones_bpftool_reads() -> None:
    """Our reader of the kernel's BTF and bpftool's C dump agree on where a nested field lies."""
    ours = btf.Btf(cache_io.read_btf())
    command = ["bpftool", "btf", "dump", "file", str(cache_io.BTF), "format", "c"]
    structs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    checks = "".join(
        f"struct at_{number} {{ char bytes[__builtin_offsetof(struct {name}, {path}) + 1]; }} use_{number};\n"
        for number, (name, path) in enumerate(btf.NEEDED)
    )
    theirs = compiled_btf(structs + checks)
    for number, (name, path) in enumerate(btf.NEEDED):
        assert theirs.size(theirs.find(f"at_{number}")) - 1 == ours.offset(name, path), (name, path)


def test_missing_field_is_said() -> None:
    """A kernel without one of our fields is refused with the field's name."""
    ours = btf.Btf(cache_io.read_btf())
    with pytest.raises(KernelError, match='"task_struct" has no field "colour"'):
        ours.offset("task_struct", "colour")
    with pytest.raises(KernelError, match='no struct "taskstruct"'):
        ours.offset("taskstruct", "pid")
