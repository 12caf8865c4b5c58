"""
``make bench``: what signing on the wire costs, beside going direct and beside OpenSSL, in one run.

In: root, wrk and nginx (installed when missing).  Out: a table, and build/bench.json with every figure.
The upstream is nginx in a network namespace of its own; wrk is the bound client, by uid and executable, over real BPF; rounds interleave,
figures are medians.  Times on a shared machine wobble: the ratios of one run are what counts.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.cloud.tls_io import Authority
from tests.e2e.lib.net import FarSide, free_subnet
from tests.e2e.lib.stage import STRANGER_UID, USER_UID, Stage
from tests.unit.binding.many import many

HOST = "bench.test-1.cloud.test"
ROUNDS, SECONDS, CONNECTIONS = 3, 5, 16
MANY = 1000
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 10000000; keepalive_timeout 60s;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen {address}:443 ssl reuseport backlog=4096; server_name {host};
    ssl_certificate {directory}/leaf.pem; ssl_certificate_key {directory}/leaf.key; ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ return 200 "ok\\n"; }}
  }}
}}
"""


def install() -> None:
    """Have wrk and nginx."""
    missing = [package for program, package in (("wrk", "wrk"), ("nginx", "nginx-light")) if shutil.which(program) is None]
    if missing:
        print(f"bench: installing {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=environment)


def wrk(stage: Stage, uid: int, *more: str, connections: int = CONNECTIONS, seconds: int = SECONDS) -> dict[str, float]:
    """One round: requests/s, p50 and p99 in microseconds, errors."""
    argv = ["/usr/bin/wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *more, f"https://{HOST}/bench"]
    told = stage.client(argv, uid=uid, timeout=seconds + 30).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if rate is None:
        raise RuntimeError(f"wrk said: {told}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    return {
        "rate": float(rate[1]),
        "p50_us": _us(told, "50%"),
        "p99_us": _us(told, "99%"),
        "bad": float(bad[1]) if bad else 0.0,
        "socket_errors": float(sum(map(int, socket_errors.groups()))) if socket_errors else 0.0,
    }


def _us(told: str, percentile: str) -> float:
    found = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", told)
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]] if found else 0.0


def rsa_rate(seconds: int = 2) -> float:
    """RSA-2048 signatures per second of OpenSSL on one core."""
    told = subprocess.run(["openssl", "speed", "-seconds", str(seconds), "rsa2048"], capture_output=True, text=True, check=True).stdout
    return float(told.strip().splitlines()[-1].split()[-2])


def memory(stage: Stage) -> dict[str, dict[str, int]]:
    """RSS and PSS of each process of the daemon, in kB."""
    shown = {}
    for row in stage.processes():
        rollup = Path(f"/proc/{row['pid']}/smaps_rollup").read_text()
        shown[row["name"]] = {word: int(re.search(rf"^{word}:\s+(\d+)", rollup, re.M)[1]) for word in ("Rss", "Pss")}  # type: ignore[index]
    return shown


def cpu_s(stage: Stage) -> float:
    """Seconds of CPU that the daemon's processes have used."""
    ticks = 0
    for row in stage.processes():
        fields = Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(stage: Stage) -> FarSide:
    """Start nginx behind its own link and make its name known on the stage."""
    subnet = free_subnet()
    directory = stage.directory / "nginx"
    directory.mkdir()
    authority = Authority("credwire bench CA")
    certificate, key = authority.leaf(HOST)
    for name, content in (("leaf.pem", certificate), ("leaf.key", key), ("ca.pem", authority.pem())):
        (directory / name).write_bytes(content)
    (directory / "nginx.conf").write_text(_NGINX.format(directory=directory, address=subnet.there4, host=HOST))
    far = FarSide(["nginx", "-c", str(directory / "nginx.conf")], subnet, environment={"PATH": os.environ["PATH"]})
    with stage.hosts.open("a") as file:
        file.write(f"{subnet.there4} {HOST}\n")
    return far


def resources(stage: Stage) -> None:
    """Bind wrk of the ordinary user to the bench's host."""
    stage.write_resources(
        selectors=f"    - unix:uid: {USER_UID}\n      unix:exe:path: /usr/bin/wrk\n",
        destinations=f"""\
    - hosts: ["{HOST}"]
      networks: ["10.77.0.0/16"]
      upstreamRoots: {stage.directory}/nginx/ca.pem
""",
    )


