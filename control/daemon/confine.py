"""
What each of our processes may still do once it is set up, as tables and as bytes for the kernel.

In: a role.  Out: its capabilities, its seccomp program, its Landlock rights.  confine_io hands them to the kernel.
Numbers come from linux/capability.h, linux/seccomp.h, linux/landlock.h and asm/unistd_64.h.  Pure.
"""

import errno
import socket
import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

# ---- roles -------------------------------------------------------------------------------------------------------------------------

CAPABILITY_NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Those that one of our processes keeps or may come to need; every other one is dropped by its number."""

AGENT_CAPABILITIES = {
    "CAP_BPF": "the bpf() calls: tables are read and written at each attestation and each reload",
    "CAP_NET_ADMIN": "cgroup and sockmap programs and their links; SOCK_DESTROY of connections whose grant was withdrawn",
    "CAP_PERFMON": "programs that read task_struct, and the exec, fork and exit tracepoints",
    "CAP_SYS_PTRACE": "/proc/<pid>/{exe,root,ns} of every user's processes; the ptrace call itself is refused by seccomp",
    "CAP_DAC_READ_SEARCH": "hashing executables that only their owner may read; open_by_handle_at is refused by seccomp",
    "CAP_CHOWN": "giving the admin socket to its group",
}
"""
Capability to why the agent keeps it.

Not there on purpose: CAP_SYS_ADMIN (mounts, setns and fanotify belong to other processes or to their start), CAP_DAC_OVERRIDE (the agent
is uid 0 and owns what it writes), CAP_KILL (the supervisor ends processes), CAP_SETUID and CAP_SETGID (the supervisor starts them).
"""


class Role(NamedTuple):
    """What one kind of process keeps."""

    capabilities: Collection[str]
    network: bool
    """May open sockets of the Internet families."""
    landlock: bool
    """Whether files are limited by path."""
    refused: Sequence[int]
    """System calls that fail with EPERM."""


# ---- system calls ------------------------------------------------------------------------------------------------------------------

NEW_PROGRAM = {"execve": 59, "execveat": 322}
NEW_PROCESS = {"fork": 57, "vfork": 58}
OTHER_PROCESS = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440, "process_mrelease": 448, "kcmp": 312,
    "pidfd_getfd": 438, "move_pages": 279, "migrate_pages": 256, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
}  # fmt: skip
PIDFD = {"pidfd_open": 434, "pidfd_send_signal": 424}
BPF = {"bpf": 321, "perf_event_open": 298}
NAMESPACE = {"unshare": 272, "setns": 308}
MOUNT = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "fspick": 433, "mount_setattr": 442, "open_by_handle_at": 304, "name_to_handle_at": 303, "fanotify_init": 300,
    "quotactl": 179, "quotactl_fd": 443, "mknod": 133, "mknodat": 259,
}  # fmt: skip
MACHINE = {
    "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "swapon": 167,
    "swapoff": 168, "acct": 163, "syslog": 103, "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "vhangup": 153, "modify_ldt": 154, "personality": 135,
}  # fmt: skip
KEYRING = {"add_key": 248, "request_key": 249, "keyctl": 250}
RARE = {"userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
"""Calls of much kernel code and no use to us; io_uring also gets around every rule of this filter."""

_COMMON = (NEW_PROGRAM, NEW_PROCESS, OTHER_PROCESS, MOUNT, MACHINE, KEYRING, RARE, NAMESPACE)
_AGENT = tuple(number for group in _COMMON for number in group.values())
_LEAF = tuple(number for group in (*_COMMON, PIDFD, BPF) for number in group.values())

ROLES = {
    "agent": Role(AGENT_CAPABILITIES, network=True, landlock=False, refused=_AGENT),
    "keys": Role((), network=False, landlock=True, refused=_LEAF),
    "exchange": Role((), network=True, landlock=True, refused=_LEAF),
    "proxy": Role((), network=True, landlock=True, refused=_LEAF),
    "public": Role((), network=False, landlock=True, refused=_LEAF),  # its listener is handed to it, and it calls nobody
}
"""
Role to what it keeps.

The agent is not under Landlock: a process in a Landlock domain may not look into /proc/<pid> of a process outside of it, which is its work.
"""

# ---- seccomp -----------------------------------------------------------------------------------------------------------------------

AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
"""x32 calls carry this bit and other numbers: a filter that forgets them can be walked around."""
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in struct seccomp_data; arguments are 64 bits wide and little-endian, we compare the low halves, as the calls below do."""

