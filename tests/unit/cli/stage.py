"""
A place where command lines are played: a small daemon, a state directory, resources.

``play`` runs one line of a transcript and gives it back as a transcript has it: stdout as it is, each line of stderr after ``[stderr]``,
the exit code at the end.  The directory of the test is written ``<dir>``, a SHA-256 ``<digest>``, the day ``<today>``.
A line is a command of credwire, perhaps behind ``echo WORDS |``, or ``cat FILE``.
"""

import contextlib
import datetime as dt
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from control.audit.event import Event
from control.cli.main import run
from control.credential.ca import make
from control.reason import Reason
from tests.unit.api.small import AT, Small, running

GOOD = """\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {name: oci-cli}
spec:
  workloadID: ops/oci-cli
  owner: platform-team@example.org
  environment: prod
  selectors:
    - unix:uid: 1001
      unix:exe:path: /usr/bin/python3.11
      script:path: /opt/oci/bin/oci
"""

BAD = GOOD.replace("selectors:", "selektors:")

EVENTS = (
    Event(
        at=AT, id="0123456789abcdef", event="request-signed", reason=Reason.GRANTED, identity="oci-cli", binding="oci-cli-prod",
        source="oci-prod-upst", issue=3, pid=4321, uid=1001, exe="/usr/bin/python3.11", script="/opt/oci/bin/oci", method="GET",
        host="identity.test-1.cloud.test", port=443, path="/20160918/users", revision=7, speaker="keys",
    ),
    Event(
        at=AT + 1, id="fedcba9876543210", event="request-refused", reason=Reason.METHOD_NOT_ALLOWED, identity="oci-cli",
        binding="oci-cli-prod", pid=4321, uid=1001, exe="/usr/bin/python3.11", script="/opt/oci/bin/oci", method="DELETE",
        host="identity.test-1.cloud.test", port=443, path="/20160918/users/ocid1.user\x1b[2J\u202egpj", status=403, revision=7,
        speaker="proxy",
    ),
)  # fmt: skip


class Stage:
    """Where transcripts are played."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        (self.state / "ca").mkdir(parents=True)
        (directory / "good").mkdir()
        (directory / "good" / "oci.yaml").write_text(GOOD)
        (directory / "bad").mkdir()
        (directory / "bad" / "oci.yaml").write_text(BAD)
        config = (
            f"trustDomain: corp.example\npaths:\n  state: {self.state}\n  run: {directory}/run\n  resources: {directory}/good\n"
            f"  pins: {directory}/pins\ncgroup: {{daemon: /credwire-cli-test}}\nseal: {{with: none}}\n"
        )  # no pins and a cgroup that is not there: a command of a test never touches a daemon that runs on this machine
        (directory / "credwired.yaml").write_text(config)
        self.environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(directory / "home"), "CREDWIRE_CONFIG": str(directory / "credwired.yaml"),
        }  # fmt: skip
        self.socket(directory / "run" / "admin.sock")

    def socket(self, path: Path) -> None:
        """Point command lines at this admin socket."""
        self.environment["CREDWIRE_SOCKET"] = str(path)

    def bundle(self, identity: str, binding: str = "oci-cli-prod") -> Path:
        """Put a bundle with one real binding CA where the daemon puts it."""
        now = dt.datetime(2026, 11, 22, tzinfo=dt.UTC).timestamp()
        made = make(binding, frozenset({"test-1.cloud.test"}), ec.generate_private_key(ec.SECP256R1()), now=now, serial=7)
        path = self.state / "ca" / f"{identity}.pem"
        path.write_bytes(made.pem())
        return path

    def play(self, line: str) -> str:
        """Run one command line and tell what came out."""
        words = shlex.split(line)
        given = b""
        if words[0] == "echo":
            at = words.index("|")
            given, words = " ".join(words[1:at]).encode() + b"\n", words[at + 1 :]
        if words[0] == "cat":
            return self.hidden(Path(words[1]).read_text())
        arguments = words[1:]
        code, out, err = self.apart(arguments) if arguments[:1] == ["run"] else self.within(arguments, given)
        return self.hidden(out + "".join(f"[stderr] {part}\n" for part in err.splitlines()) + f"[exit {code}]\n")

    def hidden(self, told: str) -> str:
        """Put names in the place of what differs from day to day."""
        told = re.sub(r"(made it on |reviewedAt: )\d{4}-\d\d-\d\d", r"\1<today>", told.replace(str(self.directory), "<dir>"))
        return re.sub(r"\b[0-9a-f]{64}\b", "<digest>", told)

    def within(self, arguments: list[str], given: bytes = b"") -> tuple[int, str, str]:
        """Run in this process, with ``given`` on standard input: most command lines need no other process."""
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(given))
        try:
            with _environment(self.environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(arguments)
        finally:
            sys.stdin = before
        out.seek(0)
        return code, out.read(), err.getvalue()

    def apart(self, arguments: list[str]) -> tuple[int, str, str]:
        """Run as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "control.cli.main", *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[tuple[Stage, Small]]:
    """A stage with a daemon that has already done something."""
    stage = Stage(directory)
    (directory / "run").mkdir()
    with running(directory / "run") as small:
        small.append(*EVENTS)
        yield stage, small
