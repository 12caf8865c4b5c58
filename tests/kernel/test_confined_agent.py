"""
The agent's short list of capabilities is enough for all of its work, on real programs and tables.

Needs root, BTF and bcc; the programs hang on a cgroup of their own.
"""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

from bpf.abi import ProcessState
from bpf.record_io import read_answer
from control.daemon.confine_io import confine
from control.facts.gather_io import Namespaces, gather
from control.facts.model import Facts, ProcessKey
from control.units import ExecId, Gid, Pid, StartNs, Uid
from tests.kernel.lab_io import Lab

CLIENT_UID = 72499


def as_agent(work: Callable[[], Any]) -> Any:
    """Fork, confine the child as the agent, give what ``work`` returned there."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confine("agent", 0, 0)
            told = {"value": work()}
        except BaseException:  # the parent shows it
            told = {"error": traceback.format_exc()}
        os.write(write_end, json.dumps(told).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "error" not in told, told["error"]
    return told["value"]


def test_a_confined_agent_reads_records_attests_settles_and_reloads(lab: Lab) -> None:
    """From the accepted descriptor to the settled entry of another user's process, then a new set of filters: nothing is refused."""
    lab.rule_exe()
    client = lab.client(uid=CLIENT_UID)
    assert client.connect("127.9.8.7", 443) == 0
    sock = lab.accept()

    def work() -> dict[str, Any]:
        record = read_answer(sock).record
        key = ProcessKey(Pid(record.tgid), StartNs(record.start_ns), ExecId(record.exec_id))
        facts = gather(key, uid=Uid(record.uid), gid=Gid(record.gid), script=None, want_digest=True, home=Namespaces.own())
        settled = lab.kernel.settle(record.tgid, record.start_ns, record.exec_id, ProcessState.BOUND, 9)
        entry = lab.kernel.process(record.tgid)
        lab.kernel.swap_filters([], ports=[443], excluded=[], revision=2)
        lab.kernel.beat()
        return {
            "tgid": record.tgid,
            "uid": record.uid,
            "exe": facts.exe.path if isinstance(facts, Facts) else str(facts),
            "digest": isinstance(facts, Facts) and facts.exe_sha256 is not None,
            "settled": settled,
            "state": entry.state if entry else None,
            "events": len(lab.kernel.drain()) >= 0,
            "counters": bool(lab.kernel.counters()),
        }

    found = as_agent(work)
    sock.close()
    assert found == {
        "tgid": client.pid,
        "uid": CLIENT_UID,
        "exe": str(lab.bound),
        "digest": True,
        "settled": True,
        "state": ProcessState.BOUND,
        "events": True,
        "counters": True,
    }
