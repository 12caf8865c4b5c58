"""
What the machine does: install, use, kill, reboot, switch, purge; each thing that should be so is a claim.

In: the checkout and the wheels on the second disk; the phase, kept on the root disk over reboots.
Out: claims on the console and as lines of JSON; at the end a tar with them on the third disk, and power-off.
Runs under Debian's own python3 with nothing of ours in its path: it is an administrator at a terminal, with Debian's tools.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PACKED, KEPT, FAR = Path("/mnt/packed"), Path("/var/lib/suite"), Path("/srv/far")
UNIT = Path("/etc/systemd/system/credwired.service")
DROP_IN = Path("/etc/systemd/system/credwired.service.d")
PINS = Path("/sys/fs/bpf/credwire")
CGROUPS = Path("/sys/fs/cgroup")
HOST, SECOND = "api.example.org", "second.example.org"
FIRST_CLIENT = KEPT / "first-client"
WELCOME, REFUSED = "welcome", "no valid key"
PATIENCE_S = 90.0
"""For what takes seconds on real hardware: everything is ten to twenty times slower under emulation."""

NGINX = """
daemon off; master_process off; worker_processes 1; pid /srv/far/nginx.pid; error_log /srv/far/nginx.log;
events { worker_connections 64; }
http {
  log_format seen '$host $status $http_x_who';
  access_log /srv/far/seen seen;
  map $http_x_api_key $first { default 0; "%(first)s" 1; }
  map $http_authorization $second { default 0; "Bearer %(second)s" 1; }
  ssl_certificate /srv/far/leaf.pem; ssl_certificate_key /srv/far/leaf.key;
  server {
    listen 10.77.0.2:443 ssl; server_name api.example.org;
    location / { if ($first = 0) { return 401 "no valid key\\n"; } return 200 "welcome\\n"; }
  }
  server {
    listen 10.77.0.2:443 ssl; server_name second.example.org;
    location / { if ($second = 0) { return 401 "no valid key\\n"; } return 200 "welcome\\n"; }
  }
}
"""
ROOM = """#!/bin/sh
# The far side: a namespace behind a veth pair.
set -e
ip netns add far
ip link add far0 type veth peer name far1 netns far
ip addr add 10.77.0.1/24 dev far0
ip link set far0 up
ip -n far link set lo up
ip -n far addr add 10.77.0.2/24 dev far1
ip -n far link set far1 up
"""
FAR_UNIT = """[Unit]
Description=somebody's API, in a namespace of its own
After=network-pre.target
Before=network.target
[Service]
ExecStartPre=/srv/far/room
ExecStart=ip netns exec far nginx -c /srv/far/nginx.conf
[Install]
WantedBy=multi-user.target
"""
CLIENT_UNIT = """[Unit]
Description=a bound program that starts with the machine
After=network.target far.service
Wants=far.service
Before=suite.service
[Service]
Type=oneshot
User=deploy
ExecStart=/srv/far/first-client
StandardOutput=file:/var/lib/suite/first-client
StandardError=inherit
[Install]
WantedBy=multi-user.target
"""
CLIENT = """#!/bin/sh
# The far side needs a moment after its unit has started; what is asked once it is there counts.
exec credwire run -- curl -sS --retry 30 --retry-delay 1 --retry-connrefused -H 'X-Who: boot' https://api.example.org/v1/hello
"""
SECOND_BINDING = """# A second key, which systemd decrypts for credwired.
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {name: second}
spec: {owner: me@example.org, environment: prod, reviewedAt: %(today)s, reviewEvery: 90d, static: {systemdCredential: second-key}}
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {name: second}
spec:
  identity: hello
  source: second
  owner: me@example.org
  mode: enforce
  destinations: [{hosts: [second.example.org], networks: ["10.77.0.0/16"], upstreamRoots: /etc/ssl/company-ca.pem}]
  delivery: {wire: {signer: bearer}}
