"""
Find compiled programs, or have them compiled in a child that exits.

In: a directory only root can write.  Out: bytecode by program name, and the key of the build.  LLVM never lives in this process.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

from bpf import cache
from bpf.errors import KernelError
from bpf.programs import PROGRAMS

HERE = Path(__file__).resolve().parent
BTF = Path("/sys/kernel/btf/vmlinux")
MAIN = "prog/credwire.bpf.c"
FLAGS = ["-Wall", "-Werror", "-Wno-macro-redefined", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-const-variable"]
"""For the compiler; the last three are about bcc's own headers and the parts of ours that one program does not use."""
COMPILE_TIMEOUT_S = 120
"""0.5 s on real hardware, 8-13 s under software emulation."""


def sources() -> dict[str, bytes]:
    """Read everything the compiler sees, and what writes its assertions."""
    files = [HERE / "abi.h", HERE / "abi.py", HERE / "btf.py", HERE / "compile_io.py", *sorted((HERE / "prog").iterdir())]
    files += sorted(f for f in (HERE / "stub").rglob("*.h"))
    return {str(f.relative_to(HERE)): f.read_bytes() for f in files}


def read_btf() -> bytes:
    """Read the running kernel's description of its structs."""
    try:
        return BTF.read_bytes()
    except OSError as error:
        raise KernelError(
            f"the kernel shows no BTF: {error}", hint="a kernel with CONFIG_DEBUG_INFO_BTF is needed: docs/kernels.md"
        ) from error


def build_key() -> bytes:
    """Give the key of what this source would compile to on this kernel."""
    return cache.key_of(sources(), read_btf(), FLAGS)


def _trusted(path: Path) -> bool:
    """Whether nobody but this user or root can have written the file: bytecode goes into the kernel."""
    for place in (path, path.parent):
        seen = place.lstat()
        if seen.st_uid not in (0, os.geteuid()) or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or stat.S_ISLNK(seen.st_mode):
            return False
    return True


def programs(directory: Path) -> tuple[bytes, dict[str, bytes]]:
    """Give the build key and every program's bytecode, from the cache or freshly compiled; raises KernelError."""
    key = build_key()
    names = [program.name for program in PROGRAMS]
    path = directory / f"{key.hex()[:32]}.json"
    if path.exists() and _trusted(path):
        try:
            return key, cache.decode(path.read_bytes(), key, names)
        except KernelError:
            pass  # cut off by a crash or a full disk: compiled again below
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    compile_in_child(path)
    if not _trusted(path):
        raise KernelError(f'others may write to "{directory}"', hint=f"chown root {directory}; chmod 0700 {directory}")
    found = cache.decode(path.read_bytes(), key, names)
    for old in directory.glob("*.json"):
        if old != path:
            old.unlink(missing_ok=True)
    return key, found


def compile_in_child(target: Path) -> None:
    """Run bpf/compile_io.py with an environment that has nothing in it (clang would honour CPATH and the like)."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "PYTHONPATH": str(HERE.parent),
        "BCC_KERNEL_SOURCE": str(HERE / "stub"),
    }
    errors = []
    for python in dict.fromkeys((sys.executable, "/usr/bin/python3")):  # the distribution's Python is the one that has its bcc
        done = subprocess.run(
            [python, "-P", "-s", "-m", "bpf.compile_io", str(target)],
            env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
        errors.append((done.stderr or done.stdout).strip())
        if "No module named 'bcc'" not in done.stderr:
            break
    raise KernelError(f"the kernel programs do not compile: {errors[-1][-2000:]}", hint="apt-get install python3-bpfcc")
