"""
An emulated machine without any network: its image, its disks, its one run.

In: a Recipe (Debian's packages and a few files), trees to pack as disks.  Out: the machine's console, a tar that it wrote on its last disk.
The image is built once and kept by the digest of its recipe; the root disk's changes are thrown away with the run.
Nothing of it lives on: qemu dies with this process, whatever ends it.
"""

import ctypes
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

REPO = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86"}
RESULT_BYTES = 8 << 20
PR_SET_PDEATHSIG = 1
MACHINE_FAILED, OUT_OF_TIME = 70, 124


class MachineError(Exception):
    """The machine could not be built or did not give a result: says what, then what to try."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of."""

    packages: tuple[str, ...]
    files: Mapping[str, str]
    """Path below the root to its text; what begins with ``#!`` may be executed."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path below the root to what it points to."""
    size: str = "2G"

    def digest(self) -> str:
        """Name the image by what it is made of."""
        told = [SUITE, self.packages, dict(self.files), dict(self.links), self.size]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def speaker(suite: str) -> Callable[[str], None]:
    """Give what tells people, beside the guest's console."""

    def say(text: str) -> None:
        print(f"{suite}: {text}", file=sys.stderr, flush=True)

    return say


# ---- the image ---------------------------------------------------------------------------------------------------------------------


def missing_tools() -> list[str]:
    """Debian packages that this machine lacks."""
    return [package for program, package in TOOLS.items() if shutil.which(program) is None]


def build_image(cache: Path, recipe: Recipe, say: Callable[[str], None]) -> Path:
    """
    Give the directory with root.img, vmlinuz and initrd.img; builds it when the recipe is new.  Takes about two minutes then.

    ``cache`` is one suite's: images of older recipes in it are removed.
    """
    done = cache / recipe.digest()
    if done.exists():  # renamed into place when it was whole
        return done
    if os.geteuid() != 0:
        raise MachineError("building the image needs root; run it once as root, the result is kept")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _build_image(cache, recipe, done, say)
    return done


def _build_image(cache: Path, recipe: Recipe, done: Path, say: Callable[[str], None]) -> None:
    for stale in cache.glob("*/"):  # of an interrupted build, or of an older recipe
        shutil.rmtree(stale, ignore_errors=True)
    say(f"building the image from Debian's packages into {done}")
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="build-", dir=cache))
    try:
        root = work / "root"
        command = [
            "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(recipe.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
            # the machine has a virtio disk with ext4 and an overlay, nothing else: a small initrd unpacks quickly under emulation
            '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"',
            '--essential-hook=printf "MODULES=list\\nCOMPRESS=zstd\\n" >"$1/etc/initramfs-tools/conf.d/credwire"',
            '--essential-hook=printf "virtio_pci\\nvirtio_blk\\next4\\n" >"$1/etc/initramfs-tools/modules"',
            SUITE, str(root),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        for name, text in recipe.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
            (root / name).chmod(0o755 if text.startswith("#!") else 0o644)
        for name, target in recipe.links.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
        for kind in ("vmlinuz", "initrd.img"):
            newest = sorted((root / "boot").glob(f"{kind}-*"))[-1]
            shutil.copyfile(newest, work / kind)
        make_disk(root, work / "root.img", recipe.size)
        shutil.rmtree(root)
        work.rename(done)
    except (subprocess.CalledProcessError, IndexError, OSError) as error:
        raise MachineError(f"the image could not be built: {error}; see the lines above") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"image built in {time.monotonic() - began:.0f} s")


def make_disk(tree: Path, image: Path, size: str) -> None:
    """Write ``tree`` as an ext4 file system into ``image``; no mount, no loop device."""
    image.touch()  # else mke2fs says that it made it
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(tree), str(image), size], check=True)


def copy_checkout(names: Sequence[str], target: Path) -> None:
    """Copy parts of the checkout, as they are in the work tree."""
    for name in names:
        source = REPO / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"), symlinks=True)
        elif source.exists():
            shutil.copy2(source, target / name)