def starts(stage: Stage) -> dict[str, float]:
    """Seconds until healthy: with the programs to compile, and with everything cached."""
    shutil.rmtree(stage.cache, ignore_errors=True)
    cold = stage.start_daemon()
    stage.stop_daemon()
    cached = []
    for _ in range(ROUNDS):
        cached.append(stage.start_daemon())
        stage.stop_daemon()
    return {"cold_s": cold, "cached_s": statistics.median(cached)}


def reloads(stage: Stage) -> dict[str, float]:
    """Seconds that ``credwire reload`` takes with a thousand bindings, of which one changed, from the question to the answer."""
    files = [stage.resources / f"many-{number:04}.yaml" for number in range(MANY)]
    took = []
    try:
        for file, text in zip(files, many(MANY), strict=True):
            file.write_text(text)
        stage.credwire("reload", timeout=120)
        stage.wait_until((stage.state / "ca" / f"app-{MANY - 1}.pem").exists, 120, "all bundles")
        for number in range(ROUNDS):
            files[0].write_text(many(1, path=f"/v{number}/*")[0])
            began = time.monotonic()
            stage.credwire("reload", "-o", "json", timeout=60)
            took.append(time.monotonic() - began)
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        stage.credwire("reload", timeout=120)
    return {"bindings": MANY, "reload_s": round(statistics.median(took), 2)}


def median(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of each figure."""
    return {name: round(statistics.median(r[name] for r in rounds), 1) for name in rounds[0]}


def main() -> int:
    """Measure and print."""
    if os.geteuid() != 0:
        print("bench: error: needs root", file=sys.stderr)
        return 2
    install()
    with Stage("bench", say=print) as stage:
        far = serve(stage)
        try:
            return measure(stage)
        finally:
            far.stop()


def measure(stage: Stage) -> int:
    """All rounds."""
    resources(stage)
    told: dict[str, object] = {"starts": starts(stage)}
    print(f"starts: {told['starts']}", flush=True)
    stage.start_daemon()
    told["memory_idle_kb"] = memory(stage)
    wrk(stage, USER_UID, seconds=2)  # lease and leaf are there from here on
    rows: dict[str, list[dict[str, float]]] = {}
    close = ("-H", "Connection: close")
    cpu: list[float] = []
    for _ in range(ROUNDS):
        rows.setdefault("direct, keep-alive", []).append(wrk(stage, STRANGER_UID))
        before, began = cpu_s(stage), time.monotonic()
        signed = wrk(stage, USER_UID)
        cpu.append((cpu_s(stage) - before) / (signed["rate"] * (time.monotonic() - began)) * 1e6)
        rows.setdefault("signed, keep-alive", []).append(signed)
        rows.setdefault("direct, one at a time", []).append(wrk(stage, STRANGER_UID, connections=1))
        rows.setdefault("signed, one at a time", []).append(wrk(stage, USER_UID, connections=1))
        rows.setdefault("direct, new connections", []).append(wrk(stage, STRANGER_UID, *close))
        rows.setdefault("signed, new connections", []).append(wrk(stage, USER_UID, *close))
        rows.setdefault("OpenSSL RSA-2048 signs", []).append({"rate": rsa_rate(), "p50_us": 0, "p99_us": 0, "bad": 0, "socket_errors": 0})
    told["rows"] = {name: median(rounds) for name, rounds in rows.items()}
    told["cpu_us_per_signed_request"] = round(statistics.median(cpu))
    told["memory_after_kb"] = memory(stage)
    told["reload"] = reloads(stage)
    print(f"reload: {told['reload']}", flush=True)
    print(f"\n{'':26} {'req/s':>9} {'p50 us':>9} {'p99 us':>9} {'bad':>6} {'errors':>7}")
    for name, row in told["rows"].items():  # type: ignore[attr-defined]
        print(f"{name:26} {row['rate']:9.0f} {row['p50_us']:9.0f} {row['p99_us']:9.0f} {row['bad']:6.0f} {row['socket_errors']:7.0f}")
    print(f"\nCPU of all our processes per signed request: {told['cpu_us_per_signed_request']} us")
    for when in ("memory_idle_kb", "memory_after_kb"):
        table: dict[str, dict[str, int]] = told[when]  # type: ignore[assignment]
        parts = ", ".join(f"{name} {sizes['Pss'] // 1024}" for name, sizes in table.items())
        print(f"PSS {when[7:-3]}: {sum(s['Pss'] for s in table.values()) // 1024} MB ({parts})")
    build = Path("build")
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
