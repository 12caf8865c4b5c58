"""
Become somebody somewhere, then exec: the one launcher of the harness.

In: the command line.  Out: the program after ``--`` runs in the wanted cgroup, namespaces and user, in this very process.
``--watch`` is the other mode: wait until stdin ends (our starter died, however it died), then kill and remove a cgroup.
Everything is made from namespaces and cgroups that end with their processes, so a kill -9 of the starter leaves nothing.
Sources: unshare(2), mount_namespaces(7), PR_SET_PDEATHSIG of prctl(2), cgroup.kill of cgroups(7).
"""

import argparse
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_IFA_F_NODAD = 0x02
"""An address that is ours alone need not be probed for: it works at once."""
_KILL_WITHIN_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the thread that started us ends; leave at once if it already has."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def mount(source: str, target: Path | str, kind: str, flags: int, data: str = "") -> None:
    """mount(2).  Raises OSError."""
    arguments = (source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(_libc.mount(*arguments), f"mount {source} at {target}")


def enter_private_mounts(*, hosts: Path | None = None, bpffs: Path | None = None, tmpfs: tuple[Path, ...] = ()) -> None:
    """
    Give this process and its children mounts of their own.

    ``hosts`` is what they read as /etc/hosts; ``bpffs`` gets an empty BPF file system, root only; each of ``tmpfs`` an empty directory.
    All of it ends with the last process inside.  Directories must exist.  Raises OSError.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    if hosts is not None:
        mount(str(hosts), "/etc/hosts", "none", _MS_BIND)
    if bpffs is not None:
        mount("bpf", bpffs, "bpf", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0700")
    for directory in tmpfs:
        mount("tmpfs", directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")


def enter_mounts_of(pid: int) -> None:
    """Move this process into the mount namespace of ``pid``, keeping the working directory by its path."""
    here = Path.cwd()
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNS), f"setns to the mounts of {pid}")
    finally:
        os.close(fd)
    os.chdir(here)


def enter_private_net(ready_fd: int, go_fd: int, link: str, addresses: list[str]) -> None:
    """Take a network namespace of our own, tell the starter, wait for its veth end, give it ``addresses`` (``IP/PREFIX``)."""
    from pyroute2 import IPRoute

    _check(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")
    os.write(ready_fd, b"n")
    if os.read(go_fd, 1) != b"g":
        sys.exit(1)
    with IPRoute() as route:
        for name in ("lo", link):
            (index,) = route.link_lookup(ifname=name)
            route.link("set", index=index, state="up")
        for text in addresses:
            address, _, prefix = text.partition("/")
            flags = _IFA_F_NODAD if ":" in address else 0
            route.addr("add", index=index, address=address, prefixlen=int(prefix), flags=flags)
    os.close(ready_fd)
    os.close(go_fd)


def become(uid: int, gid: int) -> None:
    """Be an ordinary user, for good, without supplementary groups."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def populated(cgroup: Path) -> bool:
    """Tell whether a process lives in ``cgroup`` or below."""
    return "populated 1" in (cgroup / "cgroup.events").read_text()


def end_cgroup(cgroup: Path) -> bool:
    """Kill everything in ``cgroup`` and below, wait until it is dead, remove the directories.  False: something would not die."""
    if not cgroup.is_dir():
        return True
    (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + _KILL_WITHIN_S
    with (cgroup / "cgroup.events").open("rb") as events:
        waiter = select.poll()
        waiter.register(events, select.POLLPRI)  # the kernel reports each change of the file this way
        while populated(cgroup):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            waiter.poll(min(left, 1.0) * 1000)
    for directory, _, _ in os.walk(cgroup, topdown=False):
        Path(directory).rmdir()
    return True


def watch(cgroup: Path, remove: list[Path]) -> int:
    """Outlive the starter: when stdin ends, end ``cgroup`` and remove the directories it worked in."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("watching", flush=True)
    while os.read(0, 64):
        pass
    clean = end_cgroup(cgroup)
    for directory in remove:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if clean else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inside", description=__doc__)
    parser.add_argument("--watch", type=Path, metavar="CGROUP")
    parser.add_argument("--remove", type=Path, action="append", default=[], help="with --watch: directory to remove at the end")
    parser.add_argument("--parent", type=int, default=0, help="die with this process, our starter")
    parser.add_argument("--cgroup", type=Path, help="join it")
    parser.add_argument("--private-mounts", action="store_true")
    parser.add_argument("--mounts-of", type=int, default=0, metavar="PID", help="enter the mount namespace of this process")
    parser.add_argument("--hosts", type=Path)
    parser.add_argument("--bpffs", type=Path)
    parser.add_argument("--tmpfs", type=Path, action="append", default=[])
    parser.add_argument("--link", default="", help="take a network namespace; the name of our veth end in it")
    parser.add_argument("--address", action="append", default=[], metavar="IP/PREFIX")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--go-fd", type=int, default=-1)
    parser.add_argument("--uid", type=int, default=-1)
    parser.add_argument("--gid", type=int, default=-1)
    parser.add_argument("argv", nargs="*")
    return parser.parse_args()


def launch(options: argparse.Namespace) -> NoReturn:
    """Do what ``options`` say, in an order in which each step is still allowed, then exec."""
    if options.cgroup is not None:
        (options.cgroup / "cgroup.procs").write_text("0")
    if options.link:
        enter_private_net(options.ready_fd, options.go_fd, options.link, options.address)
    if options.mounts_of:
        enter_mounts_of(options.mounts_of)
    if options.private_mounts:
        enter_private_mounts(hosts=options.hosts, bpffs=options.bpffs, tmpfs=tuple(options.tmpfs))
    if options.uid >= 0:
        become(options.uid, options.gid if options.gid >= 0 else options.uid)
    if options.parent:
        die_with_parent(options.parent)  # last: the kernel forgets it when the user changes
    os.execvp(options.argv[0], options.argv)  # noqa: S606  # the caller's program, no shell


def main() -> int:
    """Watch or launch."""
    options = _arguments()
    if options.watch is not None:
        return watch(options.watch, options.remove)
    if not options.argv:
        print('inside: error: no program after "--"', file=sys.stderr)
        return 2
    launch(options)


if __name__ == "__main__":
    sys.exit(main())
