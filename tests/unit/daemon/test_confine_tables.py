"""The tables of confinement say what they are meant to; the filter is played by a small machine, the kernel's rules in Python."""

import errno
import socket
import struct

import pytest

from control.daemon.confine import (
    AGENT_CAPABILITIES,
    AUDIT_ARCH_X86_64,
    CAPABILITY_NUMBERS,
    ROLES,
    handled,
    landlock_missing,
    seccomp_program,
)

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
READ, SENDMSG, RECVMSG, GETSOCKOPT, OPENAT, CLONE, CLONE3, SOCKET, KILL_CALL, PRCTL, BPF, EXECVE = (
    0,
    46,
    47,
    55,
    257,
    56,
    435,
    41,
    62,
    157,
    321,
    59,
)


def verdict(program: bytes, number: int, *arguments: int, arch: int = AUDIT_ARCH_X86_64) -> int:
    """Run a classic BPF program over one struct seccomp_data, by the rules of linux/filter.h."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *(0,) * (6 - len(arguments)))
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        kind, if_true, if_false, value = code[at]
        at += 1
        match kind:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x45:
                at += if_true if accumulator & value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"instruction {kind:#x} is not in the table")


@pytest.fixture
def proxy() -> bytes:
    """The filter of a proxy with pid 77."""
    return seccomp_program(ROLES["proxy"], own_pid=77, network=True)


@pytest.mark.parametrize("number", [READ, SENDMSG, RECVMSG, GETSOCKOPT, OPENAT])
def test_ordinary_calls_pass(proxy: bytes, number: int) -> None:
    """What a proxy lives on is allowed whatever its arguments, so that the kernel may cache the answer."""
    assert verdict(proxy, number, 1, 2, 3) == ALLOW


@pytest.mark.parametrize("number", sorted(ROLES["proxy"].refused))
def test_refused_calls_end_with_eperm(proxy: bytes, number: int) -> None:
    """Each call of the role's list is refused by errno."""
    assert verdict(proxy, number) == ERRNO | errno.EPERM


def test_threads_pass_and_processes_do_not(proxy: bytes) -> None:
    """clone makes threads only; clone3, whose flags a filter cannot see, is said not to exist so that the C library takes clone."""
    assert verdict(proxy, CLONE, 0x3D0F00) == ALLOW
    assert verdict(proxy, CLONE, 0x1200011) == ERRNO | errno.EPERM
    assert verdict(proxy, CLONE3) == ERRNO | errno.ENOSYS


def test_families_are_those_of_the_role() -> None:
    """A proxy makes Internet and Unix sockets, keys only Unix ones, nobody packet or vsock ones."""
    proxy = seccomp_program(ROLES["proxy"], own_pid=77, network=True)
    keys = seccomp_program(ROLES["keys"], own_pid=77, network=False)
    refused = ERRNO | errno.EAFNOSUPPORT
    assert [verdict(proxy, SOCKET, f) for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)] == [ALLOW] * 4
    assert [verdict(keys, SOCKET, f) for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)] == [ALLOW, refused, refused]
    assert [verdict(proxy, SOCKET, f) for f in (socket.AF_PACKET, 40)] == [refused, refused]


def test_a_signal_goes_to_oneself_only(proxy: bytes) -> None:
    """kill of the own pid passes, of any other and of everybody does not."""
    assert verdict(proxy, KILL_CALL, 77, 6) == ALLOW
    assert [verdict(proxy, KILL_CALL, pid & 0xFFFFFFFFFFFFFFFF, 9) for pid in (1, 78, -1, 0)] == [ERRNO | errno.EPERM] * 4


def test_prctl_may_not_make_the_process_dumpable(proxy: bytes) -> None:
    """PR_SET_DUMPABLE is refused, PR_SET_NAME passes."""
    assert verdict(proxy, PRCTL, 4, 1) == ERRNO | errno.EPERM
    assert verdict(proxy, PRCTL, 15) == ALLOW


def test_calls_of_another_table_end_the_process(proxy: bytes) -> None:
    """32-bit and x32 calls have other numbers: 11 is execve there, and no rule would see it."""
    assert verdict(proxy, 11, arch=0x40000003) == KILL
    assert verdict(proxy, 0x40000000 | 520) == KILL


def test_the_agent_has_bpf_and_still_no_exec() -> None:
    """bpf() is the agent's work, a new program is nobody's."""
    agent = seccomp_program(ROLES["agent"], own_pid=77, network=True)
    assert verdict(agent, BPF) == ALLOW
    assert verdict(agent, EXECVE) == ERRNO | errno.EPERM


def test_only_the_agent_keeps_capabilities_and_each_has_its_reason() -> None:
    """Four roles keep none; the agent's list is known by number, has a reason each, and does not hold the one that is nearly root."""
    assert {name: set(role.capabilities) for name, role in ROLES.items() if role.capabilities} == {"agent": set(AGENT_CAPABILITIES)}
    assert set(AGENT_CAPABILITIES) <= set(CAPABILITY_NUMBERS)
    assert all(AGENT_CAPABILITIES.values())
    assert "CAP_SYS_ADMIN" not in AGENT_CAPABILITIES


@pytest.mark.parametrize(("abi", "length"), [(1, 8), (2, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24)])
def test_landlock_asks_for_no_more_than_the_abi_knows(abi: int, length: int) -> None:
    """The attribute is as long as that kernel's struct, and no right is younger than it."""
    ruleset = handled(abi, network=False)
    assert len(ruleset.packed(abi)) == length
    assert ruleset.fs.bit_length() == {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16}[abi]
    assert bool(ruleset.net) == (abi >= 4)
    assert bool(ruleset.scoped) == (abi >= 6)


def test_a_process_with_a_network_keeps_connect_and_loses_bind() -> None:
    """keys loses both; a proxy connects to where its clients wanted."""
    assert handled(7, network=True).net == 1
    assert handled(7, network=False).net == 3


def test_what_the_kernel_lacks_is_said() -> None:
    """No line on a kernel that has everything; one for each missing part on Debian 12 (ABI 2); one for all of it without Landlock."""
    assert landlock_missing(7, network=True) == []
    assert len(landlock_missing(2, network=True)) == 3
    assert landlock_missing(-1, network=True) == ["landlock: not in this kernel; files are kept from the process by its uid alone"]
