"""The admin socket: who is answered, what they hear, and what strangers hear."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import pytest

from control.api.ask import AskError, Fault
from control.api.client_io import Admin
from control.api.refusal import PREFACE
from control.api.roles import Rules
from control.api.server_io import MAX_CALLERS_PER_UID
from control.api.view import Program, Role
from control.audit.event import Event
from control.reason import Reason
from tests.unit.api.small import AT, CHANGE, IDENTITY, MINE, NOBODY, OCI, STATUS, VIEWER, broken, running


@pytest.fixture
def small(tmp_path: Path):
    with running(tmp_path) as small:
        yield small


def test_answers_arrive_as_they_were_given(small) -> None:
    """What the view says is what the client gets, field for field."""
    with Admin(small.path) as admin:
        assert admin.status() == STATUS
        assert admin.bindings().bindings == (OCI,)
        assert admin.binding("oci-cli-prod") == OCI
        explained = admin.explain_process(4321, "https://identity.test-1.cloud.test/20160918/users", "POST")
        assert (explained.reason, explained.granted) == ("method-not-allowed", False)
        assert explained.steps[-1].source == "oci.yaml:40:5"
        assert admin.bundle("oci-cli").pem.startswith("-----BEGIN")
        assert admin.reload().revision == 8


def test_audit_is_read_oldest_first_and_found_by_id(small) -> None:
    """The last lines come in order, and an id brings its events back whole."""
    told = [Event(at=AT + n, id=f"{n:04x}", event="request-signed", reason=Reason.GRANTED, uid=0, pid=7) for n in range(5)]
    small.append(*told, Event(at=AT, event="agent-started"))
    with Admin(small.path) as admin:
        assert list(admin.audit(3)) == [told[3], told[4], Event(at=AT, event="agent-started")]
        assert admin.explain_id("0002").events == (told[2],)
        with pytest.raises(AskError) as refused:
            admin.explain_id("ffff")
    assert refused.value.fault is Fault.REFUSED
    assert 'nothing under the id "ffff"' in refused.value.message


def test_following_gets_what_comes_and_ends_with_the_reader(small) -> None:
    """A follower sees old and new lines; when it hangs up, the daemon lets go of it."""
    small.append(Event(at=AT, id="a", event="request-signed"))
    with Admin(small.path) as admin:
        lines = admin.audit(1, follow=True)
        assert next(lines).id == "a"
        small.append(Event(at=AT, id="b", event="request-refused", reason=Reason.PATH_NOT_ALLOWED))
        assert next(lines).id == "b"
        assert small.view.followers == 1
    small.until(lambda: small.view.followers == 0)


def test_refusal_of_the_view_reaches_the_client_with_reason_and_hint(small) -> None:
    """A typed error keeps its reason and hint; an error that is not ours keeps its text to itself."""
    with Admin(small.path) as admin:
        small.view.fault = broken()
        with pytest.raises(AskError) as refused:
            admin.reload()
        assert (refused.value.reason, refused.value.fault) == ("resource-malformed", Fault.REFUSED)
        assert refused.value.hint == "selectors is what you may have meant"
        small.view.fault = RuntimeError("the secret is swordfish")
        with pytest.raises(AskError) as failed:
            admin.status()
    assert "swordfish" not in failed.value.message
    assert isinstance(small.faults[0]["exception"], RuntimeError)


def test_viewer_may_look_but_not_change(tmp_path: Path) -> None:
    """The view role answers questions; reload is refused, and the refusal is noted with who and what."""
    with running(tmp_path, VIEWER) as small, Admin(small.path) as admin:
        assert admin.status().revision == 7
        with pytest.raises(AskError) as refused:
            admin.reload()
        assert refused.value.fault is Fault.NOT_ALLOWED
        assert "credwire-admin" in refused.value.hint
        caller, method = small.view.refusals[0]
        assert (caller.uid, caller.pid, method.rpartition("/")[2]) == (os.geteuid(), os.getpid(), "Reload")
        assert small.view.reloaders == []
        for _ in range(5):
            with pytest.raises(AskError, match="may not call Reload"):
                admin.reload()
        assert len(small.view.refusals) <= 3  # the audit is not theirs to fill


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_what_changes_something_is_refused_to_a_viewer(tmp_path: Path) -> None:
    """Revoking and switching need the admin role; what they would show, a viewer may see."""
    with running(_made(tmp_path / "viewer"), VIEWER) as small, Admin(small.path) as admin:
        for ask in (lambda: admin.revoke(binding="oci-cli-prod"), lambda: admin.switch("oci-cli-prod", off=True)):
            with pytest.raises(AskError, match="may not call") as refused:
                ask()
            assert refused.value.fault is Fault.NOT_ALLOWED
        assert small.view.revokers == []
        assert admin.diff().changes == (CHANGE,)
        assert admin.identities().identities == (IDENTITY,)
    with running(tmp_path) as small, Admin(small.path) as admin:
        assert admin.revoke(identity="oci-cli").leases == 1
        assert admin.revoke(pid=4321).processes == (4321,)
        assert admin.switch("oci-cli-prod", off=True, for_s=60).off.bindings == {"oci-cli-prod": AT + 60}
        assert admin.status().off.bindings == {"oci-cli-prod": AT + 60}
        assert admin.switch("oci-cli-prod", off=False).off.bindings == {}


@pytest.mark.parametrize("for_s", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_time_that_is_none_is_refused(small, for_s: float) -> None:
    """Whoever switches off for a time that cannot be meant is told so, and nothing is switched."""
    with Admin(small.path) as admin:
        with pytest.raises(AskError, match="the time to be off cannot be understood"):
            admin.switch("oci-cli-prod", off=True, for_s=for_s)
        assert admin.status().off.bindings == {}


def test_an_empty_revocation_is_refused(small) -> None:
    """Nothing named is not everything."""
    with Admin(small.path) as admin, pytest.raises(AskError, match="no binding, identity or process was given"):
        admin.revoke()
    assert small.view.revokers == []


def test_program_of_a_viewer_is_their_own_whatever_they_say(tmp_path: Path) -> None:
    """run asks about a program under the caller's user; only an admin may ask about somebody else's."""
    program = Program("/usr/bin/python3.11", "/opt/oci/bin/oci", 1001, 1001)
    me = (os.geteuid(), os.getegid())
    with running(_made(tmp_path / "viewer"), VIEWER) as small, Admin(small.path) as admin:
        assert admin.explain_program(program).reason == ("granted" if me[0] == 1001 else "identity-none")
        assert (small.view.programs[0].uid, small.view.programs[0].gid) == me
    with running(tmp_path) as small, Admin(small.path) as admin:
        assert admin.explain_program(program).identity == "oci-cli"
        url = "https://identity.test-1.cloud.test/20160918/users"
        assert admin.explain_program(program, url, "DELETE").reason == "method-not-allowed"
        admin.explain_program(Program(program.exe))
        assert (small.view.programs[-1].uid, small.view.programs[-1].gid) == me


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not open a socket")
def test_who_may_not_open_the_admin_socket_finds_the_view_socket_beside_it(tmp_path: Path) -> None:
    """The client falls back by itself, and says so about the first socket when neither may be opened."""
    ask = (
        "import os, sys; from pathlib import Path; from control.api.client_io import choose; from control.api.ask import AskError\n"
        "os.setgroups([]); os.setgid(64002); os.setuid(64002)\n"
        "try: print(choose(Path(sys.argv[1])).name)\n"
        "except AskError as error: print(error.fault, error.message)\n"
    )
    place = Path(tempfile.mkdtemp(prefix="credwire-", dir="/run"))
    try:
        place.chmod(0o755)
        with contextlib.ExitStack() as open_sockets:
            for name, mode in (("admin.sock", 0o660), ("view.sock", 0o666)):
                sock = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
                sock.bind(str(place / name))
                (place / name).chmod(mode)
                sock.listen(4)
            argv = [sys.executable, "-c", ask, str(place / "admin.sock")]
            assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "view.sock\n"
            (place / "view.sock").chmod(0o660)
            told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            assert told.startswith(f"not-allowed {place}/admin.sock may not be opened by uid 64002")
    finally:
        shutil.rmtree(place)


def test_admin_on_a_view_socket_is_a_viewer(tmp_path: Path) -> None:
    """A socket served with most=VIEW gives nobody more."""
    with running(tmp_path, MINE, Role.VIEW) as small, Admin(small.path) as admin:
        assert admin.status().revision == 7
        with pytest.raises(AskError, match="may not call Reload"):
            admin.reload()


def test_stranger_is_refused_before_grpc_reads_a_byte(tmp_path: Path) -> None:
    """Somebody without a role hears a gRPC status made by us; no relay is opened."""
    with running(tmp_path, NOBODY) as small, Admin(small.path) as admin:
        with pytest.raises(AskError) as refused:
            admin.status()
        assert refused.value.fault is Fault.NOT_ALLOWED
        assert refused.value.message == f"uid {os.geteuid()} may not use the admin socket"
        assert "credwire-view" in refused.value.hint
        assert small.server._relays == {}
        small.until(lambda: [caller.role for caller, _ in small.view.refusals] == [Role.NONE])


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\0" * 70000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9]
)
def test_garbage_is_survived(small, said: bytes) -> None:
    """Bytes that are no gRPC end their own connection and nothing else."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(small.path))
        with contextlib.suppress(OSError):  # it may hang up while we speak
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    with Admin(small.path) as admin:
        assert admin.status().enforcing


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + (b"\0\0\0\x04" + b"\0" * 5) * 5000])
def test_garbage_of_strangers_is_survived(tmp_path: Path, said: bytes) -> None:
    """Somebody without a role who speaks no HTTP/2, or never asks, is hung up on."""
    with running(tmp_path, NOBODY) as small, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(small.path))
        with contextlib.suppress(OSError):
            sock.sendall(said)
            while sock.recv(65536):
                pass
        small.until(lambda: not small.server._per_uid)