"""


# ---- tools -------------------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell people, with the machine's own time."""
    print(f"[{time.monotonic():7.1f}] {text}", flush=True)


def claim(text: str, held: object, detail: object = "") -> None:
    """Write down whether something is so."""
    row = {"claim": text, "held": bool(held), "detail": str(detail)[:600]}
    with (KEPT / "claims.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    told = f"  ({row['detail']})" if row["detail"] else ""
    say(f"{'ok ' if held else 'NO '} {text}{told}")


def run(*words: str, given: str = "", environment: dict[str, str] | None = None, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it said is shown."""
    began = time.monotonic()
    done = subprocess.run(
        words, input=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False, cwd="/",
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    say(f"$ {' '.join(words)[:150]}  -> {done.returncode}, {time.monotonic() - began:.1f} s")
    for line in done.stdout.splitlines()[-25:]:
        print(f"            {line[:200]}", flush=True)
    return done


def must(*words: str, given: str = "") -> str:
    """Run a command that the suite itself needs."""
    done = run(*words, given=given)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]}: exit {done.returncode}")
    return done.stdout


def wait(what: Callable[[], object], seconds: float = PATIENCE_S) -> float:
    """Wait until something is so; gives how long that took, or -1."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            return -1.0
        time.sleep(0.2)
    return time.monotonic() - began


def unit(*names: str, of: str = "credwired.service") -> dict[str, str]:
    """Ask systemd for properties of a unit."""
    asked = subprocess.run(["systemctl", "show", f"--property={','.join(names)}", of], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in asked.stdout.splitlines() if "=" in line)


def state() -> str:
    """Whether the unit is active, as systemctl prints it."""
    return unit("ActiveState")["ActiveState"]


def processes() -> dict[int, str]:
    """Processes of the daemon: pid and module."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        module = next((word.decode() for word in words if re.fullmatch(rb"control\.daemon\.\w+", word)), "")
        if module:
            found[int(directory.name)] = module
    return found


def hooked() -> list[str]:
    """Programs on connect() of any cgroup."""
    told = subprocess.run(["bpftool", "--json", "cgroup", "tree"], capture_output=True, text=True, check=False).stdout or "[]"
    found = [(at["cgroup"], program["attach_type"]) for at in json.loads(told) for program in at["programs"]]
    return [f"{cgroup}: {kind}" for cgroup, kind in found if "connect" in kind]


def seen(who: str) -> list[int]:
    """What nginx answered to requests that name themselves so, in order."""
    rows = [line.split(" ") for line in (FAR / "seen").read_text().splitlines()]
    return [int(row[1]) for row in rows if row[2] == who]


def ask(user: str, host: str = HOST, who: str = "") -> str:
    """Send a request as a user; gives the last line that came out."""
    line = f"credwire run -- curl -sS --max-time 60 -H 'X-Who: {who or user}' https://{host}/v1/hello"
    told = run("su", user, "-c", line).stdout.splitlines()
    return told[-1] if told else ""


def ask_direct(user: str) -> str:
    """Send a request as a user without credwire run, trusting the service's own CA only."""
    told = run("su", user, "-c", f"curl -sS --max-time 60 --cacert /etc/ssl/company-ca.pem https://{HOST}/v1/hello").stdout.splitlines()
    return told[-1] if told else ""


def status() -> dict[str, object]:
    """What ``credwire status -o json`` says; empty when it says nothing."""
    done = run("credwire", "status", "-o", "json")
    try:
        told: dict[str, object] = json.loads(done.stdout)
    except ValueError:
        return {}
    return told | {"exit": done.returncode}


def red(told: dict[str, object]) -> list[str]:
    """The red lines of a status."""
    rows = told.get("health", [{"level": "red", "says": "no status"}])
    assert isinstance(rows, list)
    return [row["says"] for row in rows if row["level"] == "red"]


def tell_journal() -> None:
    """Show what the daemon said last."""
    words = ["journalctl", "--no-pager", "-o", "cat", "-n", "60", "-u", "credwired"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    for line in told.stdout.splitlines():
        print(f"            | {line[:400]}", flush=True)


def keep_journal(name: str) -> None:
    """Keep this boot's journal of what matters for the result."""
    words = ["journalctl", "--boot", "--no-pager", "-o", "short-monotonic"]
    units = [word for of in ("credwired", "far", "first-client", "systemd-networkd") for word in ("-u", of)]
    told = subprocess.run([*words, *units], capture_output=True, check=False)
    (KEPT / f"journal-{name}").write_bytes(told.stdout[-(1 << 20) :])


# ---- the far side ------------------------------------------------------------------------------------------------------------------


def far_side() -> tuple[str, str]:
    """Make users, a CA, nginx behind a veth pair, and a program that asks it at each boot; gives the two keys."""
    for user in ("deploy", "stranger"):
        must("useradd", "--create-home", "--shell", "/bin/sh", user)
    FAR.mkdir()
    must("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=company",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", f"{FAR}/ca.key", "-out", "/etc/ssl/company-ca.pem")  # fmt: skip
    must("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={HOST}",
         "-keyout", f"{FAR}/leaf.key", "-out", f"{FAR}/leaf.csr")  # fmt: skip
    (FAR / "extensions").write_text(f"subjectAltName=DNS:{HOST},DNS:{SECOND}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n"
                                    "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")  # fmt: skip
    must("openssl", "x509", "-req", "-in", f"{FAR}/leaf.csr", "-CA", "/etc/ssl/company-ca.pem", "-CAkey", f"{FAR}/ca.key", "-days", "20",
         "-CAcreateserial", "-extfile", f"{FAR}/extensions", "-out", f"{FAR}/leaf.pem")  # fmt: skip
    first, second = (f"key-{os.urandom(12).hex()}" for _ in range(2))
    (FAR / "nginx.conf").write_text(NGINX % {"first": first, "second": second})
    (FAR / "nginx.conf").chmod(0o600)
    (FAR / "seen").touch()
    for name, text in (("room", ROOM), ("first-client", CLIENT)):
        (FAR / name).write_text(text)
        (FAR / name).chmod(0o755)
    Path("/etc/systemd/system/far.service").write_text(FAR_UNIT)
    Path("/etc/systemd/system/first-client.service").write_text(CLIENT_UNIT)
    must("systemctl", "daemon-reload")
    must("systemctl", "enable", "--now", "far")
    if wait(lambda: b":443 " in subprocess.run(["ip", "netns", "exec", "far", "ss", "-Hltn"], capture_output=True, check=False).stdout) < 0:
        run("systemctl", "status", "--no-pager", "far")
        raise RuntimeError("nginx does not listen")
    return first, second


# ---- phase 0: install, use, kill ---------------------------------------------------------------------------------------------------


def install_and_use() -> None:
    """From a machine without it to signed requests, and a supervisor that was killed."""
    init = Path("/proc/1/exe").readlink()
    claim("systemd is pid 1", init.name == "systemd", init)
    first, second = far_side()
    claim("before anything, the service refuses who has no key", ask_direct("deploy") == REFUSED)
    _install()
    _seal(first)
    _start()
    _second(second)
    _kill()
    must("systemctl", "enable", "credwired")
    claim("credwired is enabled when somebody says so", unit("UnitFileState")["UnitFileState"] == "enabled")
    must("systemctl", "enable", "first-client")
    done = run("credwire", "off")
    claim("credwire off works", done.returncode == 0)
    claim("off: the bound program goes direct", ask("deploy") == REFUSED)


def _install() -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(PACKED / "wheels")}
    done = run("make", "-s", "-C", str(PACKED / "repo"), "install", environment=offline, seconds=900)
    claim("make install works", done.returncode == 0, f"exit {done.returncode}")
    if done.returncode != 0:
        raise RuntimeError("nothing to go on with")
    shown = unit("LoadState", "UnitFileState", "ActiveState")
    wanted = {"LoadState": "loaded", "UnitFileState": "disabled", "ActiveState": "inactive"}
    claim("the unit is there, not enabled, not active", shown == wanted, shown)
    claim("nothing of it runs, nothing is hooked", not processes() and not PINS.exists() and not hooked(), f"{processes()} {hooked()}")
    told = run("systemd-analyze", "verify", "--man=no", str(UNIT))
    claim("systemd has nothing to say against the unit", told.returncode == 0 and "credwired" not in told.stdout, told.stdout.strip())


def _seal(key: str) -> None:
    who = ["--exe", "/usr/bin/curl", "--user", "deploy", "--owner", "me@example.org"]
    where = ["--host", HOST, "--header", "X-Api-Key", "--network", "10.77.0.0/16", "--upstream-roots", "/etc/ssl/company-ca.pem"]
    done = run("credwire", "init", "api-key", "hello", *who, *where, "--mode", "enforce", given=key + "\n")
    claim("credwire init works", done.returncode == 0 and "sealed" in done.stdout, f"exit {done.returncode}")
    kept = Path("/var/lib/credwire")
    way = json.loads((kept / "seal.json").read_text()).get("with") if (kept / "seal.json").exists() else "no record"
    claim("the master key is kept by systemd-creds", way == "systemd" and not (kept / "seal.key").exists(), way)
    lies = [path for path in Path("/etc/credwire").rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    claim("the API key lies nowhere below /etc/credwire as it is", not lies, lies)


def _start() -> None:
    starting = subprocess.Popen(["credwired", "start"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    states: dict[str, bool] = {}
    while starting.poll() is None:
        now = state()
        held = bool(hooked())  # asked after the state: what is active now must be hooked by now
        states[now] = states.get(now, True) and held
        time.sleep(0.5)
    told = (starting.stdout.read() if starting.stdout else "").strip()
    claim("credwired start works", starting.returncode == 0 and "enforces after" in told, told)
    waited = "activating" in states and states.get("active")
    if starting.returncode != 0:
        tell_journal()
        raise RuntimeError("nothing to go on with")
    claim("systemd waits: activating first, and active only once connect() is hooked", waited, states)
    shown = unit("Type", "ActiveState", "StatusText", "MainPID", "ControlGroup")
    claim("systemd knows that it enforces", (shown["ActiveState"], shown["StatusText"]) == ("active", "enforcing"), shown)
    where = {Path(f"/proc/{pid}/cgroup").read_text().strip() for pid in processes()}
    claim("every process of it is in the unit's own cgroup", where == {"0::/system.slice/credwired.service"}, where)
    claim("there is no cgroup /credwired beside the unit's", not (CGROUPS / "credwired").exists())
    told_status = status()
    health = json.dumps(told_status.get("health"))
    well = told_status.get("enforcing") and not red(told_status) and "at rest" not in health and "seal" not in health
    claim("status: enforcing, nothing red, nothing about sealing", well, f"exit {told_status.get('exit')} {health}")
    signed = ask("deploy") == WELCOME
    claim("the bound program gets the key", signed)
    if not signed:
        tell_journal()
    claim("another user does not", ask("stranger") == REFUSED)
    claim("nginx saw the same", (seen("deploy")[-1:], seen("stranger")[-1:]) == ([200], [401]), f"{seen('deploy')} {seen('stranger')}")


def _second(key: str) -> None:
    store = Path("/etc/credstore.encrypted")
    store.mkdir(mode=0o700, exist_ok=True)
    must("systemd-creds", "encrypt", "--name=second-key", "-", str(store / "second-key"), given=key)
    DROP_IN.mkdir()
    (DROP_IN / "credentials.conf").write_text("[Service]\nLoadCredentialEncrypted=second-key\n")
    binding = Path("/etc/credwire/resources/second.yaml")
    binding.write_text(SECOND_BINDING % {"today": time.strftime("%Y-%m-%d", time.gmtime())})
    must("systemctl", "daemon-reload")
    done = run("systemctl", "restart", "credwired")
    claim("restarted with a credential of systemd's", done.returncode == 0 and state() == "active", state())
    if done.returncode != 0:
        tell_journal()
        raise RuntimeError("nothing to go on with")
    claim("the second binding gets the key that systemd decrypted", ask("deploy", SECOND) == WELCOME)
    told = status()
    claim("status has nothing red with both sources", told.get("enforcing") and not red(told), red(told))
    argument = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes() for pid in processes())
    claim("the key is in no command line and no environment", key.encode() not in argument)


def _kill() -> None:
    before = unit("MainPID", "NRestarts")
    if before["MainPID"] == "0":  # kill(2) would take it for ourselves
        raise RuntimeError("credwired does not run")
    old = set(processes())
    count = len(seen("deploy"))
    began = time.monotonic()
    os.kill(int(before["MainPID"]), signal.SIGKILL)
    answers: list[str] = []
    while time.monotonic() - began < PATIENCE_S and WELCOME not in answers[-1:]:
        answers.append(ask("deploy"))
    took = time.monotonic() - began
    claim("kill -9 of the supervisor: signed again within seconds", answers[-1:] == [WELCOME] and took < 30, f"{took:.1f} s")
    after = unit("MainPID", "NRestarts", "ActiveState")
    told = (after["MainPID"] != before["MainPID"], after["NRestarts"], after["ActiveState"])
    claim("systemd restarted it", told == (True, "1", "active"), after)
    claim("no process of the old one is left", not old & set(processes()), old & set(processes()))
    claim("meanwhile nothing went out without the key", 401 not in seen("deploy")[count:], f"{seen('deploy')[count:]} {answers}")


# ---- phases 1 and 2: after a reboot -------------------------------------------------------------------------------------------------


def _ordered() -> None:
    """See when things became active at this boot."""
    wait(lambda: unit("ActiveEnterTimestampMonotonic", of="multi-user.target")["ActiveEnterTimestampMonotonic"] != "0", 5)
    ours = unit("ActiveState", "ActiveEnterTimestampMonotonic")
    at = int(ours["ActiveEnterTimestampMonotonic"]) / 1e6
    claim("after the boot credwired is active", ours["ActiveState"] == "active", f"after {at:.1f} s")
    for name in ("network-pre.target", "systemd-networkd.service", "far.service", "first-client.service"):
        moment = "ActiveEnterTimestampMonotonic" if name.endswith(".target") else "InactiveExitTimestampMonotonic"
        theirs = int(unit(moment, of=name)[moment]) / 1e6
        claim(f"it was active before {name} began", 0 < at <= theirs, f"{at:.1f} s, {theirs:.1f} s")
    claim("connect() is hooked", hooked(), hooked())
    failed = run("systemctl", "--failed", "--no-legend", "--plain").stdout.strip()
    claim("no unit of the machine failed", not failed, failed)
    said = subprocess.run(["journalctl", "--boot", "--no-pager", "_PID=1"], capture_output=True, text=True, check=False).stdout
    cycles = [line for line in said.splitlines() if "ordering cycle" in line]
    claim("systemd found no ordering cycle", said and not cycles, cycles)


def _first_answer() -> str:
    """What the program that started with the machine was told."""
    lines = FIRST_CLIENT.read_text().splitlines() if FIRST_CLIENT.exists() else []
    for line in lines:
        print(f"            first-client: {line}", flush=True)
    return lines[-1] if lines else ""


def still_off() -> None:
    """Off outlives the reboot; on ends it."""
    _ordered()
    claim("off outlived the reboot: the program that started with the machine went direct", _first_answer() == REFUSED)
    done = run("credwire", "status")
    claim("status is red and names the switch", done.returncode == 1 and "everything is off" in done.stdout, f"exit {done.returncode}")
    claim("off: the bound program goes direct", ask("deploy") == REFUSED)
    done = run("credwire", "on")
    claim("credwire on works", done.returncode == 0, f"exit {done.returncode}")
    claim("on: signed again", ask("deploy") == WELCOME)
    claim("on: the second binding too", ask("deploy", SECOND) == WELCOME)
    claim("a stranger is still left alone", ask("stranger") == REFUSED)
    told = status()
    claim("status is well again", told.get("exit") == 0 and told.get("enforcing"), told.get("health"))


def purge() -> None:
    """Signed from the first connection of a boot; then everything is taken off."""
    _ordered()
    claim("on outlived the reboot: the program that started with the machine was signed", _first_answer() == WELCOME)
    claim("and never went out without the key", seen("boot")[-1:] == [200] and seen("boot").count(401) == 1, seen("boot"))
    claim("signed", ask("deploy") == WELCOME)
    done = run("/opt/credwire/install.sh", "purge")
    claim("install.sh purge works", done.returncode == 0, f"exit {done.returncode}")
    shown = unit("LoadState", "ActiveState")
    claim("systemd knows no unit credwired", shown["ActiveState"] == "inactive" and not UNIT.exists(), shown)
    wants = [str(path) for path in Path("/etc/systemd/system").rglob("*credwired*") if not path.is_relative_to(DROP_IN)]
    claim("nothing wants it at boot", not wants, wants)
    claim("no process of it is left", not processes(), processes())
    claim("no pin is left", not PINS.exists(), PINS)
    claim("no program on connect() is left", not hooked(), hooked())
    groups = [str(path) for path in CGROUPS.rglob("*credwired*")]
    claim("no cgroup is left", not groups, groups)
    places = [f"{above}/credwire" for above in ("/etc", "/var/lib", "/var/log", "/var/cache", "/run", "/opt", "/usr/local/bin")]
    left = [place for place in (*places, "/usr/local/bin/credwired", "/run/credentials/credwired.service") if os.path.lexists(place)]
    claim("no file of it is left", not left, left)
    claim("its groups are gone", "credwire" not in Path("/etc/group").read_text())
    claim("the service refuses again: nothing signs any more", ask_direct("deploy") == REFUSED)


# ---- the script --------------------------------------------------------------------------------------------------------------------

PHASES = (install_and_use, still_off, purge)


def finish(*, whole: bool) -> None:
    """Leave the result on the third disk and switch the machine off."""
    (KEPT / "whole").write_text("yes\n" if whole else "no\n")
    names = sorted(path.name for path in KEPT.iterdir() if path.is_file())
    subprocess.run(["tar", "-cf", "/dev/vdc", "-C", str(KEPT), *names], check=True)
    os.sync()
    say("done")
    subprocess.run(["systemctl", "poweroff", "--no-block"], check=True)


def main() -> int:
    """Do the phase that is due; the last one switches the machine off."""
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    KEPT.mkdir(mode=0o755, exist_ok=True)
    counter = KEPT / "phase"
    number = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(number + 1))
    os.sync()
    if number >= len(PHASES):  # it crashed and came back
        claim("the machine reboots only when it is told to", False)
        finish(whole=False)
        return 1
    phase = PHASES[number]
    say(f"== phase {number}: {phase.__name__}, kernel {os.uname().release}, {shutil.disk_usage('/').free >> 20} MB free")
    try:
        phase()
    except Exception as error:  # whatever it was: the machine must leave its result and end
        traceback.print_exc(file=sys.stdout)
        claim(f"{phase.__name__} comes to its end", False, f"{type(error).__name__}: {error}")
        keep_journal(str(number))
        finish(whole=False)
        return 1
    keep_journal(str(number))
    if number + 1 == len(PHASES):
        finish(whole=True)
    else:
        FIRST_CLIENT.unlink(missing_ok=True)
        say("reboot")
        subprocess.run(["systemctl", "reboot", "--no-block"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
