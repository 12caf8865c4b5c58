"""
The off switch: traffic is direct within a second, whatever has become of the daemon, and somebody can always say who did it.  Needs root.

Direct means that the cloud's own certificate reaches the client and that no request bears a credential of ours.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import Hand, HandError, head
from tests.e2e.lib.net import REPOSITORY
from tests.e2e.lib.scene import DOWNLOAD, IDENTITY, USERS, Scene, begun
from tests.e2e.lib.scene import scene as make_scene

DIRECT_S = 1.0


@pytest.fixture(scope="module")
def own() -> Iterator[Scene]:
    """A daemon of our own: it is stopped and killed."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with make_scene("switch") as made:
        yield made


@pytest.fixture(autouse=True)
def whole(own: Scene) -> Iterator[None]:
    """Switched on and alive, before and after."""
    own.stage.wait_until(own.stage.healthy, 20, "the daemon to be healthy")
    yield
    own.stage.switch("on")
    daemon = own.stage.daemon
    if daemon is not None and daemon.poll() is None:
        os.kill(own.stage.pid("credwired"), signal.SIGCONT)
    else:
        own.stage.daemon = None
        own.stage.start_daemon(red=True)
    for name in own.stage.status().get("off", {}).get("bindings", {}):
        own.stage.credwire("on", "--binding", name)


def issuer(hand: Hand, name: str = IDENTITY) -> str:
    """Who vouches for ``name`` on a fresh connection."""
    number = hand.connect()
    try:
        return str(hand.tls(number, name)["issuer"])
    finally:
        hand.close(number)


def is_direct(hand: Hand) -> bool:
    """Whether a fresh connection reaches the cloud itself."""
    try:
        return "binding CA" not in issuer(hand)
    except HandError:
        return False


def ours(scene: Scene) -> list[int]:
    """Every process of the daemon."""
    cgroup = next(Path("/sys/fs/cgroup").rglob(f"{scene.stage.kennel.cgroup.name}/daemon/cgroup.procs"), None)
    assert cgroup is not None
    return [int(line) for line in cgroup.read_text().split()]


def kept_open(hand: Hand) -> int:
    """A connection on which a request was signed."""
    number = hand.open(IDENTITY)
    assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200
    return number


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_with_every_process_stopped_or_killed_traffic_is_direct_within_a_second(own: Scene, number: signal.Signals) -> None:
    """Also for a client in the middle of a connection, whose request nobody would ever answer."""
    with own.hand() as hand, own.watch() as seen:
        assert not is_direct(hand)
        kept = kept_open(hand)
        supervisor = own.stage.pid("credwired")
        for pid in sorted(ours(own), key=lambda pid: pid != supervisor):  # the supervisor first: it would start the others anew
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                assert number is signal.SIGKILL  # they die with it
        if number is signal.SIGSTOP:
            hand.send(kept, head(IDENTITY, "GET", USERS))
        waiting = len(seen.valid())
        done = own.stage.switch("off")
        assert done["attached"]
        assert not done["noticed"]
        assert done["faults"] == []
        with pytest.raises(HandError):
            hand.answer(kept)
        assert is_direct(hand)
        took = time.time() - done["began"]
        assert took <= DIRECT_S, took
        assert hand.request(IDENTITY, "GET", USERS).status == 401  # the cloud's own answer to a request without a signature
        assert len(seen.valid()) == waiting
        print(f"\n  {number.name}: direct after {took:.2f} s, killed {done['killed']}")


def test_a_living_daemon_cuts_what_bears_a_credential_and_nobody_is_killed(own: Scene) -> None:
    """Red in status with who and what ends it, in the audit with who; on again, the next request is signed."""
    before = [(row["name"], row["pid"]) for row in own.stage.processes()]
    with own.hand() as hand, own.watch() as seen:
        kept = kept_open(hand)
        done = own.stage.switch("off", 3600)
        assert done["noticed"]
        assert done["killed"] == []
        assert done["ended"] - done["began"] <= DIRECT_S
        with pytest.raises(HandError):
            hand.asks(kept, head(IDENTITY, "GET", USERS))
        assert is_direct(hand)
        line = seen.audit(event="switched-off")
        assert "an engineer at 3 a.m." in line["detail"]
        assert line["uid"] == 0
        status = own.stage.status()
        assert not status["enforcing"]
        assert status["off"]["everything"]
        assert abs(status["off"]["until"] - done["until"]) < 1
        (red,) = [row for row in status["health"] if row["level"] == "red"]
        assert "an engineer at 3 a.m." in red["says"]
        assert red["hint"] == "credwire on"
        assert own.stage.switch("on")["noticed"]
        own.stage.wait_until(lambda: not is_direct(hand), 5, "connections to be held again")
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        assert seen.audit(event="switched-on")["uid"] == 0
    assert [(row["name"], row["pid"]) for row in own.stage.processes()] == before


def test_off_for_a_while_ends_by_itself(own: Scene) -> None:
    """The kernel comes on alone; the agent writes down that the time was over, and forgets."""
    with own.hand() as hand, own.watch() as seen:
        own.stage.switch("off", 1.5)
        assert is_direct(hand)
        own.stage.wait_until(lambda: not is_direct(hand), 5, "the time to be over")
        assert "the time was over" in seen.audit(event="switched-on")["detail"]
        assert not (own.stage.state / "off.json").exists()


def test_what_is_off_stays_off_over_a_restart_with_new_programs(own: Scene) -> None:
    """Everything is taken out of the kernel and comes back: still off, and what was done meanwhile is in the audit."""
    own.stage.stop_daemon()
    own.stage.switch("off")
    with own.watch() as seen:
        _start_off(own)
        with own.hand() as hand:  # a program that was started before is not known to the new programs
            assert is_direct(hand)
            assert "an engineer at 3 a.m." in seen.audit(event="switched-off")["detail"]
            own.stage.switch("on")
            own.stage.wait_until(lambda: not is_direct(hand), 5, "connections to be held again")


