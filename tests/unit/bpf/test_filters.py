"""Filters become rows that the programs look up; the Python judge and the rows agree."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.abi import FilterFlag, FilterKey, FilterPart, KernelFilter, Process, ProcessFlag, ProcessState
from bpf.errors import KernelError
from bpf.filters import allowed, kernel_dev, match, network_keys, port_bits, rows, script_key, scripts_of, shape_of

EXE, OTHER = (8 << 20 | 1, 42), (8 << 20 | 1, 43)
SCRIPTS = {"/opt/tool": 1, "/opt/other": 2}


def process(exe: tuple[int, int] = EXE, uid: int = 1001, script_id: int = 0) -> Process:
    """A process as the table holds it."""
    return Process(1, 1, 100, exe[1], 0, exe[0], uid, uid, script_id, 1, 0, ProcessFlag(0), ProcessState.PENDING)


FILTERS = st.builds(
    KernelFilter,
    exe=st.sampled_from([None, EXE, OTHER]),
    uid=st.sampled_from([None, 0, 1001]),
    script=st.sampled_from([None, *SCRIPTS]),
    direct_when_down=st.booleans(),
    observe=st.booleans(),
).filter(lambda f: (f.exe, f.uid, f.script) != (None, None, None))


def hits(f: KernelFilter, p: Process) -> bool:
    """The rule itself: every part that is named holds."""
    return (
        (f.exe is None or f.exe == (p.exe_dev, p.exe_ino))
        and (f.uid is None or f.uid == p.uid)
        and (f.script is None or SCRIPTS[f.script] == p.script_id)
    )


@given(st.lists(FILTERS, max_size=6))
def test_rows_judge_as_the_filters_read(filters: list[KernelFilter]) -> None:
    """For any filters and any process: a hit is a hit, and direct or observed only when every hit says so."""
    found, shapes = rows(filters, SCRIPTS, generation=1)
    for exe, uid, script_id in itertools.product((EXE, OTHER), (0, 1001, 7), (0, 1, 2)):
        p = process(exe, uid, script_id)
        that_hit = [f for f in filters if hits(f, p)]
        flags = match(found, p, 1)
        assert bool(flags & FilterFlag.MATCH) == bool(that_hit)
        assert bool(flags & FilterFlag.DIRECT_WHEN_DOWN) == (bool(that_hit) and all(f.direct_when_down for f in that_hit))
        assert bool(flags & FilterFlag.OBSERVE) == (bool(that_hit) and all(f.observe for f in that_hit))
        assert bool(allowed(flags) & ProcessFlag.DIRECT_WHEN_DOWN) == bool(flags & FilterFlag.DIRECT_WHEN_DOWN)
        assert bool(allowed(flags) & ProcessFlag.OBSERVED) == bool(flags & FilterFlag.OBSERVE)
        assert not match(found, p, 2)
    assert shapes == sum({1 << shape_of(f) for f in filters})


@given(st.lists(FILTERS, max_size=6))
def test_every_named_executable_is_listed(filters: list[KernelFilter]) -> None:
    """The programs let an executable go after one look-up when it has no row of its own: those that are named have one."""
    found, _ = rows(filters, SCRIPTS, generation=3)
    for f in filters:
        if f.exe is not None:
            assert FilterKey(f.exe[1], f.exe[0], 0, 0, 3, FilterPart.EXE) in found


def test_executable_that_is_only_listed_does_not_match() -> None:
    """A filter on executable and uid lists the executable, and takes nobody else who runs it."""
    found, _ = rows([KernelFilter(EXE, 1001, None)], {}, 1)
    assert match(found, process(uid=1001), 1)
    assert not match(found, process(uid=1002), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        KernelFilter(None, None, None),
        KernelFilter(EXE, None, "tool"),
        KernelFilter(EXE, None, "/" + "x" * 254),
        KernelFilter(EXE, None, "/"),
    ],
    ids=["everything", "relative", "too long", "root"],
)
def test_filters_that_cannot_work_are_refused(wrong: KernelFilter) -> None:
    """What would match everything, or can never match, is an error with a hint."""
    with pytest.raises(KernelError) as caught:
        rows([wrong], {wrong.script: 1} if wrong.script else {}, 1)
    assert caught.value.hint


def test_longest_script_fits() -> None:
    """254 bytes are taken whole; the key is padded with zeros."""
    path = "/" + "x" * 253
    rows([KernelFilter(EXE, None, path)], {path: 1}, 1)
    assert script_key(path) == path.encode() + b"\0\0"


def test_scripts_are_listed_once() -> None:
    """In the order in which they are first named."""
    filters = [KernelFilter(EXE, u, s) for u, s in ((1, "/b"), (2, None), (3, "/a"), (4, "/b"))]
    assert scripts_of(filters) == ["/b", "/a"]


def test_ports_are_bits() -> None:
    """Bit ``port & 63`` of word ``port >> 6``, little-endian; what is no port is refused."""
    bits = port_bits([1, 443, 65535])
    assert len(bits) == 8192
    assert {p for p in range(65536) if bits[p >> 3] >> (p & 7) & 1} == {1, 443, 65535}
    for wrong in (0, -1, 65536):
        with pytest.raises(KernelError):
            port_bits([wrong])


def test_networks_are_held_as_ipv6() -> None:
    """An IPv4 network is the mapped one; the prefix counts the generation's 32 bits."""
    four, six = network_keys(["192.0.2.0/24", "2001:db8::/32"], 5)
    assert four == (32 + 96 + 24).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(10) + b"\xff\xff\xc0\x00\x02\x00"
    assert six == (32 + 32).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes.fromhex("20010db8") + bytes(12)


@given(st.integers(0, 4095), st.integers(0, (1 << 20) - 1))
def test_device_numbers_are_the_kernels(major: int, minor: int) -> None:
    """stat(2) and the kernel pack major and minor differently."""
    assert kernel_dev(os.makedev(major, minor)) == major << 20 | minor
