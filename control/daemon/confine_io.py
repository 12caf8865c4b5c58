"""
Give up what a process no longer needs, once it holds its descriptors and has imported its modules.

In: the role, its fixed uid and gid, the few paths it reads or writes.
Out: lines for ``status`` and ``doctor`` about what this kernel could not do; SetupError when uid, groups or capabilities could not be given
up, because then nothing else counts.
The tables stand in control/daemon/confine.py, what each layer stops in docs/threat-model.md.

The order matters.  Landlock rules are opened while paths can still be reached; the bounding set needs CAP_SETPCAP; setresuid makes the
process dumpable again and forgets the death signal; Landlock and seccomp want no_new_privs first; seccomp comes last, for it refuses calls
that the steps before it make.
"""

import codecs
import ctypes
import importlib
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from control.daemon.confine import (
    CAPABILITY_NUMBERS,
    FS_KEEP,
    FS_READ,
    FS_READ_FILE,
    FS_WRITE_FILE,
    ROLES,
    handled,
    landlock_missing,
    seccomp_program,
)
from control.errors import SetupError
from control.reason import Reason

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
"""Environment that our processes keep; the rest could name libraries, proxies, trust stores or resolvers."""

NAME_SERVICE = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services")
"""What getaddrinfo() reads."""

TRUST_ROOTS = ("/etc/ssl", "/usr/lib/ssl", "/usr/share/ca-certificates", "/etc/localtime", "/usr/share/zoneinfo")
"""What TLS verification and the printing of times read; all of it is public."""

_WARM_MODULES = (
    "encodings.idna", "stringprep", "unicodedata", "linecache", "traceback", "tracemalloc", "asyncio.selector_events",
    "concurrent.futures.thread", "cryptography.hazmat.backends.openssl.backend",
)  # fmt: skip
"""
Modules that libraries import on first use: host names, the printing of errors, to_thread(), the first ECDSA signature.

A checkout below /root or a home directory is out of reach for the uid that a process takes, whatever Landlock would allow.
"""
_WARM_CODECS = ("utf-8", "ascii", "latin-1", "idna", "punycode")

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 2, 3, 4, 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 23, 24, 38, 39
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
_SYS_CAPGET, _SYS_CAPSET, _SYS_SECCOMP = 125, 126, 317
_SYS_LANDLOCK_CREATE_RULESET, _SYS_LANDLOCK_ADD_RULE, _SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522
_O_PATH = 0o10000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def scrub_environment(keep: Collection[str] = ()) -> list[str]:
    """
    Remove every variable but a few from the environment; gives the names of those removed.

    Also fixes the resolver's configuration as of its first use: under Landlock a replaced /etc/resolv.conf cannot be read again, and the C
    library would then ask 127.0.0.1.  The block that execve laid on the stack keeps its bytes; nothing but root can read it.
    """
    allowed = {*PASSED_ON, *keep}
    removed = sorted(name for name in os.environ if name not in allowed)
    for name in removed:
        del os.environ[name]
    os.environ["RES_OPTIONS"] = "no-reload"
    return removed


