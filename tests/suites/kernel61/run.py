"""
Run the kernel tests on Debian 12's own 6.1 kernel, in an emulated machine without any network.

In: the checkout, its .venv, Debian's packages (first time only).  Out: the tests' output,
build/suites/kernel61.json and the tests' exit status; 70 when the machine itself failed, 124 when it ran out of time.
The image is built once and kept by the digest of its recipe; the repository travels on a disk of its own that is made for each run.
Nothing of it lives on: qemu dies with this process, whatever ends it.
"""

import argparse
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
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

REPO = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
CACHE = Path("/var/cache/credwire/vm")
SUITE = "bookworm"
PACKAGES = (
    "linux-image-amd64",  # the kernel under test, 6.1
    "initramfs-tools",  # its initrd
    "python3",
    "python3-bpfcc",  # bcc as the distribution ships it
    "gcc",  # tests build small helpers in C
    "libc6-dev",
    "iproute2",  # lo, namespaces, veth pairs
    "kmod",  # tls, overlay
    "procps",
    "bpftool",  # for the eyes of whoever looks for a fault
)
FIRST_PROGRAM = """#!/bin/sh
# Continue in the script on the second disk, so that a change to it needs no new image.
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /mnt/packed
mount -o ro /dev/vdb /mnt/packed
exec bash /mnt/packed/repo/tests/suites/kernel61/guest_init.sh
"""
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86"}
PACKED = ("bpf", "control", "sysfs_fallback", "tests", "pyproject.toml")
UNPACKED_SITE = {"mypy", "ruff", "grpc_tools", "pip", "setuptools", "oci"}
"""Distributions of .venv that no test inside needs; they are large."""
RESULT_BYTES = 8 << 20
PR_SET_PDEATHSIG = 1
MACHINE_FAILED, OUT_OF_TIME = 70, 124


class MachineError(Exception):
    """The machine could not be built or did not give a result: says what, then what to try."""


def say(text: str) -> None:
    """Tell people, beside the guest's console."""
    print(f"kernel61: {text}", file=sys.stderr, flush=True)


# ---- the image ---------------------------------------------------------------------------------------------------------------------


def recipe_digest() -> str:
    """Name the image by what it is made of."""
    return hashlib.sha256(json.dumps([SUITE, PACKAGES, FIRST_PROGRAM]).encode()).hexdigest()[:16]


def missing_tools() -> list[str]:
    """Debian packages that this machine lacks."""
    return [package for program, package in TOOLS.items() if shutil.which(program) is None]


def build_image(cache: Path) -> Path:
    """Give the directory with root.img, vmlinuz and initrd.img; builds it when the recipe is new.  Takes about two minutes then."""
    done = cache / recipe_digest()
    if done.exists():  # renamed into place when it was whole
        return done
    if os.geteuid() != 0:
        raise MachineError("building the image needs root; run it once as root, the result is kept")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _build_image(cache, done)
    return done


def _build_image(cache: Path, done: Path) -> None:
    for stale in cache.glob("*/"):  # of an interrupted build, or of an older recipe
        shutil.rmtree(stale, ignore_errors=True)
    say(f"building the image from Debian's packages into {done}")
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="build-", dir=cache))
    try:
        root = work / "root"
        recipe = [
            "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
            # the machine has a virtio disk with ext4 and an overlay, nothing else: a small initrd unpacks quickly under emulation
            '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"',
            '--essential-hook=printf "MODULES=list\\nCOMPRESS=zstd\\n" >"$1/etc/initramfs-tools/conf.d/credwire"',
            '--essential-hook=printf "virtio_pci\\nvirtio_blk\\next4\\n" >"$1/etc/initramfs-tools/modules"',
            SUITE, str(root),
        ]  # fmt: skip
        subprocess.run(recipe, check=True, stdin=subprocess.DEVNULL)
        first = root / "init-from-vdb"
        first.write_text(FIRST_PROGRAM)
        first.chmod(0o755)
        for kind in ("vmlinuz", "initrd.img"):
            newest = sorted((root / "boot").glob(f"{kind}-*"))[-1]
            shutil.copyfile(newest, work / kind)
        make_disk(root, work / "root.img", "2G")
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


def pack_repository(work: Path) -> Path:
    """Write the checkout and the Python packages of its .venv as one disk."""
    tree = work / "tree"
    for name in PACKED:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, tree / "repo" / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"), symlinks=True)
        elif source.exists():
            (tree / "repo").mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / "repo" / name)
    site = next((REPO / ".venv" / "lib").glob("python3.*/site-packages"), None)
    if site is None:
        raise MachineError("there is no .venv with the tests' packages; make one with 'make venv'")
    unwanted = [f"{name}{tail}" for name in UNPACKED_SITE for tail in ("", "-*", ".libs")]
    shutil.copytree(site, tree / "site", ignore=shutil.ignore_patterns("__pycache__", "__editable__*", "*.pth", *unwanted), symlinks=True)
    image = work / "repo.img"
    bytes_used = sum(entry.lstat().st_size for entry in tree.rglob("*"))
    make_disk(tree, image, f"{(bytes_used * 3 // 2 >> 20) + 64}M")
    shutil.rmtree(tree)
    return image


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


