"""
API keys that somebody issued once: curl holds a placeholder, nginx lets in whoever shows the key.  Needs root.

Every way to show a key, from plain and sealed files and a systemd credential; rotation; what happens while the file cannot be read.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.keyed import HOSTS, USERNAME, KeyedService
from tests.e2e.lib.net import free_subnet
from tests.e2e.lib.stage import STRANGER_UID, USER_UID, Stage

SIGNERS = {
    "header": '{signer: header, header: X-Api-Key, template: "{secret}"}',
    "bearer": "{signer: bearer}",
    "basic": f"{{signer: basic, username: {USERNAME}}}",
    "query": "{signer: query, parameter: api_key}",
    "cookie": "{signer: cookie, cookie: session}",
}
PLACEHOLDERS = {
    "header": ["-H", "X-Api-Key: placeholder"],
    "bearer": ["-H", "Authorization: Bearer placeholder"],
    "basic": ["-u", f"{USERNAME}:placeholder"],
    "query": [],
    "cookie": ["-b", "theme=dark; session=placeholder; lang=en"],
}
"""What curl is told; for ``query`` the parameter stands in the URL."""


class Keyed:
    """A stage with a daemon, and a service behind a key."""

    def __init__(self, stage: Stage, service: KeyedService) -> None:
        self.stage, self.service = stage, service
        self.secret = stage.directory / "api-key"
        self.put(service.key)
        with stage.hosts.open("a") as hosts:
            hosts.write(f"{service.subnet.there4} {' '.join(HOSTS.values())}\n")

    def put(self, text: str, mode: int = 0o600) -> None:
        """Write the secret's file."""
        self.secret.write_text(text + "\n")
        self.secret.chmod(mode)

    def write(self, *, of: str = "", more: str = "", ttl: str = "1h", mode: str = "enforce") -> None:
        """Write the documents; ``of`` is the static source's content, ``more`` further lines of each binding."""
        stage = self.stage
        documents = [
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: curl}}
spec:
  workloadID: ops/curl
  owner: me@example.org
  environment: prod
  selectors: [{{"unix:uid": {USER_UID}, "unix:exe:path": /usr/bin/curl}}]
""",
            f"""\
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {{name: api-key}}
spec:
  owner: me@example.org
  reviewedAt: 2026-01-31
  reviewEvery: 366d
  environment: prod
  ttlCap: {ttl}
  static: {of or f"{{file: {self.secret}}}"}
""",
        ]
        documents += [
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {{name: api-{scheme}}}
spec:
  identity: curl
  source: api-key
  owner: me@example.org
  mode: {mode}
  destinations:
    - {{hosts: [{host}], networks: ["10.77.0.0/16"], upstreamRoots: {self.service.ca}}}
  delivery: {{wire: {SIGNERS[scheme]}}}
{more}"""
            for scheme, host in HOSTS.items()
        ]
        (stage.resources / "static.yaml").write_text("---\n".join(documents))

    def reload(self) -> None:
        """Put what is on disk in force."""
        told = self.stage.credwire("reload")
        assert told.returncode == 0, told.stdout + told.stderr

    def curl(self, scheme: str, *, uid: int = USER_UID) -> subprocess.CompletedProcess[str]:
        """Ask with a placeholder."""
        url = f"https://{HOSTS[scheme]}/" + ("?a=1&api_key=placeholder&b=%2F" if scheme == "query" else "")
        trust = self.stage.state / "ca" / "curl.pem" if uid == USER_UID else self.service.ca
        return self.stage.client(["/usr/bin/curl", "-sS", "-i", "--cacert", str(trust), *PLACEHOLDERS[scheme], url], uid=uid)

    def welcome(self, scheme: str = "header") -> bool:
        """Whether curl is let in."""
        done = self.curl(scheme)
        return "welcome" in done.stdout and " 200" in done.stdout.splitlines()[0]


