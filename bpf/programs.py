"""
The programs: what kind each one is and where it hangs.

In: nothing.  Out: PROGRAMS, in the order they are attached: what knows processes first, what takes connections last.  Pure.
"""

from enum import IntEnum, StrEnum
from typing import NamedTuple


class ProgramKind(IntEnum):
    """enum bpf_prog_type, linux/bpf.h"""

    SOCK_OPS = 13
    SK_MSG = 16
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    CGROUP_SOCKOPT = 25


class Hook(IntEnum):
    """enum bpf_attach_type, linux/bpf.h; NONE for raw tracepoints, which are named instead"""

    NONE = 0
    SOCK_OPS = 3
    SK_MSG_VERDICT = 7
    BIND4 = 8
    BIND6 = 9
    CONNECT4 = 10
    CONNECT6 = 11
    SENDMSG4 = 14
    SENDMSG6 = 15
    GETSOCKOPT = 21
    GETPEERNAME4 = 29
    GETPEERNAME6 = 30


class Where(StrEnum):
    """What a program is attached to."""

    SCOPE = "scope"
    """The cgroup whose processes are watched (the root, when installed)."""
    DAEMON = "daemon"
    """The cgroup of our own processes."""
    KERNEL = "kernel"
    """A raw tracepoint."""
    SENDERS = "senders"
    """The sockhash of redirected sockets."""


class Program(NamedTuple):
    """One program."""

    name: str
    """Of the C function, and of the link's pin."""
    kind: ProgramKind
    hook: Hook
    where: Where
    tracepoint: str = ""


_ADDR = ProgramKind.CGROUP_SOCK_ADDR

PROGRAMS: tuple[Program, ...] = (
    Program("exec_tracker", ProgramKind.RAW_TRACEPOINT, Hook.NONE, Where.KERNEL, "sched_process_exec"),
    Program("fork_tracker", ProgramKind.RAW_TRACEPOINT, Hook.NONE, Where.KERNEL, "task_newtask"),
    Program("exit_tracker", ProgramKind.RAW_TRACEPOINT, Hook.NONE, Where.KERNEL, "sched_process_exit"),
    Program("sender", ProgramKind.SK_MSG, Hook.SK_MSG_VERDICT, Where.SENDERS),
    Program("getsockopt_record", ProgramKind.CGROUP_SOCKOPT, Hook.GETSOCKOPT, Where.DAEMON),
    Program("sockops", ProgramKind.SOCK_OPS, Hook.SOCK_OPS, Where.SCOPE),
    Program("getpeername4", _ADDR, Hook.GETPEERNAME4, Where.SCOPE),
    Program("getpeername6", _ADDR, Hook.GETPEERNAME6, Where.SCOPE),
    Program("bind4", _ADDR, Hook.BIND4, Where.SCOPE),
    Program("bind6", _ADDR, Hook.BIND6, Where.SCOPE),
    Program("sendmsg4", _ADDR, Hook.SENDMSG4, Where.SCOPE),
    Program("sendmsg6", _ADDR, Hook.SENDMSG6, Where.SCOPE),
    Program("connect4", _ADDR, Hook.CONNECT4, Where.SCOPE),
    Program("connect6", _ADDR, Hook.CONNECT6, Where.SCOPE),
)

LICENSE = b"GPL v2"
"""The half of the dual licence that the helpers ask for; one of the strings that the kernel takes as GPL-compatible."""
