"""
Install the program on a Debian 12 that runs systemd, use it, reboot it, take it off: in an emulated machine without any network.

In: the checkout, Debian's packages and the pinned wheels (first time only).  Out: the guest's claims, build/suites/systemd.json;
exit 0 when every claim held, 1 when one did not, 70 when the machine itself failed, 124 when it ran out of time.
The image holds Debian's packages only; checkout and wheels travel on a disk of their own that is made for each run.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.suites import vm

CACHE = Path("/var/cache/credwire/vm-systemd")
PACKED = ("bpf", "control", "sysfs_fallback", "tools", "tests/suites/systemd", "pyproject.toml", "Makefile", "LICENSE", "README.md")
SCRIPT = "/mnt/packed/repo/tests/suites/systemd/guest.py"
NOWHERE = "/dev/null"
PYTHON = (3, 11)
"""Of the image."""
RECIPE = vm.Recipe(
    packages=(
        "linux-image-amd64",  # 6.1
        "initramfs-tools",  # its initrd, and udev
        "systemd-sysv",  # pid 1
        "make",  # make install
        "python3",
        "python3-venv",
        "python3-bpfcc",
        "ca-certificates",  # these three are what tools/install.sh would fetch
        "nginx-light",  # the service that verifies the keys
        "curl",  # the program that is bound
        "openssl",  # the service's certificates
        "iproute2",  # the namespace where it is
        "kmod",
        "procps",
        "bpftool",  # what is attached where
    ),
    files={
        "suite-from-vdb": """#!/bin/sh
# Continue in the script on the second disk, so that a change to it needs no new image.
mkdir -p /mnt/packed
mount -o ro /dev/vdb /mnt/packed
exec python3 -u $SCRIPT
""".replace("$SCRIPT", SCRIPT),
        "etc/systemd/system/suite.service": """[Unit]
Description=what this machine is for
[Service]
Type=idle
ExecStart=/suite-from-vdb
StandardOutput=file:/dev/ttyS0
StandardError=inherit
""",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n10.77.0.2 api.example.org second.example.org\n",
        "etc/hostname": "machine\n",
    },
    links={
        "etc/systemd/system/multi-user.target.wants/suite.service": "../suite.service",
        # a network manager that waits for network-pre.target, as each of them does
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
        # what only costs time here: a login, nginx in the machine's own network, jobs of packages
        **{
            f"etc/systemd/system/{name}": NOWHERE
            for name in ("serial-getty@.service", "getty@.service", "getty-static.service", "nginx.service", "apt-daily.timer",
                         "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer")
        },
    },
)  # fmt: skip

say = vm.speaker("systemd")


def wheels(cache: Path) -> Path:
    """Give the directory with a wheel for every pin of pyproject.toml, and for what those need; fetched when the pins are new."""
    told = tomllib.loads((vm.REPO / "pyproject.toml").read_text())
    wanted = sorted([*told["project"]["dependencies"], *told["build-system"]["requires"]])
    done = cache / f"wheels-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]}"
    if done.exists():
        return done
    if sys.version_info[:2] != PYTHON:
        raise vm.MachineError("wheels for the machine's Python 3.11 are fetched by the same Python; run this with Debian 12's")
    cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob("wheels-*"):
        shutil.rmtree(stale)
    say(f"fetching the pinned wheels into {done}")
    work = Path(tempfile.mkdtemp(prefix="part-", dir=cache))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "download", "--dest", str(work), *wanted], check=True, stdin=subprocess.DEVNULL)
        # what is published as source only becomes a wheel here, so that the machine needs nothing to build it
        for source in [path for path in work.iterdir() if path.suffix != ".whl"]:
            subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(work), str(source)], check=True, stdin=subprocess.DEVNULL)
            source.unlink()
        work.chmod(0o755)
        work.rename(done)
    except (subprocess.CalledProcessError, OSError) as error:
        raise vm.MachineError(f"the wheels could not be made: {error}; see the lines above") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return done


def pack(work: Path, cache: Path) -> Path:
    """Write checkout and wheels as one disk."""
    tree = work / "tree"
    vm.copy_checkout(PACKED, tree / "repo")
    shutil.copytree(wheels(cache), tree / "wheels")
    return vm.pack(tree, work / "repo.img")


def main() -> int:
    """Build, pack, boot, report."""
    parser = argparse.ArgumentParser(description="install, use, reboot and purge credwire under systemd in an emulated machine")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for the machine's whole life (default: 1800)")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"where image and wheels are kept (default: {CACHE})")
    options = parser.parse_args()
    vm.end_by_exception()
    if lacking := vm.missing_tools():
        say(f"error: this machine lacks {', '.join(lacking)}")
        say(f"hint: apt-get install --no-install-recommends {' '.join(lacking)}")
        return vm.MACHINE_FAILED
    target = vm.REPO / "build" / "suites"
    target.mkdir(parents=True, exist_ok=True)
    work = vm.work_directory("systemd")
    try:
        image = vm.build_image(options.cache / "image", RECIPE, say)
        packed = pack(work, options.cache)
        result_disk = vm.result_disk(work)
        # without -no-reboot: the machine reboots itself, and the root disk's changes live as long as qemu
        line = vm.command(image, packed, result_disk, ["systemd.firstboot=no"])
        with (target / "systemd.log").open("wb") as log:
            seconds = vm.boot(line, log, options.timeout)
        result = vm.read_result(result_disk)
    except vm.MachineError as error:
        say(f"error: {error}")
        return vm.MACHINE_FAILED
    except TimeoutError as error:
        say(f"error: {error}")
        return vm.OUT_OF_TIME
    finally:
        shutil.rmtree(work, ignore_errors=True)
    claims = [json.loads(row) for row in result["claims.jsonl"].decode().splitlines()]
    failed = [claim for claim in claims if not claim["held"]]
    whole = result.get("whole") == b"yes\n"
    report = {"suite": "systemd", "commit": vm.commit(), "accelerator": vm.accelerator()[1], "seconds": round(seconds, 1)}
    report |= {"whole": whole, "held": len(claims) - len(failed), "failed": len(failed), "claims": claims}
    (target / "systemd.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, text in result.items():
        if name.startswith("journal"):
            (target / f"systemd.{name}").write_bytes(text)
    say(f"{len(claims) - len(failed)} claims held, {len(failed)} did not, after {seconds:.0f} s; written to build/suites/systemd.json")
    for claim in failed:
        say(f"NO  {claim['claim']}  {claim['detail']}")
    if not whole:
        say("error: the machine's script did not reach its end; hint: build/suites/systemd.log")
    return 0 if whole and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