def command(image: Path, repo_disk: Path, result_disk: Path, tests: Sequence[str]) -> list[str]:
    """The one qemu call; no network device at all, the root disk's changes are thrown away."""
    words = ["console=ttyS0", "panic=-1", "quiet", "root=/dev/vda", "rw", "init=/init-from-vdb", f"credwire.tests={','.join(tests)}"]
    return [
        "qemu-system-x86_64", "-machine", "q35", *accelerator(), "-smp", "2", "-m", "2048",
        "-display", "none", "-nodefaults", "-nic", "none", "-serial", "stdio", "-no-reboot",
        "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", " ".join(words),
        "-drive", f"file={image / 'root.img'},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={repo_disk},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={result_disk},if=virtio,format=raw",
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


def count(junit: bytes) -> dict[str, object]:
    """Sum up the guest's junit file, naming what failed and what was skipped with its reason."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))  # noqa: S314  # written by our own pytest a moment ago

    def named(tag: str) -> list[str]:
        return [
            f"{case.get('classname')}::{case.get('name')}: {(child.get('message') or '').splitlines()[:1]}"
            for case in cases
            for child in case.iter(tag)
        ]

    failed, skipped = [*named("failure"), *named("error")], named("skipped")
    passed = len(cases) - len(failed) - len(skipped)
    return {"tests": len(cases), "passed": passed, "failed": failed, "skipped": skipped}


def commit() -> str:
    """The checkout's commit, with a mark when files differ from it."""
    run = subprocess.run(["git", "-C", str(REPO), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return run.stdout.strip()


def work_directory() -> Path:
    """Make the run's own directory; one that a killed run left behind goes."""
    for old in Path(tempfile.gettempdir()).glob("credwire-kernel61-*"):
        if not Path(f"/proc/{old.name.split('-')[2]}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"credwire-kernel61-{os.getpid()}-"))


def interrupted(number: int, _frame: object) -> None:
    """Turn a signal into an exception, so that every finally runs."""
    raise SystemExit(128 + number)


def main() -> int:
    """Build, pack, boot, report."""
    parser = argparse.ArgumentParser(description="run the kernel tests on Debian 12's own 6.1 kernel in an emulated machine")
    parser.add_argument("tests", nargs="*", default=["tests/kernel"], help="paths in the checkout for pytest (default: tests/kernel)")
    parser.add_argument("--probe-only", action="store_true", help="boot, run one small BPF program, power off")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for the machine's whole life (default: 900)")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"where the image is kept (default: {CACHE})")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupted)
    if lacking := missing_tools():
        say(f"error: this machine lacks {', '.join(lacking)}")
        say(f"hint: apt-get install --no-install-recommends {' '.join(lacking)}")
        return MACHINE_FAILED
    tests = [] if options.probe_only else [path for path in options.tests if (REPO / path.split("::")[0]).exists()]
    if not options.probe_only and tests != options.tests:
        say(f"error: no such path in the checkout: {', '.join(sorted(set(options.tests) - set(tests)))}")
        return MACHINE_FAILED
    target = REPO / "build" / "suites"
    target.mkdir(parents=True, exist_ok=True)
    work = work_directory()
    try:
        image = build_image(options.cache)
        repo_disk = pack_repository(work)
        result_disk = work / "result.img"
        with result_disk.open("wb") as file:
            file.truncate(RESULT_BYTES)
        with (target / "kernel61.log").open("wb") as log:
            seconds = boot(command(image, repo_disk, result_disk, tests), log, options.timeout)
        result = read_result(result_disk)
    except MachineError as error:
        say(f"error: {error}")
        return MACHINE_FAILED
    except TimeoutError as error:
        say(f"error: {error}")
        return OUT_OF_TIME
    finally:
        shutil.rmtree(work, ignore_errors=True)
    status = int(result["status"])
    report: dict[str, object] = {"suite": "kernel61", "commit": commit(), "status": status, "paths": tests}
    report |= {"accelerator": accelerator()[1], "seconds": round(seconds, 1), "probe": json.loads(result["probe.json"] or "null")}
    if "junit.xml" in result:
        report |= count(result["junit.xml"])
    (target / "kernel61.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"status {status} after {seconds:.0f} s, written to build/suites/kernel61.json")
    return status


if __name__ == "__main__":
    sys.exit(main())
