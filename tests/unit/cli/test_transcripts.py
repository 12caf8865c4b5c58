"""Command lines as people meet them: every transcript in transcripts/ is played and compared, stdout, stderr and exit code."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from control.api.client_io import Admin
from control.api.view import BindingsView, BundleView, ExplainView, FaultView, HealthLine, IdentitiesView, ProcessView, Program
from control.cli import daemon_io
from control.reason import Reason
from tests.unit.api.small import IDENTITY, NOBODY, VIEWER, Small, running
from tests.unit.cli.stage import Stage, staged

TRANSCRIPTS = Path(__file__).with_name("transcripts")
WITH_UID = frozenset({"off", "trust", "trust-several", "preflight"})


def replay(stage: Stage, name: str) -> tuple[str, str]:
    """Play every command of a transcript; give (what it says, what came out)."""
    said = (TRANSCRIPTS / f"{name}.txt").read_text()
    came = [line + "\n" for line in said.splitlines()[:1]]
    for line in said.splitlines():
        if line.startswith("$ "):
            came += [line + "\n", stage.play(line[2:].replace("<dir>", str(stage.directory)))]
    return said, "".join(came)


@pytest.fixture
def stage(tmp_path: Path):
    with staged(tmp_path) as both:
        yield both


def check(stage: Stage, name: str) -> None:
    """Play and compare; where it shows who runs the test, that is ``uid N``."""
    said, came = replay(stage, name)
    assert (re.sub(r"uid \d+", "uid N", came) if name in WITH_UID else came) == said
    for line in came.splitlines():
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202e]*", line), line


CURL = pytest.mark.skipif(not Path("/usr/bin/curl").exists(), reason="/usr/bin/curl is missing: apt-get install curl")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the whole switch is root's")


@pytest.mark.parametrize(
    "name",
    [
        "status", "binding", "explain", "audit", "reload", "validate", "usage", "off", "diff", "revoke",
        pytest.param("init", marks=CURL), "init-oci", pytest.param("off-everything", marks=ROOT),
    ],
)  # fmt: skip
def test_transcript(stage: tuple[Stage, Small], name: str) -> None:
    """With a healthy daemon of one binding."""
    check(stage[0], name)


def test_unhealthy(stage: tuple[Stage, Small]) -> None:
    """With a stopped proxy, an unloadable directory and a lease that failed."""
    small = stage[1]
    hint = "free the disk under the state directory"
    health = (HealthLine("red", "the audit cannot be written, so no credential is given", hint), HealthLine("warn", "two\x1b[2J workers"))
    small.view.shown = msgspec.structs.replace(
        small.view.shown, enforcing=False, health=health, digest_disk="", counters={}, processes=(ProcessView("proxy", 0, "stopped", 0.0),)
    )
    check(stage[0], "unhealthy")


def test_reload_refused(stage: tuple[Stage, Small]) -> None:
    """With a directory that does not load."""
    stage[1].view.reload_errors = ('/etc/credwire/resources/oci.yaml:9:3: unknown key "selektors"', "second\x1b fault")
    check(stage[0], "reload-refused")


def test_diff_none(stage: tuple[Stage, Small]) -> None:
    """With a directory that is what runs."""
    stage[1].view.changes = ()
    check(stage[0], "diff-none")


def test_diff_refused(stage: tuple[Stage, Small]) -> None:
    """With a directory that a reload would refuse."""
    place = "/etc/credwire/resources/oci.yaml:9:3"
    fault = FaultView(place, "resource-malformed", 'spec has no field "selektors"', 'did you mean "selectors"?')
    stage[1].view.reload_faults, stage[1].view.reload_errors = (fault,), (f"{place}: {fault.message}",)
    check(stage[0], "diff-refused")


def test_identity(stage: tuple[Stage, Small]) -> None:
    """With two identities, of which one pins a file that was upgraded."""

    async def identities() -> IdentitiesView:
        drift = ("/usr/bin/curl: pinned 3f2a91c0d4e5…, on disk 77aa00b1c2d3…",)
        other = msgspec.structs.replace(IDENTITY, name="billing", drift=drift, bindings=(), processes=(), selectors=("unix:uid 1002",))
        return IdentitiesView((other, IDENTITY), 7)

    stage[1].view.identities = identities  # type: ignore[method-assign]
    check(stage[0], "identity")


def test_placeholder(tmp_path: Path) -> None:
    """With a home directory that holds profiles of its own."""
    stage = Stage(tmp_path)
    home = tmp_path / "home"
    for file, text in ((".aws/credentials", "[real]\naws_access_key_id=AKIAREAL\n"), (".oci/config", "[DEFAULT]\nuser=ocid1.user.real\n")):
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text(text)
    check(stage, "placeholder")
    for file in (".netrc", ".aws/credentials", ".oci/config", ".oci/credwire-placeholder.pem"):
        assert (home / file).stat().st_mode & 0o777 == 0o600
    assert (home / ".oci/config").read_text().startswith("[DEFAULT]\nuser=ocid1.user.real\n\n[CREDWIRE]\n")
    assert (home / ".oci/credwire-placeholder.pem").read_text().endswith("-----END PRIVATE KEY-----\nOCI_API_KEY\n")


def test_preflight(stage: tuple[Stage, Small]) -> None:
    """With a daemon that knows one program of ours."""
    ours = stage[0].bundle("oci-cli")
    stage[0].bundle("billing")
    view = stage[1].view

    async def bundle(identity: str) -> BundleView:
        return BundleView(identity, ours.read_text(), str(ours))

    async def explain_program(program: Program, url: str, method: str) -> ExplainView:
        if program.exe != os.path.realpath("/usr/bin/printenv"):
            return ExplainView(Reason.IDENTITY_NONE, hint="credwire identity list shows who has one", steps=())
        return await view.explain_process(4321, url, method) if url else ExplainView(Reason.GRANTED, identity="oci-cli")

    view.explain_program, view.bundle = explain_program, bundle  # type: ignore[method-assign]
    check(stage[0], "preflight")


def test_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sockets that are somebody else's, and a daemon that stands still."""
    stage = Stage(tmp_path)
    monkeypatch.setattr(Admin.__init__, "__kwdefaults__", {"answer_s": 0.3})
    monkeypatch.setattr(daemon_io, "PROBE_S", 0.3)
    with contextlib.ExitStack() as stack:
        socket_at(stack, tmp_path / "nobody.sock").close()
        stack.enter_context(answering(socket_at(stack, tmp_path / "http.sock"), b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        stack.enter_context(answering(socket_at(stack, tmp_path / "closes.sock"), b""))
        socket_at(stack, tmp_path / "packets.sock", socket.SOCK_SEQPACKET).listen()
        socket_at(stack, tmp_path / "silent.sock").listen()
        (tmp_path / "stopped").mkdir()
        socket_at(stack, tmp_path / "stopped" / "admin.sock").listen()
        still = stack.enter_context(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"]))
        stack.callback(still.kill)
        still.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, still.pid, os.WSTOPPED)
        (tmp_path / "stopped" / "processes.json").write_text(json.dumps([{"role": "agent", "pid": still.pid}]))
        said, came = replay(stage, "sockets")
    assert re.sub(r"pid \d+(, [^)]+)?", "pid N", came) == said


def socket_at(stack: contextlib.ExitStack, path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Bind a socket that nobody listens at yet."""
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    sock.bind(str(path))
    return sock


@contextlib.contextmanager
def answering(sock: socket.socket, text: bytes) -> Iterator[None]:
    """Answer whoever connects with ``text``, and close."""
    sock.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = sock.accept()
                with peer, contextlib.suppress(OSError):
                    if text:
                        peer.recv(65536)
                        peer.sendall(text)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_empty(tmp_path: Path) -> None:
    """With a daemon that has nothing yet."""
    stage = Stage(tmp_path)
    (tmp_path / "run").mkdir()
    with running(tmp_path / "run") as small:
        small.view.bound = BindingsView((), 0)
        check(stage, "empty")


def test_trust(stage: tuple[Stage, Small]) -> None:
    """With one bundle on disk."""
    stage[0].bundle("oci-cli")
    check(stage[0], "trust")


def test_trust_several(stage: tuple[Stage, Small]) -> None:
    """With two bundles on disk."""
    stage[0].bundle("oci-cli")
    stage[0].bundle("billing")
    check(stage[0], "trust-several")


def test_dead(tmp_path: Path) -> None:
    """With no daemon, and a bundle it left."""
    stage = Stage(tmp_path)
    stage.bundle("oci-cli")
    check(stage, "dead")


@pytest.mark.parametrize(("name", "rules"), [("denied", NOBODY), ("viewer", VIEWER)])
def test_roles(tmp_path: Path, name: str, rules: object) -> None:
    """With a daemon that gives the caller less than everything."""
    stage = Stage(tmp_path)
    (tmp_path / "run").mkdir()
    with running(tmp_path / "run", rules):  # type: ignore[arg-type]
        said, came = replay(stage, name)
    assert re.sub(r"uid \d+", "uid N", came) == said


def test_every_transcript_is_played() -> None:
    """No file lies in transcripts/ unread."""
    here = Path(__file__).read_text()
    for path in TRANSCRIPTS.glob("*.txt"):
        assert f'"{path.stem}"' in here, path