def test_one_user_cannot_take_every_place(tmp_path: Path) -> None:
    """Connections over a user's share are refused by name, and a freed place is given again."""
    rules = Rules(admin_uids=frozenset(), view_gids=frozenset({os.getegid()}))
    with running(tmp_path, rules) as small, contextlib.ExitStack() as held:
        small.server._per_uid[os.geteuid()] += 0 if os.geteuid() else 10**6  # root's share is everybody's: fill the house instead
        if os.geteuid():
            for _ in range(MAX_CALLERS_PER_UID):
                held.enter_context(socket.socket(socket.AF_UNIX)).connect(str(small.path))
            small.until(lambda: small.server._per_uid[os.geteuid()] == MAX_CALLERS_PER_UID)
        with pytest.raises(AskError) as refused, Admin(small.path) as admin:
            admin.status()
        assert (refused.value.reason, refused.value.fault) == ("quota-exceeded", Fault.REFUSED)
        held.close()
        small.server._per_uid[os.geteuid()] -= 0 if os.geteuid() else 10**6
        small.until(lambda: small.server._per_uid[os.geteuid()] < 2)
        with Admin(small.path) as admin:
            assert admin.status().enforcing


def test_inner_socket_answers_relays_only(small) -> None:
    """Whoever reaches the inner socket without our relay is nobody, with or without a name that looks like one."""
    inner = next((small.directory / "inner").glob("*.sock"))
    for name in (b"", b"\0credwire/admin/0/1/0123456789abcdef"):
        channel = _relayed(inner, name, small.directory / f"try{len(name)}")
        with channel as (path, stop), grpc.insecure_channel(f"unix:{path}") as direct:
            ask = direct.unary_unary("/credwire.admin.v1.Admin/Status")
            with pytest.raises(grpc.RpcError) as refused:
                ask(b"", timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            stop()
    assert (small.directory / "inner").stat().st_mode & 0o777 == 0o700


@contextlib.contextmanager
def _relayed(inner: Path, name: bytes, path: Path):
    """A relay as an impostor would build it: bound to ``name``, straight to the inner socket."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        held: list[socket.socket] = []

        def relay() -> None:
            with contextlib.suppress(OSError):
                outside, _ = listening.accept()
                inside = socket.socket(socket.AF_UNIX)
                if name:
                    inside.bind(name)
                inside.connect(str(inner))
                held.extend((outside, inside))
                for a, b in ((outside, inside), (inside, outside)):
                    threading.Thread(target=_copy, args=(a, b), daemon=True).start()

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()

        def stop() -> None:
            thread.join(5)
            for sock in held:
                sock.close()

        yield path, stop


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


def test_inner_directory_of_others_is_refused(tmp_path: Path) -> None:
    """An inner directory that others may enter is not used."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner").chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0700"), running(tmp_path):
        pass


