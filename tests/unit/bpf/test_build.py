"""The build's key, its file, and the BTF reader, without a kernel to ask."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import btf, cache
from bpf.errors import KernelError
from bpf.maps import MAPS, layout_digest
from bpf.programs import PROGRAMS

KEY = bytes(range(32))
CODE = {"one": bytes(16), "two": bytes(8)}


def test_key_covers_everything() -> None:
    """Another source, name, BTF or flag is another build."""
    base = cache.key_of({"a": b"x"}, b"btf", ["-O"])
    others = [
        cache.key_of({"a": b"y"}, b"btf", ["-O"]),
        cache.key_of({"b": b"x"}, b"btf", ["-O"]),
        cache.key_of({"a": b"x", "b": b""}, b"btf", ["-O"]),
        cache.key_of({"a": b"x"}, b"BTF", ["-O"]),
        cache.key_of({"a": b"x"}, b"btf", []),
    ]
    assert len({base, *others}) == 6
    assert base == cache.key_of({"a": b"x"}, b"btf", ["-O"])


def test_cache_file_is_read_back() -> None:
    """Whole programs under their key."""
    assert cache.decode(cache.encode(KEY, CODE), KEY, ["one", "two"]) == CODE


@given(st.binary(max_size=60))
def test_noise_is_refused(raw: bytes) -> None:
    """Whatever lies there, the answer is KernelError."""
    with pytest.raises(KernelError):
        cache.decode(raw, KEY, ["one"])


def test_other_build_cut_file_and_missing_program_are_refused() -> None:
    """Each with KernelError."""
    whole = cache.encode(KEY, CODE)
    for raw, key, names in (
        (whole, bytes(32), ["one"]),
        (whole[:-20], KEY, ["one"]),
        (whole, KEY, ["three"]),
        (cache.encode(KEY, {"one": b"123"}), KEY, ["one"]),
        (cache.encode(KEY, {"one": b""}), KEY, ["one"]),
    ):
        with pytest.raises(KernelError):
            cache.decode(raw, key, names)


def test_maps_and_programs_are_numbered_and_named_once() -> None:
    """Map numbers are positions; names are unique within what bpftool shows of them."""
    assert [int(shape.number) for shape in MAPS] == list(range(len(MAPS)))
    for names in ([s.name for s in MAPS], [p.name for p in PROGRAMS]):
        assert len({f"cw_{name}"[:15] for name in names}) == len(names)
    assert len(layout_digest()) == 32


def small_btf() -> bytes:
    """struct outer { int a; struct { int b; }; struct inner c; }; struct inner { int d:4, e; }"""
    text = b"\0int\0outer\0a\0b\0inner\0c\0d\0e\0"
    at = {word: text.index(b"\0" + word + b"\0") + 1 for word in (b"int", b"outer", b"a", b"b", b"inner", b"c", b"d", b"e")}
    types = struct.pack("<IIII", at[b"int"], 1 << 24, 4, 32)  # 1
    types += struct.pack("<III", 0, 4 << 24 | 1, 4) + struct.pack("<III", at[b"b"], 1, 0)  # 2: anonymous
    types += struct.pack("<III", at[b"inner"], 1 << 31 | 4 << 24 | 2, 8)  # 3, kind_flag
    types += struct.pack("<III", at[b"d"], 1, 4 << 24) + struct.pack("<III", at[b"e"], 1, 32)
    types += struct.pack("<III", 0, 10 << 24, 3)  # 4: const inner
    types += struct.pack("<III", at[b"outer"], 4 << 24 | 3, 16)  # 5
    types += struct.pack("<III", at[b"a"], 1, 0) + struct.pack("<III", 0, 2, 32) + struct.pack("<III", at[b"c"], 4, 64)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + types + text


def test_fields_are_found_through_anonymous_and_qualified_structs() -> None:
    """Offsets add up along the path; bit widths of a kind_flag struct are not taken for offsets."""
    types = btf.Btf(small_btf())
    assert [types.offset("outer", path) for path in ("a", "b", "c", "c.d", "c.e")] == [0, 4, 8, 8, 12]
    assert types.size(types.find("outer")) == 16


def test_unknown_names_and_noise_are_said() -> None:
    """With the name that is missing."""
    types = btf.Btf(small_btf())
    with pytest.raises(KernelError, match='"outer" has no field "z"'):
        types.offset("outer", "z")
    with pytest.raises(KernelError, match='no struct "int"'):
        types.find("int")
    with pytest.raises(KernelError, match="not BTF"):
        btf.Btf(bytes(64))