_IOCTL, _SOCKET, _SOCKETPAIR, _CLONE, _KILL_CALL, _PRCTL, _TGKILL, _CLONE3 = 16, 41, 53, 56, 62, 157, 234, 435
_PR_SET_DUMPABLE = 4
_CLONE_THREAD = 0x10000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, constant."""


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)


def _when(call: int, body: list[Instruction]) -> list[Instruction]:
    """Run ``body``, which must return on every way, for one call; leaves the number in the accumulator for the rest."""
    return [(_EQUAL, 0, len(body), call), *body]


def _argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index)


def _one_of(index: int, values: Sequence[int], otherwise: int) -> list[Instruction]:
    body = [_argument(index)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, _refuse(otherwise)]


def _none_of(index: int, values: Sequence[int], otherwise: int) -> list[Instruction]:
    body = [_argument(index)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), _refuse(otherwise)]
    return [*body, (_RETURN, 0, 0, _ALLOW)]


def families(network: bool) -> tuple[int, ...]:
    """Address families that socket() may make; netlink is what getaddrinfo() and SOCK_DESTROY use."""
    return (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK) if network else (socket.AF_UNIX,)


def seccomp_program(role: Role, *, own_pid: int, network: bool) -> bytes:
    """
    Write the filter of ``role`` as struct sock_filter[].

    What is refused fails with an errno rather than a signal, so that an honest mistake shows as an error with a place; only a call from
    another machine's table ends the process.  ``clone3`` keeps its flags behind a pointer, out of a filter's sight: ENOSYS makes the C
    library use ``clone``, which may make threads and nothing else.  A process may signal itself only.
    """
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in role.refused:
        program += _when(number, [_refuse(errno.EPERM)])
    program += _when(_CLONE3, [_refuse(errno.ENOSYS)])
    program += _when(_CLONE, [_argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), _refuse(errno.EPERM)])
    for call in (_SOCKET, _SOCKETPAIR):
        program += _when(call, _one_of(0, families(network), errno.EAFNOSUPPORT))
    for call in (_KILL_CALL, _TGKILL):
        program += _when(call, _one_of(0, (own_pid,), errno.EPERM))
    program += _when(_PRCTL, _none_of(0, (_PR_SET_DUMPABLE,), errno.EPERM))
    program += _when(_IOCTL, _none_of(1, (_TIOCSTI, _TIOCLINUX), errno.EPERM))
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


# ---- Landlock ----------------------------------------------------------------------------------------------------------------------

FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR, FS_REMOVE_FILE, FS_MAKE_REG, FS_TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
NET_BIND_TCP, NET_CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1 << 0, 1 << 1

FS_READ = FS_READ_FILE | FS_READ_DIR
FS_KEEP = FS_READ | FS_WRITE_FILE | FS_TRUNCATE | FS_MAKE_REG | FS_REMOVE_FILE
"""A directory of state: files are made, replaced by rename within it, and removed; no directories, devices, sockets or links."""

_FS_RIGHTS_OF_ABI = ((5, 16), (3, 15), (2, 14), (1, 13))
"""First ABI to the number of file-system rights it knows: REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5."""


class Handled(NamedTuple):
    """struct landlock_ruleset_attr: what the domain refuses unless a rule allows it."""

    fs: int
    net: int
    scoped: int

    def packed(self, abi: int) -> bytes:
        """Only as long as the ABI knows, for an older kernel refuses the rest."""
        fields = 3 if abi >= 6 else 2 if abi >= 4 else 1
        return struct.pack(f"<{fields}Q", *self[:fields])


def handled(abi: int, *, network: bool) -> Handled:
    """Everything ``abi`` can refuse; a process with a network keeps connect(), never bind(): its listeners are handed to it."""
    rights = next((count for first, count in _FS_RIGHTS_OF_ABI if abi >= first), 0)
    net = NET_BIND_TCP | (0 if network else NET_CONNECT_TCP)
    return Handled((1 << rights) - 1, net if abi >= 4 else 0, SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if abi >= 6 else 0)


def landlock_missing(abi: int, *, network: bool) -> list[str]:
    """Say what this kernel's Landlock cannot do; each line is one for ``doctor``."""
    if abi < 1:
        return ["landlock: not in this kernel; files are kept from the process by its uid alone"]
    lines = []
    if abi < 3:
        lines.append(f"landlock: ABI {abi} cannot refuse truncate(), which needs 3 (Linux 6.2); the uid still does")
    if abi < 4:
        what = "bind() of TCP" if network else "TCP; seccomp still refuses to make the socket"
        lines.append(f"landlock: ABI {abi} cannot refuse {what}, which needs 4 (Linux 6.7)")
    if abi < 6:
        lines.append(f"landlock: ABI {abi} cannot scope abstract Unix sockets, which needs 6 (Linux 6.12)")
    return lines
