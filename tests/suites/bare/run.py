"""
Prove that a clone works on a machine that has nothing of ours: git and make, root, and the registries of Debian and Python.

In: this checkout's HEAD (or its work tree), the machine's own package sources.  Out: the commands' output with the seconds before each
line, build/suites/bare.{log,json}, exit 0 when every claim held; 70 when the bare machine could not be made.
The bare machine is a minimal Debian in a directory, fresh for each run, behind a mount namespace of its own.  It shares the kernel,
the pids and the network with this machine, so what a command leaves behind is looked for from here, outside.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.lib.net import REPOSITORY, HarnessError, Kennel
from tests.suites.bare.hour import play_hour
from tests.suites.bare.machine import CACHE, CHECKOUT, MACHINE_FAILED, Bare, Checkout, Claims, MachineError, Outside, checkout, image, say

CHECK_PACKAGES = ("python3", "python3-venv")
"""What ``make check`` asks of a machine where nobody is root."""
NEWCOMER = "newcomer"
COLD_WITHIN_S, WARM_WITHIN_S = 360.0, 60.0
STARTED = re.compile(r"ok\s+credwired starts")
AGENT_KILLED = re.compile(r"ok\s+agent killed")
PIP_RUNS = re.compile(r"setup: installing the pinned Python packages")


def _looks(outside: Outside, *marks: re.Pattern[str]) -> Callable[[str], bool]:
    """Look at the machine at each of these lines."""
    waiting = list(marks)

    def at(line: str) -> bool:
        if waiting and waiting[0].search(line):
            waiting.pop(0)
            outside.look()
        return False

    return at


def _types(outside: Outside, mark: re.Pattern[str], stopped: int) -> Callable[[str], bool]:
    """At this line, and once so many processes are stopped, look and type ^C."""

    def at(line: str) -> bool:
        if not mark.search(line):
            return False
        outside.wait_for_stopped(stopped)
        outside.look()
        return True

    return at


def play_demo(machine: Bare, claims: Claims, taken: Checkout, *, shared: bool) -> None:
    """A newcomer, as root: clone, make demo, again, and ^C in the middle."""
    machine.take(taken)
    lacks = machine.run("sh", "-c", "for p in python3 pip gcc bpftool ip curl; do command -v $p; done; true", show=False)
    claims.claim(f"{taken.told}; the machine has git and make, and no python3, compiler or bpftool", not lacks.lines, " ".join(lacks.lines))
    outside = Outside(machine, shared=shared)
    cold = machine.run("make", "demo", where=CHECKOUT, on_line=_looks(outside, STARTED, AGENT_KILLED))
    claims.claim("make demo works cold", cold.status == 0, f"exit {cold.status}")
    claims.claim(f"make demo cold within {COLD_WITHIN_S:.0f} s", cold.seconds <= COLD_WITHIN_S, f"{cold.seconds:.1f} s")
    programs = len(outside.seen.get("bpf on cgroup", ()))
    claims.claim("while it ran, programs were seen on its cgroup from outside", programs > 0, f"{programs}")
    claims.clean("after make demo", outside)
    if cold.status != 0 and not shared:
        return
    outside = Outside(machine, shared=shared)
    warm = machine.run("make", "demo", where=CHECKOUT, on_line=_looks(outside, STARTED, AGENT_KILLED))
    claims.claim("make demo works warm", warm.status == 0, f"exit {warm.status}")
    claims.claim(f"make demo warm within {WARM_WITHIN_S:.0f} s", warm.seconds <= WARM_WITHIN_S, f"{warm.seconds:.1f} s")
    claims.clean("after a second make demo", outside)
    for where, mark, stopped in (("once the daemon runs", STARTED, 0), ("while agent and supervisor are stopped", AGENT_KILLED, 2)):
        outside = Outside(machine, shared=shared)
        ended = machine.run("make", "demo", where=CHECKOUT, on_line=_types(outside, mark, stopped))
        told = f"exit {ended.status} after {ended.seconds:.1f} s"
        claims.claim(f"^C {where} ends make demo", ended.status != 0 and ended.has("^C"), told)
        claims.claim(f"^C {where}: the demo says that the machine is clean", ended.has("the machine is as it was"))
        claims.clean(f"after ^C {where}", outside)


def play_test(machine: Bare, claims: Claims, *, shared: bool) -> None:
    """The same newcomer: make test."""
    outside = Outside(machine, shared=shared)
    ran = machine.run("make", "test", where=CHECKOUT)
    summary = next((line for line in reversed(ran.lines) if " passed, " in line), "")
    claims.claim("make test is green", ran.status == 0, f"{summary} (exit {ran.status}, {ran.seconds:.0f} s)")
    claims.clean("after make test", outside)


def play_check(machine: Bare, claims: Claims, taken: Checkout) -> None:
    """An ordinary user of a machine with Python, without bcc: a broken-off make check, then a whole one."""
    install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    machine.must("sh", "-c", f"{install} {' '.join(CHECK_PACKAGES)}")
    machine.must("useradd", "--create-home", NEWCOMER)
    machine.take(taken, user=NEWCOMER)
    lacks = machine.run(
        "sh", "-c", "command -v gcc bpftool; python3 -c 'import bcc' 2>/dev/null && echo bcc; id -u", user=NEWCOMER, show=False
    )
    claims.claim(
        f"{taken.told}; an ordinary user, no compiler, no bcc", [line != "0" for line in lacks.lines] == [True], " ".join(lacks.lines)
    )
    broken = machine.run("make", "check", where=CHECKOUT, user=NEWCOMER, on_line=lambda line: bool(PIP_RUNS.search(line)))
    claims.claim("^C breaks off the first make check", broken.status != 0 and broken.has("^C"), f"exit {broken.status}")
    ran = machine.run("make", "check", where=CHECKOUT, user=NEWCOMER)
    summary = next((line for line in reversed(ran.lines) if " passed" in line), "")
    claims.claim("make check is green as an ordinary user", ran.status == 0, f"{summary} (exit {ran.status}, {ran.seconds:.0f} s)")


def main() -> int:
    """Make the machines, play, report."""
    parser = argparse.ArgumentParser(prog="bare", description="run make demo, make check and the README on a machine without our packages")
    parser.add_argument("--only", choices=("demo", "check", "hour"), help="one of the three machines")
    parser.add_argument("--full", action="store_true", help="make test as well")
    parser.add_argument("--worktree", action="store_true", help="take the work tree instead of a clone of HEAD")
    parser.add_argument("--shared", action="store_true", help="others use BPF on this machine too: count only what was seen to be ours")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bare: error: a root directory and namespaces need root\nbare: hint: run it with sudo", file=sys.stderr)
        return MACHINE_FAILED
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    target = REPOSITORY / "build" / "suites"
    target.mkdir(parents=True, exist_ok=True)
    work = CACHE / f"run-{os.getpid()}"
    claims = Claims()
    taken, broke = None, ""
    try:
        base = image()
        for stale in CACHE.glob("run-*"):
            if not Path(f"/proc/{stale.name.partition('-')[2]}").exists():
                shutil.rmtree(stale)
        work.mkdir()
        taken = checkout(work, worktree=options.worktree)
        with (target / "bare.log").open("w") as log, Kennel(f"credwire-bare-{os.getpid()}", remove=[work]) as kennel:
            if options.only in (None, "demo"):
                machine = Bare(base, kennel, work, "demo", log)
                play_demo(machine, claims, taken, shared=options.shared)
                if options.full:
                    play_test(machine, claims, shared=options.shared)
            if options.only in (None, "check"):
                play_check(Bare(base, kennel, work, "check", log), claims, taken)
            if options.only in (None, "hour"):
                play_hour(Bare(base, kennel, work, "hour", log), claims, taken, shared=options.shared)
    except (MachineError, HarnessError, OSError, subprocess.CalledProcessError) as error:
        broke = f"{type(error).__name__}: {error}"
        say(f"error: {broke}")
    except TimeoutError as error:
        claims.claim("every command ends", False, str(error))
    report = {"suite": "bare", "took": taken.told if taken else "", "broke": broke, "claims": claims.rows}
    (target / "bare.json").write_text(json.dumps(report, indent=2) + "\n")
    say("")
    for text, held, seen in claims.rows:
        say(f"{'ok    ' if held else 'FAILED'} {text}{': ' if seen else ''}{seen}")
    if broke:
        return MACHINE_FAILED
    return 0 if claims.all_held else 1


if __name__ == "__main__":
    sys.exit(main())