def confine(
    role: str,
    uid: int,
    gid: int,
    *,
    keep: Collection[str] | None = None,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    network: bool | None = None,
    parent: int | None = None,
) -> list[str]:
    """
    Give up everything that ``role`` does not need.  Once, from the only thread, after imports and descriptors.

    ``keep`` and ``network`` default to the role's own.  ``writable`` directories may get and lose plain files.  ``parent`` is the pid whose
    death is to be ours (the kernel means the *thread* that forked us); a death signal that was set before is kept.
    Raises SetupError when uid, groups, capabilities or no_new_privs are not as they must be afterwards.
    """
    kept = ROLES[role]
    capabilities = kept.capabilities if keep is None else keep
    has_network = kept.network if network is None else network
    _only_thread()
    if parent is None and _death_signal() != 0:
        parent = os.getppid()  # setresuid forgets it
    _warm_up()
    _must(_prctl(_PR_SET_DUMPABLE, 0), "PR_SET_DUMPABLE")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    abi = _landlock_abi() if kept.landlock else 0
    ruleset = _landlock_ruleset(abi, readable, writable, has_network) if abi > 0 else None
    numbers = {CAPABILITY_NUMBERS[name] for name in capabilities}
    last = _last_capability()
    for number in range(last + 1):
        if number not in numbers:
            _must(_prctl(_PR_CAPBSET_DROP, number), f"PR_CAPBSET_DROP {number}")
    _must(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
    _change_user(uid, gid, keeps=bool(numbers))
    _set_capabilities(numbers)
    _must(_prctl(_PR_SET_DUMPABLE, 0), "PR_SET_DUMPABLE")
    if parent is not None:
        _die_with(parent)
    _verify(uid, gid, numbers, last)
    missing = landlock_missing(abi, network=has_network) if kept.landlock else []
    if kept.landlock:
        missing += _refuse_new_code()
    if ruleset is not None:
        missing += _landlock_enter(ruleset)
    return missing + _seccomp_enter(role, has_network)


# ---- uid, groups, capabilities: these must succeed ---------------------------------------------------------------------------------


def _fail(what: str) -> SetupError:
    return SetupError(Reason.CONFINEMENT_FAILED, what)


def _prctl(option: int, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    result: int = _libc.prctl(option, *(ctypes.c_ulong(value) for value in padded))
    return result


def _must(result: int, what: str) -> int:
    if result < 0:
        raise _fail(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _only_thread() -> None:
    """Capabilities, Landlock and seccomp belong to a thread: one made earlier would keep what we drop."""
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208  # thread ids, not paths
        raise _fail("confine was called with more than one thread running")


def _change_user(uid: int, gid: int, *, keeps: bool) -> None:
    if keeps and uid != 0:
        _must(_prctl(_PR_SET_KEEPCAPS, 1), "PR_SET_KEEPCAPS")
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise _fail(f"cannot become uid {uid}, gid {gid}: {error.strerror}") from error


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _set_capabilities(numbers: Collection[int]) -> None:
    _must(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL), "PR_CAP_AMBIENT_CLEAR_ALL")
    mask = sum(1 << number for number in numbers)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable; low words, high words
    _must(_syscall(_SYS_CAPSET, header, data), "capset")


def _death_signal() -> int:
    number = ctypes.c_int()
    _must(int(_libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)), "PR_GET_PDEATHSIG")
    return number.value


def _die_with(parent: int) -> None:
    _must(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise _fail(f"parent {parent} is gone")


def _verify(uid: int, gid: int, numbers: Collection[int], last: int) -> None:
    """Ask the kernel what is left instead of trusting the calls above."""
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise _fail(f"uid, gid or groups are not those of {uid}:{gid}")
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _must(_syscall(_SYS_CAPGET, header, data), "capget")
    words = struct.unpack("<6I", data.raw)
    mask = sum(1 << number for number in numbers)
    found = [words[i] | words[i + 3] << 32 for i in range(3)]
    if found != [mask, mask, 0]:
        raise _fail(f"capabilities are {found[0]:#x} effective, {found[1]:#x} permitted, {found[2]:#x} inheritable instead of {mask:#x}")
    for number in range(last + 1):
        if _prctl(_PR_CAPBSET_READ, number) == 1 and number not in numbers:
            raise _fail(f"capability {number} is still in the bounding set")
    if _prctl(_PR_GET_DUMPABLE) != 0 or _prctl(_PR_GET_NO_NEW_PRIVS) != 1:
        raise _fail("the process is dumpable or may gain privileges")


# ---- Landlock ----------------------------------------------------------------------------------------------------------------------


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return result


def _landlock_abi() -> int:
    return _syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)


def _program_paths() -> Iterable[Path]:
    """Where code comes from: modules imported late, name-service plug-ins loaded late.  Code is no secret."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    yield from (Path(sysconfig.get_path(name)) for name in names)
    yield from (Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages", "lib-dynload"))
    yield from (Path("/usr/lib"), Path("/lib"), Path("/lib64"), Path("/etc/ld.so.cache"))
    yield Path(__file__).resolve().parents[1]


def _landlock_ruleset(abi: int, readable: Sequence[Path], writable: Sequence[Path], network: bool) -> int:
    """Make the rules while the paths can still be opened; a path that is not there gets no rule and stays refused."""
    refuses = handled(abi, network=network)
    raw = refuses.packed(abi)
    ruleset = _must(_syscall(_SYS_LANDLOCK_CREATE_RULESET, raw, len(raw), 0), "landlock_create_ruleset")
    reads = [*_program_paths(), *readable]
    if network:
        reads += [Path(name) for name in (*NAME_SERVICE, *TRUST_ROOTS)]
    for path in reads:
        _landlock_allow(ruleset, path, FS_READ & refuses.fs)
    for path in writable:
        _landlock_allow(ruleset, path, FS_KEEP & refuses.fs)
    return ruleset


def _landlock_allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= FS_READ_FILE | FS_WRITE_FILE
        rule = struct.pack("<Qi", rights, fd)
        _must(_syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(fd)


def _landlock_enter(ruleset: int) -> list[str]:
    try:
        if _syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) < 0:
            return [f"landlock: {os.strerror(ctypes.get_errno())}; files are kept from the process by its uid alone"]
    finally:
        os.close(ruleset)
    return []


# ---- the rest ----------------------------------------------------------------------------------------------------------------------


def _warm_up() -> None:
    """Load what is loaded on first use: later its files may be out of reach, for Landlock or for the uid."""
    for name in _WARM_MODULES:
        importlib.import_module(name)
    for name in _WARM_CODECS:
        codecs.lookup(name)


def _refuse_new_code() -> list[str]:
    """No memory becomes executable that was not: injected bytes stay data.  Libraries still load, from files."""
    if _prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN) < 0:
        return ["memory-deny-write-execute: not in this kernel, which needs Linux 6.3"]
    return []


class _SockFprog(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _seccomp_enter(role: str, network: bool) -> list[str]:
    if platform.machine() != "x86_64":
        return [f"seccomp: no table of system calls for {platform.machine()}"]
    program = seccomp_program(ROLES[role], own_pid=os.getpid(), network=network)
    given = _SockFprog(len(program) // 8, program)
    if _syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(given)) < 0:
        return [f"seccomp: {os.strerror(ctypes.get_errno())}"]
    return []
