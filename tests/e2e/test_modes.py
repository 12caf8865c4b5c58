"""
Mode observe and onDaemonDown: nothing is refused to whoever is only looked at, and what would have happened is written down.  Needs root.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import Hand, HandError, head
from tests.e2e.lib.scene import IDENTITY, USERS, Scene
from tests.e2e.lib.scene import scene as make_scene


@pytest.fixture(scope="module")
def own() -> Iterator[Scene]:
    """``main`` enforces, ``victim`` observes, ``fleeting`` goes direct while we are down."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with make_scene("modes") as made:
        made.write("victim", mode="observe")
        made.write("fleeting", on_daemon_down="direct")
        made.reload()
        yield made


def issuer(hand: Hand) -> str:
    """Who vouches for the bound name on a fresh connection."""
    number = hand.connect()
    try:
        return str(hand.tls(number, IDENTITY)["issuer"])
    finally:
        hand.close(number)


def observed(scene: Scene, binding: str = "victim") -> int:
    """What ``binding show`` counts."""
    told = scene.stage.credwire("binding", "show", binding, "-o", "json")
    return int(json.loads(told.stdout)["observed"])


def test_what_is_observed_reaches_the_cloud_untouched_and_is_written_down(own: Scene) -> None:
    """The cloud's own certificate, no credential, and a line with identity, binding, host and process."""
    before = observed(own)
    with own.hand("victim") as hand, own.watch() as seen:
        assert "binding CA" not in issuer(hand)
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        line = seen.audit(event="connection-observed", binding="victim")
        assert (line["identity"], line["host"], line["pid"]) == ("victim", IDENTITY, hand.pid)
        assert seen.nothing_given()
        assert observed(own) >= before + 2
        explained = json.loads(own.stage.credwire("explain", "--pid", str(hand.pid), f"https://{IDENTITY}{USERS}", "-o", "json").stdout)
        assert "only observes" in explained["said"]
        assert "mode: enforce" in explained["hint"]


def test_keys_being_away_does_not_hurt_who_is_observed(own: Scene) -> None:
    """While ``main`` is refused, ``victim`` goes on."""
    with own.hand("victim") as hand, own.hand("main") as bound:
        with own.stage.without_supervision():
            os.kill(own.stage.pid("keys"), signal.SIGKILL)
            own.stage.wait_until(lambda: _refused(bound), 5, "main to be refused")
            assert hand.request(IDENTITY, "GET", USERS).status == 401
        own.stage.wait_until(own.stage.healthy, 20, "the daemon to be healthy")


def _refused(hand: Hand) -> bool:
    try:
        return hand.request(IDENTITY, "GET", USERS).status != 200
    except HandError:
        return True


def test_a_debugger_refuses_the_bound_and_only_the_bound(own: Scene) -> None:
    """Of the observed one it is written down what would have happened."""
    with own.hand("victim") as hand, own.hand("main") as bound, own.watch() as seen:
        with traced(hand.pid), traced(bound.pid):
            assert hand.request(IDENTITY, "GET", USERS).status == 401
            with pytest.raises(HandError):
                bound.open(IDENTITY)
        seen.audit(event="connection-refused", reason=Reason.PROCESS_TRACED, pid=bound.pid)
        assert seen.audit(event="connection-observed", reason=Reason.PROCESS_TRACED)["pid"] == hand.pid


_TRACE = """
import ctypes, os, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
if libc.ptrace(0x4206, pid, None, None):  # PTRACE_SEIZE: attached, and running on
    sys.exit(os.strerror(ctypes.get_errno()))
print("attached", flush=True)
sys.stdin.read()
"""


class traced:  # reads as a phrase
    """A process with a debugger attached, which lets it run."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _TRACE, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"attached\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate(b"")


def test_observe_to_enforce_is_one_word_and_a_reload(own: Scene) -> None:
    """The same process, the same connection pattern: untouched, then signed, then untouched again."""
    with own.hand("victim") as hand, own.watch() as seen:
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        file = own.stage.resources / "victim.yaml"
        file.write_text(file.read_text().replace("mode: observe", "mode: enforce"))
        own.reload()
        own.stage.wait_until((own.stage.state / "ca" / "victim.pem").exists, 5, "the bundle")
    with own.hand("victim") as hand, own.watch() as seen:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        assert [record.principal for record in seen.valid()] == ["svc-victim"]
        file.write_text(file.read_text().replace("mode: enforce", "mode: observe"))
        own.reload()
        assert hand.request(IDENTITY, "GET", USERS).status == 401


def test_with_everything_killed_direct_goes_direct_and_refuse_is_refused(own: Scene) -> None:
    """onDaemonDown lives in the kernel: nobody of ours is there to decide."""
    with own.hand("fleeting") as direct, own.hand("main") as refused, own.hand("victim") as looked_at:
        assert direct.request(IDENTITY, "GET", USERS).status == 200
        assert refused.request(IDENTITY, "GET", USERS).status == 200
        pids = [row["pid"] for row in own.stage.processes()]
        os.kill(own.stage.pid("credwired"), signal.SIGKILL)
        assert own.stage.daemon is not None
        own.stage.daemon.wait(5)
        own.stage.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5, "all to end")
        with own.watch() as seen:
            began = time.monotonic()
            assert direct.request(IDENTITY, "GET", USERS).status == 401
            assert looked_at.request(IDENTITY, "GET", USERS).status == 401
            with pytest.raises(HandError) as met:
                refused.open(IDENTITY)
            assert met.value.kind == "ConnectionRefusedError"
            assert time.monotonic() - began < 2
            assert seen.nothing_given()
        own.stage.start_daemon()
        kept = refused.open(IDENTITY)
        assert refused.asks(kept, head(IDENTITY, "GET", USERS)).status == 200
        assert direct.request(IDENTITY, "GET", USERS).status == 200
