"""
Which end of a connection means "I do not trust your CA", and which does not.

Every client that is on the machine is run for real, with each TLS version it can be held to; what has no client is made by hand.
"""

import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from control.daemon import message as m
from control.reason import Reason
from tests.unit.wire.world import BINDING, FAST, HOST, World, get, hello_of, world

_NODE = (
    "require('https').get({{host: '127.0.0.1', port: {port}, servername: '{host}', path: '/', minVersion: '{tls}', maxVersion: '{tls}',"
    " headers: {{host: '{host}:{port}'}}}}, answer => answer.resume()).on('error', error => process.exit(1))"
)
_PYTHON = """
import http.client, ssl
context = ssl.create_default_context()
context.minimum_version = context.maximum_version = ssl.TLSVersion.{tls}
connection = http.client.HTTPSConnection("{host}", {port}, context=context)
connection._create_connection = lambda address, *more: __import__("socket").create_connection(("127.0.0.1", address[1]))
connection.request("GET", "/")
connection.getresponse().read()
"""
_JAVA = """
import javax.net.ssl.*;
public class Client {
    public static void main(String[] words) throws Exception {
        SSLSocket socket = (SSLSocket) SSLSocketFactory.getDefault().createSocket("127.0.0.1", Integer.parseInt(words[0]));
        socket.setEnabledProtocols(new String[] {words[2]});
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setServerNames(java.util.List.of(new SNIHostName(words[1])));
        socket.setSSLParameters(parameters);
        String request = "GET / HTTP/1.1\\r\\nHost: " + words[1] + ":" + words[0] + "\\r\\nConnection: close\\r\\n\\r\\n";
        socket.getOutputStream().write(request.getBytes());
        socket.getInputStream().read();
    }
}
"""


def _argv(client: str, version: str, here: World) -> list[str]:
    place = {"host": HOST, "port": here.port}
    url, at = f"https://{HOST}:{here.port}/", f"{HOST}:{here.port}:127.0.0.1"
    match client:
        case "curl":
            return ["curl", "-sSf", f"--tlsv{version}", "--tls-max", version, "--resolve", at, url]
        case "git":
            options = ["-c", f"http.curloptResolve={at}", "-c", f"http.sslVersion=tlsv{version}"]
            return ["git", *options, "ls-remote", f"{url}repository"]
        case "openssl":
            options = ["-servername", HOST, "-connect", f"127.0.0.1:{here.port}", f"-tls{version.replace('.', '_')}"]
            return ["openssl", "s_client", "-verify_return_error", *options]
        case "python3":
            return ["python3", "-c", _PYTHON.format(tls=f"TLSv{version.replace('.', '_')}", **place)]
        case "node":
            return ["node", "-e", _NODE.format(tls=f"TLSv{version}", **place)]
        case "java":
            (here.directory / "Client.java").write_text(_JAVA)
            subprocess.run(["javac", "-d", str(here.directory), str(here.directory / "Client.java")], check=True, timeout=50)
            return ["java", "-cp", str(here.directory), "Client", str(here.port), HOST, f"TLSv{version}"]
    raise ValueError(client)


def _run(argv: list[str], home: Path, **trust: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", **trust}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=50, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def serving(here: World) -> Iterator[World]:
    """A worker before a destination that answers."""
    here.echo()
    yield here


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("client", ["curl", "git", "openssl", "python3", "node", "java"])
def test_a_real_client_that_does_not_trust_us_is_recognised(serving: World, client: str, version: str) -> None:
    """With the system's roots alone it fails, and the note says why; with the binding's CA there is no such note."""
    if shutil.which(client) is None or (client == "java" and shutil.which("javac") is None):
        pytest.skip(f"{client} is not installed")
    argv = _argv(client, version, serving)
    done = _run(argv, serving.directory)
    assert done.returncode != 0, done.stdout
    note = serving.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA)
    assert (note.host, note.binding, note.grant) == (HOST, BINDING, serving.grants[0])
    serving.until(lambda: serving.closed == serving.grants)
    assert [n.event for n in serving.notes] == ["connection-failed"]
    if client == "java":
        return  # a JVM wants a store instead of a variable
    bundle = serving.directory / "bundle.pem"
    bundle.write_text(serving.client_ca.pem)
    variable = {"curl": "CURL_CA_BUNDLE", "git": "GIT_SSL_CAINFO", "node": "NODE_EXTRA_CA_CERTS"}.get(client, "SSL_CERT_FILE")
    trusting = _run(argv, serving.directory, **{variable: str(bundle)})
    serving.until(lambda: serving.closed == serving.grants and len(serving.grants) >= 2)
    if client == "openssl":
        assert "Verify return code: 0" in trusting.stdout  # it sends no request, so nothing here shows its trust
    else:
        assert [n.event for n in serving.notes if n.event == "connection-failed"] == ["connection-failed"]
        assert any(n.event == "request-answered" for n in serving.notes)


