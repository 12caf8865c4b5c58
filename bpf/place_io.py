"""
Where things hang: the BPF file system, the cgroup tree, our namespaces.

In: paths.  Out: paths that are what they should be, ids that programs compare with.
"""

import ctypes
import os
import socket
from pathlib import Path

from bpf.errors import KernelError

BPFFS = Path("/sys/fs/bpf")
OUR_MARK = "credwire"
"""Source of a BPF file system that we mounted; such a one is unmounted by remove()."""
SO_NETNS_COOKIE = 71
"""asm-generic/socket.h"""
_UMOUNT_DETACH = 2
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _mounts() -> list[tuple[str, str, str]]:
    """List (mount point, kind, source), the topmost last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, source = right.split(" ")[:2]
        point = left.split(" ")[4].encode().decode("unicode_escape")
        found.append((point, kind, source))
    return found


def _mount_of(path: Path) -> tuple[str, str, str]:
    """Find the mount that an existing path lies on."""
    device = path.stat().st_dev
    best = ("", "", "")
    for point, kind, source in _mounts():
        if path.is_relative_to(point) and len(point) >= len(best[0]) and Path(point).stat().st_dev == device:
            best = (point, kind, source)
    return best


def ensure_bpffs(path: Path) -> None:
    """
    Make ``path`` a directory on a BPF file system, mode 0700.

    Mounts one where there is none: at /sys/fs/bpf for a path below it, else at ``path`` itself.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # no resolve(): nothing may be followed here
    below = path.is_relative_to(BPFFS)
    base = BPFFS if below else path
    if not below:
        path.parent.mkdir(parents=True, exist_ok=True)
    nearest = path
    while not nearest.exists():
        nearest = nearest.parent
    if _mount_of(nearest)[1] != "bpf":
        base.mkdir(mode=0o700, exist_ok=True)
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        if _libc.mount(OUR_MARK.encode(), os.fsencode(base), b"bpf", flags, b"mode=0700"):
            code = ctypes.get_errno()
            raise KernelError(
                f'cannot mount a BPF file system at "{base}": {os.strerror(code)}', hint="run as root, outside of a container"
            )
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def release_bpffs(path: Path) -> bool:
    """
    Unmount the BPF file system that ensure_bpffs mounted for ``path``, if it was ours and nothing is left in it.

    The kernel puts ``maps.debug`` and ``progs.debug`` into every fresh one; they are nobody's.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # as above
    base = BPFFS if path.is_relative_to(BPFFS) else path
    ours = [m for m in _mounts() if m == (str(base), "bpf", OUR_MARK)]
    if not ours or any(entry.suffix != ".debug" for entry in base.iterdir()):
        return False
    if _libc.umount2(os.fsencode(base), _UMOUNT_DETACH):
        return False
    if base != BPFFS:
        base.rmdir()
    return True


def cgroup2_root() -> Path:
    """Find the cgroup v2 tree: /sys/fs/cgroup, or /sys/fs/cgroup/unified where v1 is in use beside it."""
    for point, kind, _ in _mounts():
        if kind == "cgroup2":
            return Path(point)
    raise KernelError("no cgroup v2 is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup/unified")


def cgroup_id(path: Path) -> int:
    """Give the id that bpf_get_current_cgroup_id() gives: the directory's inode number, all 64 bits of it."""
    return path.stat().st_ino


def own_netns_cookie() -> int:
    """Give the cookie of the network namespace that this process makes sockets in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def own_namespace(kind: str) -> int:
    """Give the inode number of this process's ``mnt`` or ``user`` namespace."""
    return Path(f"/proc/self/ns/{kind}").stat().st_ino
