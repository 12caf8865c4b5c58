"""
``make demo``: the whole main job with the real OCI CLI, the refusals, a dead and a hung agent, and a clean machine at the end.

In: root on a machine with BTF.  Out: one line per step with what was seen; exit 0 when each was as the README says.
Everything runs in one cgroup, one private mount namespace and one network namespace, all made here; nothing else on the machine is hooked.
Each refusal is judged twice: by the reason credwire gives, and by the cloud, which must not have seen a valid signature.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e.lib import leftovers, oci_cli
from tests.e2e.lib.net import HarnessError
from tests.e2e.lib.stage import STRANGER_UID, USER_UID, Stage

BIG = 200 << 20
"""Bytes of the object that goes up and comes down."""
_UNRELATED = """
import socket, statistics, sys, time
took = []
for _ in range(200):
    began = time.perf_counter()
    socket.create_connection((sys.argv[1], 443), 5).close()
    took.append(time.perf_counter() - began)
print(round(statistics.median(took) * 1e6))
"""


class Wrong(Exception):
    """A step did not show what it must; says what was seen instead."""


class Demo:
    """The steps, in order; each prints its line."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.failed: list[str] = []

    # -- the frame

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def step(self, title: str, do: Callable[[], str]) -> None:
        """Run one step; print its outcome."""
        began = time.monotonic()
        try:
            outcome, mark = do(), "ok"
        except (Wrong, HarnessError, subprocess.TimeoutExpired, AssertionError) as error:
            outcome, mark = str(error) or type(error).__name__, "FAILED"
            self.failed.append(title)
        self.say(f"  {mark:6} {title:46} {outcome}  ({time.monotonic() - began:.1f} s)")

    def oci(self, *words: str, uid: int = USER_UID, argv: Sequence[str] | None = None, timeout: float = 120) -> tuple[int, str]:
        """Run the real CLI; give its exit code and everything it printed."""
        told = self.stage.client([*(argv or self.profile.argv), *words], uid=uid, env=self.profile.environment, timeout=timeout)
        return told.returncode, told.stdout + told.stderr

    def works(self, *words: str) -> str:
        """The call must succeed, and the cloud must have verified its signature."""
        before = len(self.stage.cloud.valid())
        code, text = self.oci(*words)
        valid = len(self.stage.cloud.valid()) - before
        if code != 0 or not valid:
            raise Wrong(f"exit {code}, {valid} valid signatures at the cloud: {_short(text)}")
        return f"exit 0, {valid} valid signature{'s' if valid > 1 else ''} at the cloud"

    # -- the steps

    def without(self) -> str:
        """Placeholders alone open nothing."""
        self.profile = self.stage.profile(bundle=self.stage.cloud.ca)
        code, text = self.oci(*oci_cli.USER_LIST)
        if code == 0 or "401" not in text:
            raise Wrong(f"exit {code}: {_short(text)}")
        return "401 NotAuthenticated, as it must be: the profile holds placeholders"

    def start(self) -> str:
        """The daemon comes up."""
        took = self.stage.start_daemon()
        self.profile = self.stage.profile()
        self.stranger = self.stage.profile(uid=STRANGER_UID)
        return f"enforcing after {took:.1f} s, in its own cgroup only"

    def big(self) -> str:
        """200 MB up and down, unchanged."""
        source, back = self.stage.home / "big", self.stage.home / "back"
        with source.open("wb") as file:
            block = os.urandom(1 << 20)
            for n in range(BIG >> 20):
                file.write(n.to_bytes(8, "big") + block[8:])
        os.chown(source, USER_UID, USER_UID)
        self.works(*oci_cli.object_put(source, "big", "--no-multipart"))
        self.works(*oci_cli.object_get(back, "big"))
        same = _digest(source) == _digest(back)
        source.unlink()
        back.unlink(missing_ok=True)
        if not same:
            raise Wrong("what came back differs from what went up")
        return "put with Expect: 100-continue, got back byte for byte"

    def refused(self, expected: str, words: Sequence[str], *, argv: Sequence[str] | None = None, uid: int = USER_UID, url: str = "") -> str:
        """The call must fail, for exactly this reason, without a valid signature at the cloud."""
        before = len(self.stage.cloud.valid())
        profile = self.stranger if uid == STRANGER_UID else self.profile
        environment = {**profile.environment, "REQUESTS_CA_BUNDLE": str(self._both_roots())}
        client = self.stage.client_started(
            [*(argv or profile.argv), *words], uid=uid, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        reason = self._reason_of(client.pid, url or "https://identity.test-1.oci.cloud.test/20160918/users")
        assert client.stdout is not None
        text = client.stdout.read().decode(errors="replace")
        client.stdout.close()
        code = client.wait()
        valid = len(self.stage.cloud.valid()) - before
        if code == 0 or valid or "401" not in text:
            raise Wrong(f"exit {code}, {valid} valid signatures at the cloud: {_short(text)}")
        if reason != expected:
            raise Wrong(f'reason "{reason}" instead of "{expected}": {_short(text)}')
        return f"{reason}; 401, the cloud saw no valid signature"

    def _both_roots(self) -> Path:
        """A bundle of our CA and the cloud's: an unbound client meets the cloud itself and must not fail for TLS."""
        path = self.stage.directory / "both.pem"
        path.write_bytes((self.stage.state / "ca" / "oci-cli.pem").read_bytes() + self.stage.cloud.ca.read_bytes())
        path.chmod(0o644)
        return path

    def _reason_of(self, pid: int, url: str) -> str:
        """Ask ``credwire explain`` about a running client, once it runs its own program."""

        def launched() -> bool:
            return b"tests.e2e.lib.inside" not in Path(f"/proc/{pid}/cmdline").read_bytes()

        self.stage.wait_until(launched, 10, "the client to start")
        told = self.stage.credwire("explain", "--pid", str(pid), url, "-o", "json")
        try:
            return str(json.loads(told.stdout)["reason"])
        except (ValueError, KeyError):
            return f"no answer ({_short(told.stdout + told.stderr)})"

    def path_refused(self) -> str:
        """A bound host, but a path the binding does not name: the CLI prints our reason."""
        before = len(self.stage.cloud.valid())
        code, text = self.oci("iam", "policy", "list", "--compartment-id", oci_cli.TENANCY)
        if code == 0 or "path-not-allowed" not in text or len(self.stage.cloud.valid()) != before:
            raise Wrong(f"exit {code}: {_short(text)}")
        return "403, and the CLI prints path-not-allowed with its hint"

    def elsewhere(self) -> str:
        """A host that no binding names is passed through untouched."""
        words = ("compute", "instance", "list", "--compartment-id", oci_cli.TENANCY)
        return self.refused("destination-unknown", words, url="https://iaas.test-1.cloud.test/20160918/instances")

    def agent_gone(self, how: str, number: signal.Signals) -> str:
        """With the agent dead or hung, a bound process gets no connection; others go on as before."""
        stage = self.stage
        unrelated_before = self._unrelated()
        with stage.without_supervision():
            os.kill(stage.pid("agent"), number)
            stopped_at = time.time()
            stage.wait_until(lambda: self.oci(*oci_cli.NAMESPACE_GET)[0] != 0, 10, "the bound process to be refused")
            code, text = self.oci(*oci_cli.USER_LIST)
            if code == 0:
                raise Wrong(f"a bound process was served with the agent {how}: {_short(text)}")
            last = max((record.at - stopped_at for record in stage.cloud.valid()), default=0.0)
            if last > 2.0:
                raise Wrong(f"a request was signed {last:.1f} s after the agent was {how}")
            unrelated = self._unrelated()
        began = time.monotonic()
        stage.wait_until(stage.healthy, 20, "the daemon to recover")
        recovered = time.monotonic() - began
        self.works(*oci_cli.USER_LIST)
        if not any(event.get("reason") == "daemon-down" and event["at"] >= stopped_at for event in stage.audit()):
            raise Wrong("the kernel's refusals are not in the audit")
        signed = f"last signature {last:.1f} s after" if last > 0 else "nothing signed since"
        return f"refused, {signed}; unrelated connect {unrelated} us (before {unrelated_before} us); back in {recovered:.1f} s, works"

    def _unrelated(self) -> int:
        """Median time of an unbound python3's connect() under the same hooks, in microseconds."""
        told = self.stage.client(["/usr/bin/python3", "-c", _UNRELATED, self.stage.subnet.there4], uid=STRANGER_UID)
        if told.returncode != 0:
            raise Wrong(f"an unrelated python3 was disturbed: {_short(told.stderr)}")
        return int(told.stdout)

    def show(self) -> None:
        """What an operator sees."""
        self._shown("binding", "list")
        audit = self.stage.audit()
        signed = next((e["id"] for e in reversed(audit) if e["event"] == "request-signed"), "")
        refused = next((e["id"] for e in reversed(audit) if e.get("reason") == "path-not-allowed"), "")
        self._shown("explain", signed)
        self._shown("explain", refused)
        self._shown("audit", "tail", "-n", "6")

    def _shown(self, *words: str) -> None:
        self.say(f"\n$ credwire {' '.join(words)}")
        told = self.stage.credwire(*words)
        self.say((told.stdout + told.stderr).rstrip())
        if not told.stdout.strip():
            self.failed.append(f"credwire {' '.join(words)}")


def _ours(process: leftovers.Process) -> bool:
    """Whether a new process can only be one of this demo's: the machine's own life goes on meanwhile."""
    words = ("credwire", "control.daemon", "control.cli", "tests.e2e")
    return any(word in process.command or word in process.cgroup for word in words) and process.pid != os.getpid()


def _counts(kind: str, what: str) -> bool:
    """
    Whether a new thing can be one of this demo's; what nobody else changes counts always.

    A namespace is seen through a process that is in it: ``_ours`` judges that one.
    """
    if kind.startswith("bpf") or kind in {"cgroup", "mount"}:
        return any(word in what for word in (" cw_", "credwire"))
    if kind in {"link", "address"}:
        return f"cw{os.getpid()}n" in what
    return kind != "namespace"


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copied_environment(stage: Stage) -> Path:
    """Copy the CLI's python3 with the virtual environment around it, so that only the identity can fail."""
    copy = stage.directory / "copied-environment"
    (copy / "bin").mkdir(parents=True)
    shutil.copy(Path("/usr/bin/python3").resolve(), copy / "bin" / "python3")
    shutil.copy(oci_cli.DIRECTORY / "pyvenv.cfg", copy / "pyvenv.cfg")
    (copy / "lib").symlink_to(oci_cli.DIRECTORY / "lib")
    return copy / "bin" / "python3"


def play(stage: Stage) -> list[str]:
    """Play all steps; give the titles of those that failed."""
    demo = Demo(stage)
    demo.say("\nthe main job")
    demo.step("oci iam user list, without credwire", demo.without)
    demo.step("credwired starts", demo.start)
    if demo.failed:
        print(stage.log_tail())
        return demo.failed
    demo.step("oci iam user list", lambda: demo.works(*oci_cli.USER_LIST))
    demo.step("oci iam compartment create (POST)", lambda: demo.works(*oci_cli.COMPARTMENT_CREATE))
    demo.step("oci os object put, get, 200 MB", demo.big)
    demo.say("\nthe refusals")
    script = str(stage.program)
    copied_script = stage.directory / "oci-copy"
    shutil.copy(stage.program, copied_script)
    words, options = oci_cli.USER_LIST, demo.profile.argv[1:]
    copied_python = str(_copied_environment(stage))
    python = str(stage.program.parent / "python3")
    demo.step("another user", lambda: demo.refused("identity-none", words, uid=STRANGER_UID))
    demo.step("a copy of python3", lambda: demo.refused("identity-none", words, argv=[copied_python, script, *options]))
    demo.step("a copy of the script", lambda: demo.refused("identity-none", words, argv=[str(copied_script), *options]))
    demo.step("python3 /path/to/oci, by argv", lambda: demo.refused("identity-none", words, argv=[python, script, *options]))
    demo.step("another destination", demo.elsewhere)
    demo.step("another path", demo.path_refused)
    demo.say("\nwithout the agent")
    demo.step("agent killed", lambda: demo.agent_gone("dead", signal.SIGKILL))
    demo.step("agent stopped (SIGSTOP)", lambda: demo.agent_gone("stopped", signal.SIGSTOP))
    demo.say("\nwhat an operator sees")
    demo.show()
    if demo.failed:
        print(f"\nthe daemon's log ends:\n{stage.log_tail()}")
    return demo.failed


def main() -> int:
    """Play, clean up, and prove it."""
    if os.geteuid() != 0:
        print("demo: error: BPF and namespaces need root\ndemo: hint: sudo make demo", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = leftovers.take()
    print("credwire demo: real BPF, real TLS, the real OCI CLI, a cloud that verifies every signature")
    failed: list[str] = []
    interrupted = False
    try:
        with Stage("demo", say=lambda text: print(f"  {text}", flush=True)) as stage:
            failed = play(stage)
    except KeyboardInterrupt:
        interrupted = True
        print("\ninterrupted; cleaning up", flush=True)
    left = leftovers.wait_until_clean(before, ours=_ours, counts=_counts)
    print(
        "\nthe machine is as it was: no program, pin, cgroup, mount, namespace, user or process of ours" if not left else "\nleft behind:"
    )
    for line in left.lines():
        print(f"  {line}")
    if interrupted:
        return 130
    if failed or left:
        print(f"\ndemo: FAILED: {', '.join(failed) or 'the machine is not clean'}")
        return 1
    print("\ndemo: all steps as the README says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
