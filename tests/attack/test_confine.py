"""
A process of ours that an attacker runs code in can do little with it (attack F9 and the process table of docs/architecture.md).

Each test forks a child that confines itself as one role and then tries; the parent reads what became of it.  Needs root.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import ssl
import struct
import tempfile
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cryptography.hazmat.backends.openssl.backend  # noqa: F401  # a child that is no longer root may not reach the files
import pytest

from control.daemon.confine import AGENT_CAPABILITIES, CAPABILITY_NUMBERS
from control.daemon.confine_io import confine, scrub_environment
from control.errors import SetupError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving up root needs root")

UID = 72401
SYS_PTRACE, SYS_BPF, SYS_KEYCTL, SYS_MOUNT, SYS_UNSHARE, SYS_IO_URING_SETUP, SYS_EXECVEAT = 101, 321, 250, 165, 272, 425, 322
SYS_USERFAULTFD, SYS_OPEN_BY_HANDLE_AT, SYS_PROCESS_VM_READV, SYS_FORK = 323, 304, 310, 57
libc = ctypes.CDLL(None, use_errno=True)


def in_child(tries: Callable[[], Any], role: str, *, uid: int = UID, **options: Any) -> Any:
    """Fork, confine the child as ``role``, run ``tries`` there and give what it returned."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lines = confine(role, uid, uid, **options)
            told = {"missing": lines, "value": tries()}
        except BaseException:  # the parent shows it
            told = {"error": traceback.format_exc()}
        os.write(write_end, json.dumps(told).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        raw = pipe.read()
    _, status = os.waitpid(child, 0)
    assert raw, f"the child ended by itself: {os.waitstatus_to_exitcode(status)}"
    told = json.loads(raw)
    assert "error" not in told, told["error"]
    return told["value"]


def errno_of(call: Callable[[], Any]) -> str:
    """Name the errno that ``call`` ends with; ``done`` when it does not."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def raw_call(number: int, *arguments: int) -> Callable[[], None]:
    """Make a system call past every wrapper."""

    def call() -> None:
        if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)) < 0:
            raise OSError(ctypes.get_errno(), "")

    return call


def status_of_self() -> dict[str, str]:
    """Read /proc/self/status, which a confined process with Landlock cannot: call it where it may."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


# ---- what the kernel says of it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["proxy", "keys", "exchange", "public"])
def test_a_confined_process_has_no_capability_no_new_privileges_and_a_filter(role: str) -> None:
    """What /proc/<pid>/status says of it from outside: every capability set is empty, NoNewPrivs is 1, Seccomp is 2, no groups."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confine(role, UID, UID)
            os.write(ready[1], b"r")
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"r"
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines() if ":\t" in line)
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")
        assert status["Uid"].split() == [str(UID)] * 4
        for name in ("mem", "environ", "maps"):
            assert _opened_by_same_user(Path(f"/proc/{child}/{name}")) == "EACCES"
        assert "Max core file size        0                    0" in Path(f"/proc/{child}/limits").read_text()
    finally:
        os.write(go[1], b"g")
        os.waitpid(child, 0)
        for fd in (*ready, *go):
            os.close(fd)


def _opened_by_same_user(path: Path) -> str:
    """Try ``path`` from an unconfined process with the same uid: only not being dumpable stands in its way."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        os.write(write_end, errno_of(lambda: os.close(os.open(path, os.O_RDONLY))).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    return found


def test_the_agent_keeps_its_list_and_nothing_else() -> None:
    """The agent stays root with the capabilities of its list; its bounding set holds no other, so nothing it might run could."""
    mask = f"{sum(1 << CAPABILITY_NUMBERS[name] for name in AGENT_CAPABILITIES):016x}"
    status = in_child(status_of_self, "agent", uid=0)
    assert (status["CapEff"], status["CapPrm"], status["CapBnd"], status["CapInh"], status["CapAmb"]) == (
        mask,
        mask,
        mask,
        "0" * 16,
        "0" * 16,
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "CAP_SYS_ADMIN" not in AGENT_CAPABILITIES


def test_a_process_with_a_second_thread_is_refused() -> None:
    """Capabilities belong to a thread: one that exists already would keep them, so confine raises."""

    def child() -> str:
        gate = threading.Event()
        thread = threading.Thread(target=gate.wait, daemon=True)
        thread.start()
        try:
            confine("agent", 0, 0)
        except SetupError as error:
            return str(error)
        finally:
            gate.set()
        return "confined"

    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, child().encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert "more than one thread" in pipe.read()
    os.waitpid(pid, 0)


def test_a_process_that_may_not_change_its_uid_does_not_go_on() -> None:
    """Without the right to drop groups and uid confine raises: nothing runs half confined."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        try:
            confine("proxy", UID + 1, UID + 1)
            os.write(write_end, b"confined")
        except SetupError as error:
            os.write(write_end, f"{error} ({error.reason})".encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        told = pipe.read()
        assert "PR_CAPBSET_DROP" in told and "(confinement-failed)" in told
    os.waitpid(pid, 0)


@pytest.mark.parametrize("told", ["by confine", "before"])
def test_the_death_of_the_parent_is_the_death_of_the_child(told: str) -> None:
    """The child is killed when the process that forked it ends, also when the signal was asked for before setresuid made it forget."""
    ready = os.pipe()
    middle = os.fork()
    if middle == 0:
        own = os.getpid()
        if os.fork() == 0:
            if told == "before":
                libc.prctl(1, int(signal.SIGKILL), 0, 0, 0)
            confine("proxy", UID, UID, parent=own if told == "by confine" else None)
            os.write(ready[1], b"r")
            signal.pause()
            os._exit(0)
        os.close(ready[1])
        os.read(ready[0], 1)
        os._exit(0)
    os.close(ready[1])
    os.waitpid(middle, 0)
    with os.fdopen(ready[0], "rb") as pipe:
        assert pipe.read() == b"", "the pipe ends when the grandchild does; the middle took its byte"


# ---- what it cannot ----------------------------------------------------------------------------------------------------------------


def test_a_proxy_cannot_reach_files() -> None:
    """Neither what is root's nor what is everybody's can be opened, and nothing can be written anywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        public = folder / "public"
        public.write_text("everybody may read this")
        public.chmod(0o666)

        def tries() -> dict[str, str]:
            return {
                "shadow": errno_of(lambda: Path("/etc/shadow").read_bytes()),
                "passwd": errno_of(lambda: Path("/etc/passwd").read_bytes()),
                "public": errno_of(public.read_bytes),
                "overwrite": errno_of(lambda: public.write_text("x")),
                "create": errno_of(lambda: (folder / "new").write_text("x")),
                "tmp": errno_of(lambda: Path("/tmp/credwire-confine-test").write_text("x")),
                "remove": errno_of(public.unlink),
                "list": errno_of(lambda: list(Path("/root").iterdir())),
                "environ": errno_of(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
                "memory": errno_of(lambda: Path("/proc/self/mem").read_bytes()),
            }

        found = in_child(tries, "proxy")
        assert set(found.values()) == {"EACCES"}, found
        assert public.read_text() == "everybody may read this"


REFUSED_CALLS: dict[str, Callable[[], Any]] = {
    "execve": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606  # to be refused
    "execveat": raw_call(SYS_EXECVEAT, -1, 0, 0, 0, 0),
    "fork": raw_call(SYS_FORK),
    "clone": os.fork,
    "ptrace": raw_call(SYS_PTRACE, 0x4206, 1, 0, 0),
    "process_vm_readv": raw_call(SYS_PROCESS_VM_READV, 1, 0, 0, 0, 0, 0),
    "bpf": raw_call(SYS_BPF, 0, 0, 0),
    "mount": raw_call(SYS_MOUNT, 0, 0, 0, 0, 0),
    "unshare": raw_call(SYS_UNSHARE, 0x10000000),
    "keyctl": raw_call(SYS_KEYCTL, 0, -3, 1),
    "userfaultfd": raw_call(SYS_USERFAULTFD, 0),
    "open_by_handle_at": raw_call(SYS_OPEN_BY_HANDLE_AT, -100, 0, 0),
    "io_uring_setup": raw_call(SYS_IO_URING_SETUP, 8, 0),
    "kill another": lambda: os.kill(os.getppid(), 0),
    "kill its uid": lambda: os.kill(-1, 0),
    "become dumpable": raw_call(157, 4, 1, 0, 0, 0),
}


@pytest.mark.parametrize("role", ["proxy", "keys", "exchange", "public"])
def test_a_confined_process_cannot_run_trace_or_mount(role: str) -> None:
    """exec, fork, ptrace, bpf, mount, new user namespaces, keyrings, io_uring and signals to others all end with EPERM."""
    found = in_child(lambda: {name: errno_of(call) for name, call in REFUSED_CALLS.items()}, role)
    assert set(found.values()) == {"EPERM"}, found


def test_the_agent_cannot_run_programs_or_mount_but_reads_every_process() -> None:
    """The agent is refused exec, ptrace and mount; its own work, looking into another user's /proc directory and bpf(), goes on."""
    other = os.fork()
    if other == 0:
        os.setresuid(UID, UID, UID)
        signal.pause()
        os._exit(0)
    try:

        def tries() -> dict[str, str]:
            return {
                "execve": errno_of(REFUSED_CALLS["execve"]),
                "ptrace": errno_of(REFUSED_CALLS["ptrace"]),
                "mount": errno_of(REFUSED_CALLS["mount"]),
                "exe": str(Path(f"/proc/{other}/exe").readlink()),
                "root": str(Path(f"/proc/{other}/root").stat().st_ino == Path("/").stat().st_ino),
                "bpf": errno_of(_make_array_map),
            }

        found = in_child(tries, "agent", uid=0)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert (found["execve"], found["ptrace"], found["mount"]) == ("EPERM", "EPERM", "EPERM")
    assert (found["exe"], found["root"], found["bpf"]) == (str(Path("/proc/self/exe").readlink()), "True", "done")


def _make_array_map() -> None:
    attributes = ctypes.create_string_buffer(struct.pack("<5I", 2, 4, 8, 1, 0), 128)
    fd = libc.syscall(ctypes.c_long(SYS_BPF), ctypes.c_long(0), attributes, ctypes.c_long(128))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "")
    os.close(fd)


def test_keys_cannot_make_a_network_socket() -> None:
    """keys has Unix sockets only: no IPv4, no IPv6, no netlink, no packet socket."""

    def tries() -> dict[str, str]:
        names = ("inet", "inet6", "netlink", "packet", "unix")
        families = {name: getattr(socket, f"AF_{name.upper()}") for name in names}
        return {name: errno_of(partial(socket.socket, family, socket.SOCK_DGRAM)) for name, family in families.items()}

    refused = dict.fromkeys(("inet", "inet6", "netlink", "packet"), "EAFNOSUPPORT")
    assert in_child(tries, "keys") == {**refused, "unix": "done"}


def test_keys_writes_its_state_directory_and_no_other() -> None:
    """A file is made, replaced by rename and removed inside; beside it, in a directory of the same owner, nothing is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        state, beside = folder / "keys", folder / "beside"
        for made in (state, beside):
            made.mkdir(mode=0o700)
            os.chown(made, UID, UID)

        def tries() -> dict[str, str]:
            (state / "key.new").write_text("sealed")
            (state / "key.new").rename(state / "key")
            read = (state / "key").read_text()
            (state / "key").unlink()
            return {
                "read": read,
                "beside": errno_of(lambda: (beside / "key").write_text("x")),
                "directory": errno_of((state / "sub").mkdir),
                "link": errno_of(lambda: (state / "link").symlink_to("/etc/shadow")),
            }

        assert in_child(tries, "keys", writable=(state,)) == {"read": "sealed", "beside": "EACCES", "directory": "EACCES", "link": "EACCES"}


def test_a_proxy_cannot_listen_but_takes_a_listener_that_it_is_given() -> None:
    """bind() of TCP is refused (Landlock ABI 4 on); a listener from before, or by descriptor, still accepts."""
    held = socket.create_server(("127.0.0.1", 0))

    def tries() -> dict[str, Any]:
        with socket.create_connection(held.getsockname()) as client:
            accepted, _ = held.accept()
            accepted.send(b"hello")
            got = client.recv(5).decode()
            accepted.close()
        return {"got": got, "bind": errno_of(lambda: socket.create_server(("127.0.0.1", 0)))}

    found = in_child(tries, "proxy")
    held.close()
    assert found["got"] == "hello"
    if landlock_abi() >= 4:
        assert found["bind"] == "EACCES"


def landlock_abi() -> int:
    """Ask the kernel, as confine does."""
    return int(libc.syscall(ctypes.c_long(444), None, ctypes.c_long(0), ctypes.c_long(1)))


# ---- what it still can -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loopback_ca() -> dict[str, bytes]:
    """A CA and a leaf for ``localhost``, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        dated = x509.CertificateBuilder().not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        named = dated.subject_name(name(subject)).issuer_name(name("test root"))
        return named.public_key(key.public_key()).serial_number(x509.random_serial_number())

    ca = builder("test root", ca_key).add_extension(x509.BasicConstraints(True, None), True).sign(ca_key, hashes.SHA256())
    leaf = builder("localhost", leaf_key).add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    signed = leaf.sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key_pem = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"ca": ca.public_bytes(pem), "leaf": signed.public_bytes(pem), "key": key_pem}


def load_by_memfd(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate with its key from memory: the ssl module takes paths only."""
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_a_proxy_still_talks_verified_tls_on_both_sides(loopback_ca: dict[str, bytes]) -> None:
    """It loads a leaf from a memfd, accepts as a server, connects as a client by name, verifies, and a wrong name does not verify."""
    held = socket.create_server(("127.0.0.1", 0))

    def tries() -> dict[str, Any]:
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_by_memfd(server_side, loopback_ca["leaf"] + loopback_ca["key"])
        client_side = ssl.create_default_context()
        system_roots = len(client_side.get_ca_certs())
        client_side.load_verify_locations(cadata=loopback_ca["ca"].decode())

        def serve() -> None:
            for _ in range(2):
                sock, _ = held.accept()
                try:
                    with server_side.wrap_socket(sock, server_side=True) as tls:
                        tls.sendall(b"hello")
                except ssl.SSLError:
                    sock.close()

        thread = threading.Thread(target=serve)
        thread.start()
        found: dict[str, Any] = {"system_roots": system_roots > 0 or not Path("/etc/ssl/certs/ca-certificates.crt").exists()}
        host, port = socket.getaddrinfo("localhost", held.getsockname()[1], socket.AF_INET, socket.SOCK_STREAM)[0][4][:2]
        address = (str(host), port)
        with socket.create_connection(address) as sock, client_side.wrap_socket(sock, server_hostname="localhost") as tls:
            found["got"] = tls.recv(5).decode()
        with socket.create_connection(address) as sock:
            try:
                client_side.wrap_socket(sock, server_hostname="other.example").close()
            except ssl.SSLCertVerificationError as error:
                found["wrong"] = error.verify_message
        thread.join()
        return found

    found = in_child(tries, "proxy")
    held.close()
    assert found["system_roots"]
    assert found["got"] == "hello"
    assert "mismatch" in found["wrong"]


def test_a_proxy_still_takes_descriptors_and_asks_them() -> None:
    """A connected socket arrives by SCM_RIGHTS; getsockopt, peek and write on it work, as the hand-over to the agent needs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    socket.send_fds(ours, [b"yours"], [accepted.fileno()])
    client.send(b"first")

    def tries() -> dict[str, Any]:
        said, fds, _, _ = socket.recv_fds(theirs, 16, 1)
        with socket.socket(fileno=fds[0]) as got:
            return {
                "said": said.decode(),
                "type": got.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
                "peek": got.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL).decode(),
                "sent": got.send(b"answer"),
            }

    assert in_child(tries, "proxy") == {"said": "yours", "type": int(socket.SOCK_STREAM), "peek": "first", "sent": 6}
    assert client.recv(6) == b"answer"
    for sock in (ours, theirs, listener, client, accepted):
        sock.close()


def test_a_proxy_still_runs_an_event_loop_and_threads() -> None:
    """uvloop with a resolver thread, a timer and a Unix socket: nothing the wire needs is refused."""

    def tries() -> list[Any]:
        import asyncio

        async def work() -> list[Any]:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)
            value = await asyncio.wait_for(loop.run_in_executor(None, lambda: 7), 5)
            return [type(loop).__module__, bool(found), value]

        return uvloop.run(work())

    import uvloop  # before the child is confined, as a proxy does

    assert in_child(tries, "proxy") == ["uvloop", True, 7]


