"""Reading /proc: the command name is the process's own mouth and must not shift a field."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.facts.proc import MalformedProcError, parse_stat, parse_status

TAIL = b" S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8123456 1000 10 18446744073709551615\n"
STATUS = b"Name:\t%b\nUmask:\t0022\nState:\tS\nTgid:\t7\nPid:\t9\nTracerPid:\t%d\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"


@pytest.mark.parametrize("comm", [b"python3", b"a b", b")", b"((", b") S 1 (", b"x) Z 0 0 0", b"", b"\xff\n)", b"7 (evil) R 1"])
def test_a_command_name_never_shifts_the_start_time(comm: bytes) -> None:
    """Whatever a process calls itself, field 22 is field 22."""
    stat = parse_stat(b"7 (" + comm + b")" + TAIL)
    assert (stat.pid, stat.comm, stat.state, stat.start_ticks) == (7, comm, "S", 8123456)


@given(st.binary(max_size=15))
def test_no_command_name_at_all_shifts_the_start_time(comm: bytes) -> None:
    """The same for every name that fits into TASK_COMM_LEN."""
    assert parse_stat(b"7 (" + comm + b")" + TAIL).start_ticks == 8123456


@pytest.mark.parametrize("raw", [b"", b"7 python3 S 1", b"7 (x) S 1 2 3", b"x (x)" + TAIL, b"7 (x) S" + b" y" * 30])
def test_a_stat_line_that_the_kernel_would_not_write_is_refused(raw: bytes) -> None:
    """Half a line or letters for numbers raise instead of giving a wrong start time."""
    with pytest.raises(MalformedProcError):
        parse_stat(raw)


def test_our_own_stat_line_is_read() -> None:
    """The kernel's own bytes: our pid, running."""
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    assert stat.pid == os.getpid()
    assert stat.start_ticks > 0


def test_status_gives_tracer_and_all_four_uids() -> None:
    """Real, effective, saved and file system ids in the kernel's order."""
    status = parse_status(STATUS % (b"x", 12))
    assert (status.tgid, status.tracer_pid, status.uids, status.gids) == (7, 12, (1, 2, 3, 4), (5, 6, 7, 8))


@pytest.mark.parametrize("name", [b"TracerPid:\t0", b"x\\nTracerPid:\\t0", b"Uid:\t0\t0\t0\t0", b"Tgid:"])
def test_a_name_that_looks_like_a_field_is_no_field(name: bytes) -> None:
    """A process named "TracerPid: 0" stays traced."""
    assert parse_status(STATUS % (name, 12)).tracer_pid == 12
    assert parse_status(STATUS % (name, 12)).uids[1] == 2


def test_a_status_without_a_field_is_refused() -> None:
    """A missing tracer line is not the same as no tracer."""
    with pytest.raises(MalformedProcError, match="TracerPid"):
        parse_status(b"Name:\tx\nTgid:\t7\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n")
    with pytest.raises(MalformedProcError, match="Uid"):
        parse_status(b"Name:\tx\nTgid:\t7\nTracerPid:\t0\nUid:\t1\t1\nGid:\t1\t1\t1\t1\n")
