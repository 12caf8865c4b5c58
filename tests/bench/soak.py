"""
``make soak``: a hundred thousand signed requests, and nothing grows.

In: root, wrk and nginx (installed when missing).  Out: a table, and build/soak.json; exit 1 when a process grew.
What is compared is the memory (PSS), the open descriptors and the threads of each process after a fifth of the requests and after all of
them: until then caches fill and allocators settle.
"""

import json
import os
import sys
from pathlib import Path

from tests.bench.measure import install, memory, resources, serve, wrk
from tests.e2e.lib.stage import USER_UID, Stage

REQUESTS = 100_000
ROUND_S = 10
SETTLED = 0.2
GREW_KB = 4096
"""Growth of one process that counts: a leak of 64 bytes a request would be 5 MB."""
GREW_FDS = 8


def sizes(stage: Stage) -> dict[str, dict[str, int]]:
    """PSS in kB, descriptors and threads by process."""
    found = {}
    for name, parts in memory(stage).items():
        pid = stage.pid(name)
        threads = Path(f"/proc/{pid}/status").read_text().partition("Threads:")[2].split()[0]
        found[name] = {"pss_kb": parts["Pss"], "fds": len(list(Path(f"/proc/{pid}/fd").iterdir())), "threads": int(threads)}
    return found


def soak(stage: Stage) -> int:
    """Run until the requests are through; say what grew."""
    resources(stage)
    stage.start_daemon()
    done, bad, samples = 0.0, 0.0, []
    while done < REQUESTS:
        told = wrk(stage, USER_UID, seconds=ROUND_S)
        done += told["rate"] * ROUND_S
        bad += told["bad"] + told["socket_errors"]
        samples.append((round(done), sizes(stage)))
        total = sum(row["pss_kb"] for row in samples[-1][1].values())
        print(f"soak: {done:7.0f} requests, {bad:.0f} bad, PSS {total // 1024} MB", flush=True)
    first = next(found for count, found in samples if count >= SETTLED * REQUESTS)
    last = samples[-1][1]
    faults = [f"{bad:.0f} requests failed"] if bad else []
    for name, after in last.items():
        before = first[name]
        print(f"soak: {name:10} PSS {before['pss_kb']} -> {after['pss_kb']} kB, descriptors {before['fds']} -> {after['fds']}")
        if after["pss_kb"] - before["pss_kb"] > GREW_KB or after["fds"] - before["fds"] > GREW_FDS:
            faults.append(f"{name} grew")
    build = Path("build")
    build.mkdir(exist_ok=True)
    (build / "soak.json").write_text(json.dumps({"requests": round(done), "bad": bad, "samples": samples, "faults": faults}, indent=1))
    print(f"soak: {'; '.join(faults) or 'nothing grew'}")
    return 1 if faults else 0


def main() -> int:
    """Set the stage and run."""
    if os.geteuid() != 0:
        print("soak: error: needs root", file=sys.stderr)
        return 2
    install()
    with Stage("soak", say=print) as stage:
        far = serve(stage)
        try:
            return soak(stage)
        finally:
            far.stop()


if __name__ == "__main__":
    sys.exit(main())