def pack(tree: Path, image: Path) -> Path:
    """Write a tree as a disk of its own and remove it."""
    bytes_used = sum(entry.lstat().st_size for entry in tree.rglob("*"))
    make_disk(tree, image, f"{(bytes_used * 3 // 2 >> 20) + 64}M")
    shutil.rmtree(tree)
    return image


def result_disk(work: Path) -> Path:
    """Make the disk on which the machine writes its tar."""
    disk = work / "result.img"
    with disk.open("wb") as file:
        file.truncate(RESULT_BYTES)
    return disk


# ---- the machine -------------------------------------------------------------------------------------------------------------------


def accelerator() -> list[str]:
    """
    Choose kvm only where the processor can: /dev/kvm alone proves nothing.

    A machine with the device and without vmx or svm starts under kvm and then never runs an instruction.
    """
    flags = Path("/proc/cpuinfo").read_text()
    if re.search(r"^flags\s*:.*\b(vmx|svm)\b", flags, re.MULTILINE) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def command(image: Path, packed: Path, result: Path, words: Sequence[str], *options: str) -> list[str]:
    """The one qemu call; no network device at all, the root disk's changes are thrown away when qemu ends."""
    kernel = ["console=ttyS0", "panic=-1", "quiet", "root=/dev/vda", "rw", *words]
    return [
        "qemu-system-x86_64", "-machine", "q35", *accelerator(), "-smp", "2", "-m", "2048",
        "-display", "none", "-nodefaults", "-nic", "none", "-serial", "stdio", *options,
        "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", " ".join(kernel),
        "-drive", f"file={image / 'root.img'},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={packed},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={result},if=virtio,format=raw",
    ]  # fmt: skip


def die_with_parent() -> None:
    """Runs in the child before exec: whatever ends us, kill -9 included, ends qemu."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def boot(line: Sequence[str], log: IO[bytes], timeout_s: float) -> float:
    """Run the machine to its power-off, its console on our stdout.  Gives the seconds; raises TimeoutError."""
    began = time.monotonic()
    machine = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent,  # noqa: PLW1509  # no thread runs yet
        start_new_session=True,  # ^C reaches us, and we end it
    )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        machine.kill()

    alarm = threading.Timer(timeout_s, expire)
    alarm.start()
    try:
        if machine.stdout is None:
            raise MachineError("qemu has no console")
        for raw in machine.stdout:
            log.write(raw)
            print(raw.decode(errors="replace").rstrip("\r\n"), flush=True)
        machine.wait()
    finally:
        alarm.cancel()
        machine.kill()
        machine.wait()
    if expired.is_set():
        raise TimeoutError(f"the machine was not done after {timeout_s:.0f} s")
    return time.monotonic() - began


# ---- the result --------------------------------------------------------------------------------------------------------------------


def read_result(disk: Path) -> dict[str, bytes]:
    """Read the tar that the guest wrote on its third disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(disk.read_bytes()), mode="r:") as archive:
            return {
                Path(member.name).name: file.read()
                for member in archive
                if member.isfile() and (file := archive.extractfile(member)) is not None
            }
    except tarfile.TarError as error:
        raise MachineError(f"the machine left no result ({error}); the console above says how far it came") from error


def commit() -> str:
    """The checkout's commit, with a mark when files differ from it."""
    run = subprocess.run(["git", "-C", str(REPO), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return run.stdout.strip()


def work_directory(suite: str) -> Path:
    """Make the run's own directory; one that a killed run left behind goes."""
    for old in Path(tempfile.gettempdir()).glob(f"credwire-{suite}-*"):
        if not Path(f"/proc/{old.name.split('-')[2]}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"credwire-{suite}-{os.getpid()}-"))


def end_by_exception() -> None:
    """Turn signals into an exception, so that every finally runs."""

    def interrupted(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupted)