def _start_off(scene: Scene) -> None:
    with pytest.raises(Exception, match="the daemon to be healthy"):
        scene.stage.start_daemon(within_s=6, red=True)
    assert scene.stage.status()["off"]["everything"]


def test_one_binding_is_off_alone(own: Scene) -> None:
    """Its connections are cut and go direct; another identity's are not touched; nothing of it survives ``on``."""
    with own.hand("main") as main, own.hand("victim") as other, own.watch() as seen:
        cut, stays = kept_open(main), kept_open(other)
        told = own.stage.credwire("off", "--binding", "main")
        assert told.returncode == 0, told.stderr
        with pytest.raises(HandError):
            main.asks(cut, head(IDENTITY, "GET", USERS))
        assert is_direct(main)
        assert main.request(IDENTITY, "GET", USERS).status == 401
        assert other.asks(stays, head(IDENTITY, "GET", USERS)).status == 200
        assert seen.audit(event="switched-off", binding="main")["identity"] == "main"
        assert seen.audit(event="connection-observed", binding="main")["host"] == IDENTITY
        status = own.stage.status()
        assert status["off"]["bindings"] == {"main": 0.0}
        assert any(row["hint"] == "credwire on --binding main" for row in status["health"] if row["level"] == "red")
        explained = json.loads(own.stage.credwire("explain", "--pid", str(main.pid), f"https://{IDENTITY}{USERS}", "-o", "json").stdout)
        assert "switched off" in explained["said"]
        os.kill(own.stage.pid("agent"), signal.SIGKILL)  # remembered
        own.stage.wait_until(lambda: bool(own.stage.status().get("enforcing")), 20, "a new agent")
        assert is_direct(main)
        assert own.stage.credwire("on", "--binding", "main").returncode == 0
        assert main.request(IDENTITY, "GET", USERS).status == 200


def test_a_revoked_process_gets_nothing_more_until_it_runs_another_program(own: Scene) -> None:
    """Its connection is cut, the next ones are refused, also by a new agent; another process of the identity is not touched."""
    with own.hand("main") as hand, own.hand("main") as twin, own.watch() as seen:
        kept, stays = kept_open(hand), kept_open(twin)
        told = own.stage.credwire("revoke", "--pid", str(hand.pid))
        assert told.returncode == 0, told.stderr
        line = seen.audit(event="revoked")
        assert (line["pid"], line["identity"]) == (hand.pid, "main")
        assert "uid 0" in line["detail"]
        with pytest.raises(HandError):
            hand.asks(kept, head(IDENTITY, "GET", USERS))
        with pytest.raises(HandError):
            hand.open(IDENTITY)
        seen.audit(event="connection-refused", reason=Reason.REVOKED, pid=hand.pid)
        assert twin.asks(stays, head(IDENTITY, "GET", USERS)).status == 200
        os.kill(own.stage.pid("agent"), signal.SIGKILL)
        own.stage.wait_until(own.stage.healthy, 20, "a new agent")
        with pytest.raises(HandError):
            hand.open(IDENTITY)
    with own.hand("main") as fresh:
        assert fresh.request(IDENTITY, "GET", USERS).status == 200


_CHILD_CONNECTS = """
import socket, ssl
pid = os.fork()
if pid == 0:
    try:
        with socket.create_connection((host, 443), timeout=5) as sock:
            sock.sendall(b"x" * 64)
            os._exit(0 if sock.recv(1) else 1)
    except OSError as error:
        os._exit(2)
result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_fork_does_not_lift_a_revocation(own: Scene) -> None:
    """A child of a revoked process is revoked as well, whenever it was made; a process that was not is left alone."""
    with own.hand("main") as hand, own.watch() as seen:
        kept_open(hand)
        assert own.stage.credwire("revoke", "--pid", str(hand.pid)).returncode == 0
        for _ in range(3):
            assert hand.python(_CHILD_CONNECTS, host=IDENTITY) != 0
        refused = [row for row in seen.lines() if row["event"] == "connection-refused" and row.get("reason") == Reason.REVOKED]
        assert len({row["pid"] for row in refused} - {hand.pid}) == 3
    with own.hand("main") as fresh:
        assert fresh.request(IDENTITY, "GET", USERS).status == 200


def test_revoking_cuts_in_the_middle_of_an_answer(own: Scene) -> None:
    """A binding is revoked while a download runs: the client sees an error, not an end, and the next request gets a new issue."""
    with own.hand("main") as hand, own.watch() as seen:
        number = begun(own, hand)
        before = len([line for line in seen.lines() if line["event"] == "exchange-done"])
        told = own.stage.credwire("revoke", "--binding", "main", "-o", "json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["grants"] >= 1
        cut = hand.do("drain", number=number)
        assert cut["end"] in ("ConnectionResetError", "SSLEOFError")
        assert cut["bytes"] < DOWNLOAD
        assert seen.audit(event="revoked")["binding"] == "main"
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        assert len([line for line in seen.lines() if line["event"] == "exchange-done"]) == before + 1


def test_the_switch_is_roots(own: Scene) -> None:
    """Somebody without rights cannot throw it, and hears so."""
    code = (
        "from pathlib import Path; from bpf import switch_io\n"
        "try: print(switch_io.turn_off(Path('/sys/fs/bpf/credwire'), None))\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    done = own.stage.client(["/usr/bin/python3", "-c", code], env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)})
    assert done.stdout.strip() != "True"
    with own.hand() as hand:
        assert not is_direct(hand)
