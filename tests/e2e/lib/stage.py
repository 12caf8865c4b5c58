"""
The whole stage of a story: a cloud that verifies, the daemon, and an ordinary user's client, all of it gone when we are.

In: a name.  Out: a running credwired that governs one cgroup of its own (nothing else on the machine is hooked), the cloud in its network
namespace, and ``client()`` to run programs as that user.  Daemon and clients share one private mount namespace, in which the cloud's names
resolve and a private bpffs holds the pins: so a kill -9 of everything leaves neither.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.cloud.service import DOMAIN
from tests.e2e.cloud.tls_io import Authority
from tests.e2e.lib import oci_cli
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.net import REPOSITORY, HarnessError, Kennel, Subnet, free_subnet, launcher

USER_UID = 72450
"""The ordinary user: a number without a name, so that no user has to be made."""
STRANGER_UID = 72451
TRUST_DOMAIN = "demo.credwire.test"
ISSUER_HOST = "issuer.credwire.test"
AUDIENCE = "oci-demo"
PRINCIPAL = "svc-oci-cli"
CLIENT_ID = "credwire-exchange"
CREDWIRE = (sys.executable, "-P", "-m", "control.cli.main")
CREDWIRED = (sys.executable, "-P", "-m", "control.daemon.main")
_ISSUER_PORT = 8443
_SWITCH = """
import json, sys, time
from pathlib import Path
from control.daemon import switch_io
from control.daemon.config_io import load_config
config, faults = load_config(Path(sys.argv[1]))
assert config is not None, faults
for_s, began = json.loads(sys.argv[3]), time.time()
done = switch_io.off(config, for_s, "an engineer at 3 a.m.") if sys.argv[2] == "off" else switch_io.on(config, "an engineer at 3 a.m.")
print(json.dumps({**done._asdict(), "began": began, "ended": time.time()}))
"""
_numbers = count()
"""Stages of one process, so that two of the same name can stand beside each other."""


class Stage:
    """A context manager; attributes are there after ``__enter__``."""

    def __init__(
        self,
        name: str,
        *,
        say: Callable[[str], None] = lambda _: None,
        cloud: Mapping[str, Any] | None = None,
        subjects: Mapping[str, str] | None = None,
    ) -> None:
        """
        ``name`` tells stages apart that run one after another; ``cloud`` adds to the cloud's configuration.

        ``subjects``: further workload IDs that the cloud trusts, each with the service user it becomes.
        """
        self._subjects = {"ops/oci-cli": PRINCIPAL, **(subjects or {})}
        self.directory = Path("/run") / f"credwire-{name}-{os.getpid()}-{next(_numbers)}"
        self.say, self._cloud_more = say, dict(cloud or {})
        self.run, self.state = self.directory / "run", self.directory / "state"
        self.config = self.directory / "credwired.yaml"
        self.resources = self.directory / "resources"
        self.home = self.directory / "home"
        self.client_secret = f"demo-client-secret-{os.urandom(12).hex()}"
        self._exits = ExitStack()
        self._holder: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.cache = Path("/var/cache/credwire/bpf")

    # -- up

    def __enter__(self) -> Self:
        try:
            self._up()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exits.close()

    def _up(self) -> None:
        self.directory.mkdir(mode=0o755)
        self._exits.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.kennel = self._exits.enter_context(Kennel(self.directory.name, remove=[self.directory]))
        self.subnet = free_subnet()
        self._issuer()
        self.cloud = self._exits.enter_context(RunningCloud(self.directory / "cloud", self._cloud_config(self.subnet), self.subnet))
        self.hosts = self.cloud.write_hosts(self.directory / "hosts")
        self.program = oci_cli.install(say=self.say)
        self.home.mkdir()
        os.chown(self.home, USER_UID, USER_UID)
        self._write_config()
        self.write_resources()
        self._hold_mounts()

    def _issuer(self) -> None:
        authority = Authority("credwire test issuer CA")
        certificate, key = authority.leaf(ISSUER_HOST)
        self.issuer_ca = self.directory / "issuer-ca.pem"
        self.issuer_ca.write_bytes(authority.pem())
        (self.directory / "issuer.pem").write_bytes(certificate)
        (self.directory / "issuer.key").write_bytes(key)
        (self.directory / "issuer.key").chmod(0o600)

    @property
    def issuer_url(self) -> str:
        """The issuer, as the trust names it."""
        return f"https://{ISSUER_HOST}:{_ISSUER_PORT}"

    @property
    def listen_port(self) -> int:
        """Where redirected connections arrive; of this stage alone, so that two can stand side by side."""
        return 17400 + self.subnet.number

    def _cloud_config(self, subnet: Subnet) -> dict[str, Any]:
        trust = {
            "name": "credwire-demo",
            "issuer": self.issuer_url,
            "active": True,
            "publicKeyEndpoint": f"{self.issuer_url}/jwks",
            "publicKeyEndpointRoots": str(self.issuer_ca),
            "oauthClients": [CLIENT_ID],
            "allowImpersonation": True,
            "audience": AUDIENCE,
            "clockSkewSeconds": 60,
            "jwksCacheSeconds": 0.5,
            "impersonationServiceUsers": [
                {"rule": f"sub eq spiffe://{TRUST_DOMAIN}/{workload}", "value": user} for workload, user in self._subjects.items()
            ],
        }
        return {
            "clients": [{"id": CLIENT_ID, "secret": self.client_secret}],
            "users": [{"name": user} for user in self._subjects.values()],
            "trusts": [trust],
            "resolve": {ISSUER_HOST: subnet.here4},
            **self._cloud_more,
        }

    def _write_config(self) -> None:
        self.config.write_text(
            f"""\
