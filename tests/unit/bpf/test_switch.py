"""
The switch's cell, over memory in the place of the map.

In: a memfd.  Out: how it reads, and what is left in it.
"""

import math
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import switch_io
from bpf.errors import KernelError
from bpf.switch_io import FOREVER, Cell


@pytest.fixture
def memory() -> Iterator[int]:
    """A page, as the kernel gives for the map."""
    fd = os.memfd_create("switch")
    os.truncate(fd, mmap.PAGESIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def cell(memory: int) -> Iterator[Cell]:
    """The switch, never thrown."""
    made = Cell(memory)
    yield made
    made.close()


def held(memory: int) -> int:
    """What programs read."""
    number: int = struct.unpack("<Q", os.pread(memory, 8, 0))[0]
    return number


def test_never_thrown_is_on_and_stays_untouched(cell: Cell, memory: int) -> None:
    """Turning on what is on writes nothing: connections from before would lose their credential by it."""
    assert cell.read() == (False, 0)
    cell.turn_on()
    assert held(memory) == 0


def test_for_ever_is_all_ones(cell: Cell, memory: int) -> None:
    """No clock reaches it; turned on, the cell keeps the moment."""
    cell.turn_off(None)
    assert cell.read() == (True, FOREVER)
    assert held(memory) == 2**64 - 1
    before = time.monotonic_ns()
    cell.turn_on()
    assert before <= held(memory) <= time.monotonic_ns()
    assert cell.read() == (False, 0)


def test_last_word_counts(cell: Cell) -> None:
    """A time replaces for ever, and a shorter time a longer one."""
    cell.turn_off(None)
    cell.turn_off(1000)
    longer = cell.read()
    cell.turn_off(10)
    shorter = cell.read()
    assert longer.off
    assert shorter.off
    assert shorter.until_ns < longer.until_ns < FOREVER
    assert 9.9e9 < shorter.until_ns - time.monotonic_ns() <= 10e9


def test_a_time_that_is_over_reads_as_on(cell: Cell, memory: int) -> None:
    """Nobody has to write for it to end."""
    os.pwrite(memory, struct.pack("<Q", time.monotonic_ns()), 0)
    assert cell.read() == (False, 0)


def test_longer_than_the_clock_is_for_ever(cell: Cell) -> None:
    """Six hundred years do not wrap around to the past."""
    cell.turn_off(600 * 365 * 86400.0)
    assert cell.read() == (True, FOREVER)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_no_time_is_refused(cell: Cell, memory: int, wrong: float) -> None:
    """With a hint, and nothing is written."""
    with pytest.raises(KernelError) as caught:
        cell.turn_off(wrong)
    assert caught.value.hint
    assert held(memory) == 0


def test_nothing_attached_is_no_error(tmp_path: Path) -> None:
    """Traffic is direct already: None and False, also where there is no directory."""
    for pins in (tmp_path, tmp_path / "missing"):
        assert switch_io.read(pins) is None
        assert not switch_io.turn_off(pins, 5)
        assert not switch_io.turn_on(pins)