def test_an_uncaught_error_still_prints_its_place() -> None:
    """A traceback with file and line comes out after confinement: modules for it were loaded before."""

    def tries() -> str:
        try:
            int("shown")
        except ValueError:
            return traceback.format_exc()
        return "no error"

    assert "ValueError: invalid literal" in in_child(tries, "proxy")


def test_the_environment_is_scrubbed_but_for_a_few() -> None:
    """Variables that could name a library, a trust store or a proxy are gone; the language stays."""

    def tries() -> list[str]:
        os.environ.update({"SSL_CERT_FILE": "/tmp/x", "OPENSSL_CONF": "/tmp/x", "HTTPS_PROXY": "http://x", "LANG": "C.UTF-8"})
        removed = scrub_environment()
        return [name for name in ("SSL_CERT_FILE", "OPENSSL_CONF", "HTTPS_PROXY") if name in removed and name not in os.environ] + [
            os.environ["LANG"]
        ]

    assert in_child(tries, "proxy") == ["SSL_CERT_FILE", "OPENSSL_CONF", "HTTPS_PROXY", "C.UTF-8"]


def test_what_the_kernel_lacks_is_said_and_not_hidden() -> None:
    """On a kernel with Landlock ABI 6, MDWE and seccomp nothing is missing; on an older one each missing part has its line."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        lines = confine("proxy", UID, UID)
        os.write(write_end, json.dumps(lines).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        lines = json.loads(pipe.read())
    os.waitpid(pid, 0)
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert any("landlock" in line for line in lines) == (landlock_abi() < 6), lines
    assert any("memory-deny-write-execute" in line for line in lines) == (release < (6, 3)), lines