@contextmanager
def keyed(name: str) -> Iterator[Keyed]:
    """A stage for one story."""
    with Stage(name) as stage:
        service = KeyedService(stage.directory / "service", free_subnet())
        try:
            made = Keyed(stage, service)
            made.write()
            stage.start_daemon()
            yield made
        finally:
            service.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Keyed]:
    """One daemon for the stories that leave it as it was."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with keyed("static") as made:
        yield made


@pytest.mark.parametrize("scheme", HOSTS)
def test_curl_with_a_placeholder_is_let_in(shared: Keyed, scheme: str) -> None:
    """nginx sees the key and not the placeholder; another user with the same words is refused by nginx itself."""
    done = shared.curl(scheme)
    assert "welcome" in done.stdout, done.stdout + done.stderr + shared.stage.log_tail()
    assert shared.service.key not in done.stdout
    stranger = shared.curl(scheme, uid=STRANGER_UID)
    assert " 401" in stranger.stdout.splitlines()[0]
    assert shared.service.seen(HOSTS[scheme])[-2:] == [200, 401]


def test_the_rest_of_the_request_goes_out_as_it_came(shared: Keyed) -> None:
    """Other query parameters keep their bytes, other cookies their text, and the placeholder is gone."""
    assert shared.welcome("query")
    lines = (shared.service.directory / "seen").read_text().splitlines()
    target = next(line.split(" ")[-1] for line in reversed(lines) if line.startswith(HOSTS["query"]))
    assert target.startswith("/?a=1&")
    assert "b=%2F" in target
    assert "placeholder" not in target
    assert target.count("api_key=") == 1


def test_every_read_is_audited_and_the_key_is_written_nowhere(shared: Keyed) -> None:
    """One event for each read, with source and identity; neither log nor audit nor argv holds the key."""
    assert shared.welcome()
    reads = [line for line in shared.stage.audit() if line["event"] == "secret-read"]
    assert reads
    assert {(line["source"], line["identity"]) for line in reads} == {("api-key", "curl")}
    key = shared.service.key.encode()
    written = [*shared.stage.state.rglob("*"), shared.stage.directory / "daemon.log", *shared.stage.run.rglob("*.json")]
    assert not [path for path in written if path.is_file() and key in path.read_bytes()]
    assert key in shared.secret.read_bytes()
    for row in shared.stage.processes():
        assert key not in Path(f"/proc/{row['pid']}/cmdline").read_bytes()
        assert key not in Path(f"/proc/{row['pid']}/environ").read_bytes()


def test_a_rotated_file_is_taken_by_a_reload(shared: Keyed) -> None:
    """Once nginx knows the new key only, the old one is refused; after the reload the new one is used."""
    assert shared.welcome()
    shared.put(shared.service.rotate())
    assert not shared.welcome()
    shared.reload()
    shared.stage.wait_until(shared.welcome, 5, "the new key to be used")


def test_a_sealed_file_serves_like_a_plain_one(shared: Keyed) -> None:
    """``credwire seal`` takes the secret from stdin; what lies on disk does not hold it; status warns of the plain one only."""
    sealed = shared.stage.directory / "api-key-sealed"
    argv = ["seal", "api-key-sealed", "-", "--to", str(sealed)]
    source = shared.stage.directory / "typed"
    source.write_text(shared.service.key)
    source.chmod(0o600)
    done = shared.stage.credwire("seal", "api-key-sealed", str(source), "--to", str(sealed))
    assert done.returncode == 0, (argv, done.stderr)
    assert shared.service.key.encode() not in sealed.read_bytes()
    shared.write(of=f"{{file: {sealed}}}")
    shared.reload()
    try:
        shared.stage.wait_until(shared.welcome, 5, "the sealed key to be used")
    finally:
        shared.write()
        shared.reload()


def test_a_file_that_others_may_read_is_not_read(shared: Keyed) -> None:
    """0644 is refused: 503 with the reason, the audit says so; 0600 again and it works."""
    shared.put(shared.service.key, mode=0o644)
    shared.stage.credwire("revoke", "--binding", "api-header")
    try:
        done = shared.curl("header")
        assert " 503" in done.stdout.splitlines()[0], done.stdout
        refused = [line for line in shared.stage.audit() if line["event"] == "secret-refused"]
        assert refused
        assert shared.service.key not in json.dumps(refused)
    finally:
        shared.put(shared.service.key)
        shared.reload()
        shared.stage.wait_until(shared.welcome, 15, "the file to be read again")


@pytest.mark.parametrize(("word", "first_line"), [("refuse", " 503"), ("passthrough", " 401")])
def test_on_lease_failure(shared: Keyed, word: str, first_line: str) -> None:
    """Without the file: refused with our reason, or passed on with the client's own placeholder, which nginx refuses."""
    shared.write(more=f"  onLeaseFailure: {word}\n", of=f"{{file: {shared.stage.directory}/not-there}}")
    shared.reload()
    try:
        done = shared.curl("header")
        assert first_line in done.stdout.splitlines()[0], done.stdout
        if word == "refuse":
            assert Reason.LEASE_UNAVAILABLE in done.stdout or "x-credwire-reason" in done.stdout
        else:
            assert "no valid key" in done.stdout
            assert any(line["event"] == "request-passed" for line in shared.stage.audit())
    finally:
        shared.write()
        shared.reload()


def test_a_systemd_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret lies below $CREDENTIALS_DIRECTORY, as LoadCredentialEncrypted= leaves it."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with Stage("credential") as stage:
        directory = stage.directory / "credentials"
        directory.mkdir(mode=0o700)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
        service = KeyedService(stage.directory / "service", free_subnet())
        try:
            made = Keyed(stage, service)
            (directory / "api").write_text(service.key)
            (directory / "api").chmod(0o400)
            made.write(of="{systemdCredential: api}")
            stage.start_daemon()
            assert made.welcome(), stage.log_tail()
        finally:
            service.stop()
