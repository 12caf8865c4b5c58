"""
Run the kernel tests on Debian 12's own 6.1 kernel, in an emulated machine without any network.

In: the checkout, its .venv, Debian's packages (first time only).  Out: the tests' output,
build/suites/kernel61.json and the tests' exit status; 70 when the machine itself failed, 124 when it ran out of time.
The image is built once and kept by the digest of its recipe; the repository travels on a disk of its own that is made for each run.
Nothing of it lives on: qemu dies with this process, whatever ends it.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.suites import vm
from tests.suites.vm import MACHINE_FAILED, OUT_OF_TIME, REPO, MachineError

CACHE = Path("/var/cache/credwire/vm")
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
RECIPE = vm.Recipe(PACKAGES, {"init-from-vdb": FIRST_PROGRAM})
PACKED = ("bpf", "control", "sysfs_fallback", "tests", "pyproject.toml")
UNPACKED_SITE = {"mypy", "ruff", "grpc_tools", "pip", "setuptools", "oci"}
"""Distributions of .venv that no test inside needs; they are large."""

say = vm.speaker("kernel61")


def pack_repository(work: Path) -> Path:
    """Write the checkout and the Python packages of its .venv as one disk."""
    tree = work / "tree"
    vm.copy_checkout(PACKED, tree / "repo")
    site = next((REPO / ".venv" / "lib").glob("python3.*/site-packages"), None)
    if site is None:
        raise MachineError("there is no .venv with the tests' packages; make one with 'make venv'")
    unwanted = [f"{name}{tail}" for name in UNPACKED_SITE for tail in ("", "-*", ".libs")]
    shutil.copytree(site, tree / "site", ignore=shutil.ignore_patterns("__pycache__", "__editable__*", "*.pth", *unwanted), symlinks=True)
    return vm.pack(tree, work / "repo.img")


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


def main() -> int:
    """Build, pack, boot, report."""
    parser = argparse.ArgumentParser(description="run the kernel tests on Debian 12's own 6.1 kernel in an emulated machine")
    parser.add_argument("tests", nargs="*", default=["tests/kernel"], help="paths in the checkout for pytest (default: tests/kernel)")
    parser.add_argument("--probe-only", action="store_true", help="boot, run one small BPF program, power off")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for the machine's whole life (default: 900)")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"where the image is kept (default: {CACHE})")
    options = parser.parse_args()
    vm.end_by_exception()
    if lacking := vm.missing_tools():
        say(f"error: this machine lacks {', '.join(lacking)}")
        say(f"hint: apt-get install --no-install-recommends {' '.join(lacking)}")
        return MACHINE_FAILED
    tests = [] if options.probe_only else [path for path in options.tests if (REPO / path.split("::")[0]).exists()]
    if not options.probe_only and tests != options.tests:
        say(f"error: no such path in the checkout: {', '.join(sorted(set(options.tests) - set(tests)))}")
        return MACHINE_FAILED
    target = REPO / "build" / "suites"
    target.mkdir(parents=True, exist_ok=True)
    work = vm.work_directory("kernel61")
    try:
        image = vm.build_image(options.cache, RECIPE, say)
        repo_disk = pack_repository(work)
        result_disk = vm.result_disk(work)
        words = ["init=/init-from-vdb", f"credwire.tests={','.join(tests)}"]
        with (target / "kernel61.log").open("wb") as log:
            seconds = vm.boot(vm.command(image, repo_disk, result_disk, words, "-no-reboot"), log, options.timeout)
        result = vm.read_result(result_disk)
    except MachineError as error:
        say(f"error: {error}")
        return MACHINE_FAILED
    except TimeoutError as error:
        say(f"error: {error}")
        return OUT_OF_TIME
    finally:
        shutil.rmtree(work, ignore_errors=True)
    status = int(result["status"])
    report: dict[str, object] = {"suite": "kernel61", "commit": vm.commit(), "status": status, "paths": tests}
    report |= {"accelerator": vm.accelerator()[1], "seconds": round(seconds, 1), "probe": json.loads(result["probe.json"] or "null")}
    if "junit.xml" in result:
        report |= count(result["junit.xml"])
    (target / "kernel61.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"status {status} after {seconds:.0f} s, written to build/suites/kernel61.json")
    return status


if __name__ == "__main__":
    sys.exit(main())
