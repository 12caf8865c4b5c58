"""
The first hour: a new user follows the README on a bare machine, from the clone to a signed request of their own and back.

In: a bare machine.  Out: claims.  The commands are those of the README's session, taken from its text and run in its order; the service is
nginx behind a name, TLS and a check of an API key, in a network namespace of its own, and it is nginx that says which key it saw.
"""

import os
import re
import time
from pathlib import Path

from tests.e2e.lib.keyed import KeyedService
from tests.e2e.lib.net import REPOSITORY, free_subnet
from tests.suites.bare.machine import CHECKOUT, Bare, Checkout, Claims, MachineError, Outside

HOST = "api.example.org"
USER = "deploy"
COMMANDS_MOST, YAML_LINES_MOST = 5, 25
PLACES = ("etc", "opt", "usr/local", "usr/share/bash-completion", "var/lib", "var/log", "var/cache", "root", "home")
_SESSION = re.compile(r"## One session\n.*?```\n(.*?)```", re.DOTALL)


def session() -> list[str]:
    """The commands of the README's session, without their prompt."""
    found = _SESSION.search((REPOSITORY / "README.md").read_text())
    if found is None:
        raise MachineError('the README has no "## One session" with a block of commands')
    text = found[1].replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line.removeprefix("# ")).strip() for line in text.splitlines() if line.startswith("# ")]


def play_hour(machine: Bare, claims: Claims, taken: Checkout, *, shared: bool) -> None:
    """Follow the README."""
    service = KeyedService(machine.root.parent / "service", free_subnet(), hosts={"header": HOST})
    try:
        _hour(machine, claims, taken, service, shared=shared)
    finally:
        service.stop()


def _hour(machine: Bare, claims: Claims, taken: Checkout, service: KeyedService, *, shared: bool) -> None:
    machine.take(taken)
    machine.must("sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends curl")
    machine.must("useradd", "--create-home", USER)
    with (machine.root / "etc/hosts").open("a") as hosts:
        hosts.write(f"{service.subnet.there4} {HOST}\n")
    (machine.root / "etc/ssl/company-ca.pem").write_bytes(service.authority.pem())
    (machine.root / "root/key.txt").write_text(service.key + "\n")
    (machine.root / "root/key.txt").chmod(0o600)
    commands = session()
    own = next(number for number, line in enumerate(commands) if line.startswith("su "))
    claims.claim(f"from clone to the own request in {COMMANDS_MOST} commands", own + 1 <= COMMANDS_MOST, f"{own + 1}")
    demo = machine.run("make", "demo", where=CHECKOUT)
    claims.claim("make demo works", demo.status == 0, f"exit {demo.status}, {demo.seconds:.0f} s")
    before = _files(machine.root)
    outside = Outside(machine, shared=shared)
    script = ["set -u", f"cd /root/{CHECKOUT}"]
    for number, command in enumerate(commands):
        script += [f"echo '@@ {number} begins'", command, f"echo '@@ {number} status' $?"]
    script += ["grep -cvE '^ *(#|$)' /etc/credwire/resources/*.yaml 2>/dev/null | sed 's/^/@@ yaml /' || true"]
    (machine.root / "root/hour.sh").write_text("\n".join(script) + "\n")
    _insert_counts(machine.root / "root/hour.sh", commands)
    began = time.monotonic()
    ran = machine.run("sh", "/root/hour.sh", alone=True)
    took = time.monotonic() - began
    _judge(claims, commands, ran.lines, service)
    claims.claim("the first hour takes less than 10 minutes", took < 600, f"{took:.0f} s")
    (machine.root / "root/hour.sh").unlink()
    left = sorted(_files(machine.root) - before)
    claims.claim("no file of ours is left after make purge", not left, " ".join(left[:10]))
    claims.clean("after the first hour", outside)


def _insert_counts(script: Path, commands: list[str]) -> None:
    """Count the lines of YAML while they are there: right before the first command that takes something off."""
    lines = script.read_text().splitlines()
    mark = f"echo '@@ {next(n for n, line in enumerate(commands) if line.startswith('credwire off'))} begins'"
    at = lines.index(mark)
    count = lines.pop()
    lines.insert(at, count)
    script.write_text("\n".join(lines) + "\n")


def _judge(claims: Claims, commands: list[str], lines: list[str], service: KeyedService) -> None:
    status = {int(found[1]): int(found[2]) for line in lines if (found := re.match(r"@@ (\d+) status (\d+)", line))}
    for number, command in enumerate(commands):
        claims.claim(f"works: {command[:100]}", status.get(number) == 0, f"exit {status.get(number)}")
    counts = [int(found[1]) for line in lines if (found := re.match(r"@@ yaml (?:\S+:)?(\d+)", line))]
    claims.claim(f"at most {YAML_LINES_MOST} lines of YAML", bool(counts) and sum(counts) <= YAML_LINES_MOST, f"{sum(counts)}")
    claims.claim("the key never appears on the terminal", service.key not in "\n".join(lines))
    verdicts = ["welcome" if status == 200 else "refused" for status in service.seen(HOST)]
    claims.claim(
        "nginx: welcome when enforced, refused while off, welcome when on again",
        [v for i, v in enumerate(verdicts) if i == 0 or verdicts[i - 1] != v][-3:] == ["welcome", "refused", "welcome"],
        " ".join(verdicts),
    )


def _files(root: Path) -> set[str]:
    """Name what an installation of ours leaves: its files wherever they are, and its groups."""
    found = {f"group {line.split(':')[0]}" for line in (root / "etc/group").read_text().splitlines() if "credwire" in line}
    for place in PLACES:
        for directory, names, files in os.walk(root / place):
            if Path(directory) == root / "root":
                names[:] = [name for name in names if name not in (CHECKOUT, ".cache")]  # the checkout, and pip's cache
            found |= {str(Path(directory, name).relative_to(root)) for name in [*names, *files]}
    return {name for name in found if "credwire" in name or name.startswith(("opt/", "usr/local/", "run/"))}