trustDomain: {TRUST_DOMAIN}
issuerUrl: {self.issuer_url}
paths:
  resources: {self.resources}
  state: {self.state}
  run: {self.run}
  pins: /sys/fs/bpf/credwire
  cache: {self.cache}
cgroup:
  scope: /{self.kennel.cgroup.name}
  daemon: /{self.kennel.cgroup.name}/daemon
listenPort: {self.listen_port}
seal: {{with: file, keyFile: {self._seal_key()}}}
public:
  listen: {self.subnet.here4}:{_ISSUER_PORT}
  certificate: {self.directory}/issuer.pem
  key: {self.directory}/issuer.key
"""
        )

    def _seal_key(self) -> Path:
        """Make the key file of an operator: without one this machine's keys would lie plain, which status shows in red."""
        key = self.directory / "seal.key"
        if not key.exists():
            key.write_bytes(os.urandom(32))
            key.chmod(0o600)
        return key

    def write_resources(self, *, selectors: str = "", destinations: str = "", more: str = "") -> None:
        """Write the resource set; the texts replace the parts of the same name, indented as they stand."""
        self.resources.mkdir(exist_ok=True)
        secret = self.directory / "client-secret"
        secret.write_text(self.client_secret)
        secret.chmod(0o600)
        python = Path("/usr/bin/python3").resolve()
        chosen = (
            selectors
            or f"""\
    - unix:uid: {USER_UID}
      unix:exe:path: {python}
      script:path: {self.program}
"""
        )
        networks = f'networks: ["10.77.{self.subnet.number}.0/24", "fd77:c1d:{self.subnet.number:x}::/64"]'
        roots = f"upstreamRoots: {self.directory}/cloud/ca.pem"
        places = (
            destinations
            or f"""\
    - hosts: ["identity.test-1.oci.cloud.test"]
      methods: [GET, POST]
      paths: ["/20160918/users*", "/20160918/regions*", "/20160918/compartments*"]
      {networks}
      {roots}
    - hosts: ["objectstorage.test-1.cloud.test"]
      {networks}
      {roots}
"""
        )
        (self.resources / "demo.yaml").write_text(
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: oci-cli}}
spec:
  workloadID: ops/oci-cli
  owner: platform-team@example.org
  environment: prod
  selectors:
{chosen}---
apiVersion: credwire/v1alpha1
kind: Federation
metadata: {{name: oci-demo-domain}}
spec:
  issuer: self
  audience: {AUDIENCE}
  subjectRule: "sub eq spiffe://{TRUST_DOMAIN}/ops/oci-cli"
  principal: {PRINCIPAL}
  owner: platform-team@example.org
