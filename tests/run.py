"""
Run the tests by what they need, and say what could not run here and why.

In: nothing (every tier of ``make test``), ``attack`` or ``lab``.
Out: the tiers' own output, one table, one closing line; exit 1 on any failure.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tier:
    """One group of tests that need the same thing."""

    name: str
    paths: tuple[str, ...]
    needs_root: bool
    minutes: int
    says: str


TIERS = (
    Tier("unit", ("tests/unit",), False, 6, "nothing but Python"),
    Tier("repo", ("tests/repo",), False, 3, "the house rules"),
    Tier("fuzz", ("tests/fuzz",), False, 4, "parsers against noise, short"),
    Tier("kernel", ("tests/kernel",), True, 6, "real BPF on a child cgroup"),
    Tier("attack", ("tests/attack",), True, 6, "rows of the threat model"),
    Tier("e2e", ("tests/e2e",), True, 12, "the daemon, a cloud that verifies, real clients"),
)
LAB = ("kernel61", "systemd")
SUMMARY = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected)")


def here(tier: Tier) -> str:
    """Say why the tier cannot run here; empty when it can."""
    if tier.needs_root and os.geteuid() != 0:
        return "needs root"
    if tier.needs_root and not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    return ""


def run(tier: Tier) -> tuple[dict[str, int], bool]:
    """Run one tier with its output shown; give its counts and whether it was green."""
    paths = [p for p in tier.paths if any((ROOT / p).rglob("test_*.py"))]
    if not paths:
        return {}, True
    command = [sys.executable, "-m", "pytest", *paths, "-ra", "--no-header", "-p", "no:cacheprovider"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    tail = ""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.send_signal(signal.SIGINT)  # pytest still cleans up and says what it has

    alarm = threading.Timer(tier.minutes * 60, expire)  # a hung test prints no line that could be waited for
    alarm.start()
    try:
        for line in process.stdout:
            print("  " + line, end="", flush=True)
            if SUMMARY.search(line):
                tail = line
        code = process.wait()
    finally:
        alarm.cancel()
    if expired.is_set():
        print(f"  {tier.name}: over {tier.minutes} minutes, stopped", flush=True)
    counts = {word.rstrip("s") if word.startswith("error") else word: int(number) for number, word in SUMMARY.findall(tail)}
    return counts, code == 0


def lab() -> int:
    """Run the virtual machine suites, one machine at a time; gives the first exit code that is not 0."""
    codes = [subprocess.call([sys.executable, "-m", f"tests.suites.{name}.run"], cwd=ROOT) for name in LAB]
    return next((code for code in codes if code), 0)


def main(words: list[str]) -> int:
    """Run the tiers asked for."""
    if words == ["lab"]:
        return lab()
    tiers = [t for t in TIERS if not words or t.name in words]
    rows: list[tuple[str, str]] = []
    total = {"passed": 0, "failed": 0, "skipped": 0}
    green = True
    for tier in tiers:
        why = here(tier)
        if why:
            rows.append((tier.name, f"not here: {why}"))
            continue
        print(f"== {tier.name}: {tier.says}", flush=True)
        began = time.monotonic()
        counts, ok = run(tier)
        green &= ok
        total["passed"] += counts.get("passed", 0)
        bad = counts.get("failed", 0) + counts.get("error", 0)
        total["failed"] += bad if ok or bad else 1  # a tier that died without a count failed all the same
        total["skipped"] += counts.get("skipped", 0)
        rows.append((tier.name, f"{'ok' if ok else 'FAILED'}  {counts}  {time.monotonic() - began:.0f} s"))
    print("\n== what ran", flush=True)
    for name, said in rows:
        print(f"  {name:8} {said}")
    if not words:
        print("  lab      not here: boots a virtual machine for minutes; make lab runs it, results in build/suites/")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "test.json").write_text(json.dumps({"rows": rows, **total}, indent=1))
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