def test_reflection_is_answered(small) -> None:
    """People's tools find the service by themselves."""
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(f"unix:{small.path}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
        names = {service.name for service in next(answers).list_services_response.service}
    assert "credwire.admin.v1.Admin" in names


def test_process_that_execs_another_program_is_answered_no_more(small) -> None:
    """I16: connect, keep the socket, exec something else: the kept socket gets no answer (the refusal beside the success)."""
    program = (
        "import os, socket, sys\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(small.path)!r}); s.set_inheritable(True)\n"
        "print('connected', flush=True); sys.stdin.readline()\n"
        "os.execv('/bin/sh', ['sh', '-c', 'echo execed; read line'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        try:
            assert child.stdout.readline() == "connected\n"
            small.until(lambda: len(small.server._relays) == 1)
            name = next(iter(small.server._relays))
            assert small.server.caller(f"unix-abstract:{name}").pid == child.pid
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "execed\n"
            assert small.server.caller(f"unix-abstract:{name}") is None
        finally:
            child.kill()


def test_unreachable_daemon_is_told_apart_from_a_refusing_one(tmp_path: Path) -> None:
    """No socket, a dead socket and a stuck daemon each say so."""
    with pytest.raises(AskError, match="does not exist") as gone:
        Admin(tmp_path / "none.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(AskError, match="nobody listens") as dead:
        Admin(tmp_path / "dead.sock")
    with running(tmp_path) as small, Admin(small.path, answer_s=0.3) as admin:
        small._loop.call_soon_threadsafe(small.view.stuck.clear)
        with pytest.raises(AskError, match="does not answer") as stuck:
            admin.status()
        small._loop.call_soon_threadsafe(small.view.stuck.set)
    assert {gone.value.fault, dead.value.fault, stuck.value.fault} == {Fault.UNREACHABLE}


def test_stopping_is_quick_with_followers_attached(tmp_path: Path) -> None:
    """A follower does not hold the daemon back when it ends."""
    with running(tmp_path) as small:
        small.append(Event(at=AT, event="agent-started"))
        admin = Admin(small.path)
        lines = admin.audit(1, follow=True)
        next(lines)
        began = time.monotonic()
        small.call(small.server.stop())
        assert time.monotonic() - began < 2
        with pytest.raises((AskError, StopIteration)):
            next(lines)
        admin.__exit__()