def test_an_alert_after_the_handshake_is_read_for_what_it_means(serving: World, tmp_path: Path) -> None:
    """TLS 1.3 lets a client finish first and complain then: made by hand with the session's own keys (RFC 8446 sections 5.2 and 7.3)."""
    context = ssl.create_default_context(cadata=serving.client_ca.pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(tmp_path / "keylog")
    assert serving.tls().send(get(port=serving.port)).message().status == 200  # trusted before: only the alert can tell
    with context.wrap_socket(serving.tcp(), server_hostname=HOST) as client:
        name, _, bits = client.cipher()
        assert name in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
        algorithm = hashes.SHA384() if bits == 256 else hashes.SHA256()
        secret = next(
            bytes.fromhex(line.split()[2]) for line in (tmp_path / "keylog").read_text().splitlines() if "CLIENT_TRAFFIC_SECRET_0" in line
        )
        key, iv = _expand(algorithm, secret, b"key", bits // 8), _expand(algorithm, secret, b"iv", 12)
        header = b"\x17\x03\x03" + struct.pack("!H", 3 + 16)
        record = header + AESGCM(key).encrypt(iv, bytes((2, 48, 21)), header)  # fatal unknown_ca, inner type alert, record number 0
        raw = socket.socket(fileno=os.dup(client.fileno()))
        raw.sendall(record)
        note = serving.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA)
        raw.close()
    assert "alert unknown ca after the handshake" in note.detail


def _expand(algorithm: hashes.HashAlgorithm, secret: bytes, label: bytes, length: int) -> bytes:
    full = b"tls13 " + label
    info = struct.pack("!HB", length, len(full)) + full + b"\0"
    return HKDFExpand(algorithm, length, info).derive(secret)


# ---- what does not mean it --------------------------------------------------------------------------------------------------------------


def _gone(here: World, grants: int) -> None:
    """Wait until so many connections have come and gone."""
    here.until(lambda: len(here.grants) == grants and here.closed == here.grants)


def test_a_scan_of_the_port_is_nothing(serving: World) -> None:
    """Connected and closed, in good order and by reset: not a line."""
    serving.tcp().close()
    reset = serving.tcp()
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    _gone(serving, 2)
    assert [n for n in serving.notes if n.reason is Reason.CLIENT_DOES_NOT_TRUST_CA] == []


@pytest.mark.parametrize("how", ["at once", "half closed", "after the first bytes"])
def test_who_looked_at_nothing_does_not_distrust(serving: World, how: str) -> None:
    """A health check that closes after its hello, a client that was killed: the handshake failed, and nothing is said of trust."""
    serving.tls().sock.close()  # the leaf is made: the answer to a hello comes at once
    _gone(serving, 1)
    serving.notes.clear()
    done = threading.Event()
    serving.whose = lambda call: serving.granted(call) if done.wait(5) else None  # the worker's loop stands still until then
    if how == "after the first bytes":
        done.set()
    sock = serving.tcp()
    sock.sendall(hello_of(HOST))
    if how == "half closed":
        sock.shutdown(socket.SHUT_WR)
        done.set()
        with contextlib.suppress(OSError):
            while sock.recv(1 << 16):
                pass
    elif how == "after the first bytes":
        sock.recv(100)
    sock.close()
    done.set()
    _gone(serving, 2)
    assert [(n.event, n.reason) for n in serving.notes] == [("connection-failed", Reason.CLIENT_TLS_FAILED)]


def test_who_read_our_certificate_and_left_may_distrust(serving: World) -> None:
    """What Node does with TLS 1.3, by hand: the whole of our flight is read, then a close in good order."""
    sock = serving.tcp()
    sock.sendall(hello_of(HOST))
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sock.recv(1 << 16):
            pass
    sock.close()
    assert "perhaps" in serving.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA).detail


def test_a_whole_handshake_without_a_request_is_nothing_once_the_process_was_seen_to_trust(serving: World) -> None:
    """A pool that opens ahead does not distrust us; another process that does the same may."""
    client = serving.tls()
    assert client.send(get(port=serving.port)).message().status == 200
    client.sock.close()
    for _ in range(3):
        serving.tls().sock.close()
    _gone(serving, 4)
    assert [n.reason for n in serving.notes if n.event == "connection-failed"] == []
    serving.opener = 2
    serving.tls().sock.close()
    assert "perhaps" in serving.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA).detail


def test_a_client_that_waits_before_it_leaves_is_nothing(tmp_path: Path) -> None:
    """Idle connections end some time; only a close right behind the handshake means something."""
    with world(tmp_path, limits=replace(FAST, distrust_s=0.0)) as here:
        here.tls().sock.close()
        _gone(here, 1)
        assert here.notes == []


def test_what_we_close_is_not_blamed_on_the_client(serving: World) -> None:
    """A grant that is withdrawn right behind the handshake says nothing of trust."""
    client = serving.tls()
    serving.withdraw(serving.grants[0], Reason.REVOKED)
    with contextlib.suppress(OSError):
        client.rest()
    _gone(serving, 1)
    assert [n for n in serving.notes if n.reason is Reason.CLIENT_DOES_NOT_TRUST_CA] == []


def test_a_client_that_ends_right_after_it_left_is_recognised_too(serving: World) -> None:
    """git ends at once, and the agent's word that the process is gone may come before we read the end of its connection."""
    client = serving.tls()

    def ends() -> None:
        client.sock.close()
        serving.proxy._withdraw(m.GrantWithdrawn(serving.grants[0], Reason.PROCESS_CHANGED))

    serving.do(ends)
    assert "perhaps" in serving.noted("connection-failed", Reason.CLIENT_DOES_NOT_TRUST_CA).detail


def test_garbage_in_the_handshake_is_no_distrust(serving: World) -> None:
    """An unexpected record is told as what it is."""
    sock = serving.tcp()
    sock.sendall(hello_of(HOST) + b"\x17\x03\x03\x00\x02hi")
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass
    assert serving.noted("connection-failed", Reason.CLIENT_TLS_FAILED)
    assert isinstance(serving.leaves[0], m.LeafWanted)