---
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {{name: oci-demo-upst}}
spec:
  federation: oci-demo-domain
  environment: prod
  owner: platform-team@example.org
  oci:
    domain: https://{DOMAIN}
    clientAuth:
      basic: {{clientId: {CLIENT_ID}, clientSecretFile: {secret}}}
    {roots}
  ttlCap: 1h
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {{name: oci-cli-demo}}
spec:
  identity: oci-cli
  source: oci-demo-upst
  owner: platform-team@example.org
  mode: enforce
  destinations:
{places}  delivery: {{wire: {{signer: oci}}}}
{more}"""
        )

    def _hold_mounts(self) -> None:
        """Start the process whose mount namespace everybody joins."""
        options = ["--private-mounts", "--hosts", str(self.hosts), "--bpffs", "/sys/fs/bpf", "--parent", str(os.getpid())]
        script = "import sys; print('held', flush=True); sys.stdin.read()"
        self._holder = self.kennel.start([sys.executable, "-c", script], *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"held\n":
            raise HarnessError("the mount namespace could not be made")
        self._exits.callback(self._end, self._holder)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    # -- programs

    def options(self, *more: str) -> list[str]:
        """Launcher options that put a program on this stage."""
        assert self._holder is not None
        return ["--mounts-of", str(self._holder.pid), *more]

    def start(self, argv: Sequence[str], *more: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a program on this stage as root."""
        return self.kennel.start(argv, *self.options(*more), **popen)

    def client(
        self, argv: Sequence[str], *, uid: int = USER_UID, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on this stage as an ordinary user and wait for it."""
        argv = [*launcher(*self.kennel.options(), *self.options("--uid", str(uid))), *argv]
        return subprocess.run(
            argv, cwd=REPOSITORY, env=dict(env or {"PATH": "/usr/bin:/bin"}), capture_output=True, text=True, timeout=timeout, check=False
        )

    def client_started(self, argv: Sequence[str], *, uid: int = USER_UID, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a program on this stage as an ordinary user."""
        return self.start(argv, "--uid", str(uid), **popen)

    def credwire(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run the command line, as root."""
        argv = [*launcher(*self.options()), *CREDWIRE, "--config", str(self.config), *words]
        return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)

    def switch(self, word: str, for_s: float | None = None) -> dict[str, Any]:
        """Throw the off switch (``off`` or ``on``) as a tool of root's does; its outcome, with ``began`` and ``ended``."""
        argv = [*launcher(*self.options()), sys.executable, "-P", "-c", _SWITCH, str(self.config), word, json.dumps(for_s)]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise HarnessError(f"switch {word}: {done.stderr}")
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    # -- the daemon

    def start_daemon(self, within_s: float = 25, *, red: bool = False) -> float:
        """Start credwired and wait until it enforces and signs, or, with ``red``, answers at all; gives the seconds that it took."""
        began = time.monotonic()
        log = (self.directory / "daemon.log").open("ab")
        self.daemon = self.start([*CREDWIRED, "run", "--config", str(self.config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self._exits.callback(self.stop_daemon)
        self.wait_until(self.enforcing if red else self.healthy, within_s, "the daemon to be healthy")
        return time.monotonic() - began

    def healthy(self) -> bool:
        """Whether every process answers and the bundle is written."""
        status = self.status()
        return bool(status.get("enforcing")) and all(line["level"] != "red" for line in status["health"])

    def enforcing(self) -> bool:
        """Whether the agent answers and enforces, whatever else is wrong."""
        return bool(self.status().get("enforcing"))

    def status(self) -> dict[str, Any]:
        """What ``credwire status`` says; empty while nobody answers.  Raises HarnessError when credwired has ended."""
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise HarnessError(f"credwired ended with {self.daemon.returncode}:\n{self.log_tail()}")
        if not (self.run / "admin.sock").exists() or not (self.state / "ca" / "oci-cli.pem").exists():
            return {}
        told = self.credwire("status", "-o", "json")
        try:
            status: dict[str, Any] = json.loads(told.stdout)
        except ValueError:
            return {}
        return status

    def stop_daemon(self) -> None:
        """Stop credwired as an operator would, and remove its programs."""
        if self.daemon is None:
            return
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.send_signal(signal.SIGCONT)
            try:
                self.daemon.wait(10)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.daemon = None
        if self._holder is not None and self._holder.poll() is None:
            argv = [*launcher(*self.options()), *CREDWIRED, "detach", "--config", str(self.config)]
            subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=False, timeout=30)

    def processes(self) -> list[dict[str, Any]]:
        """The daemon's own table: role, name, pid, restarts."""
        rows: list[dict[str, Any]] = json.loads((self.run / "processes.json").read_text())
        return rows

    def pid(self, name: str) -> int:
        """Pid of one process of the daemon: ``agent``, ``keys``, ``proxy-0``."""
        return next(int(row["pid"]) for row in self.processes() if row["name"] == name)

    @contextmanager
    def without_supervision(self) -> Iterator[None]:
        """Hold credwired still, so that what dies stays dead for as long as we look."""
        os.kill(self.pid("credwired"), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid("credwired"), signal.SIGCONT)

    # -- the client

    def profile(self, bundle: Path | None = None, uid: int = USER_UID) -> oci_cli.Profile:
        """Write a placeholder profile of the real OCI CLI for ``uid``; it trusts our bundle, or another."""
        trusted = bundle or self.state / "ca" / "oci-cli.pem"
        home = self.home if uid == USER_UID else self.home.with_name(f"home-{uid}")
        home.mkdir(exist_ok=True)
        return oci_cli.write_profile(home, program=self.program, bundle=trusted, uid=uid)

    def audit(self) -> list[dict[str, Any]]:
        """Every line of the audit so far."""
        lines = (self.state / "audit" / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    def log_tail(self, size: int = 4000) -> str:
        """The end of the daemon's log."""
        path = self.directory / "daemon.log"
        return path.read_text(errors="replace")[-size:] if path.exists() else ""

    @staticmethod
    def wait_until(holds: Callable[[], bool], within_s: float, what: str) -> None:
        """Poll a condition.  Raises HarnessError when time is up."""
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                raise HarnessError(f"waited {within_s} s for {what}")
            time.sleep(0.02)
