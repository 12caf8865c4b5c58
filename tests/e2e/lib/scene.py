"""
One running daemon for many tests: identities for every part that a test plays, and what the cloud and the audit saw meanwhile.

In: nothing.  Out: a Scene: ``hand("main")`` starts a process of that identity, ``watch()`` looks at audit and cloud from now on.
Each identity is one script in the stage's ``bin``, so that scripts alone tell them apart: same user, same python3.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control.reason import ABOUT, Reason
from tests.e2e.cloud.record_io import Record
from tests.e2e.cloud.service import DOMAIN
from tests.e2e.lib.hand import Answer, Hand, head
from tests.e2e.lib.net import HarnessError
from tests.e2e.lib.oci_cli import NAMESPACE, TENANCY
from tests.e2e.lib.stage import CLIENT_ID, TRUST_DOMAIN, USER_UID, Stage

IDENTITY = "identity.test-1.oci.cloud.test"
STORAGE = "objectstorage.test-1.cloud.test"
UNBOUND = "iaas.test-1.cloud.test"
"""A name of the cloud that no binding names."""
USERS = "/20160918/users"
_SCRIPT = Path(__file__).with_name("hand_script.py")

PARTS = ("main", "other", "narrow", "nowhere", "victim", "fleeting")
"""
Identities with a script and a binding of their own: ``main`` does the main job; ``other`` may reach another host; ``narrow`` has egress
bound-only; ``nowhere`` names no network, so that the cloud's private addresses are not its; ``victim`` is for failing issuers;
``fleeting`` comes and goes by reload.
"""


class Scene:
    """A Stage with a daemon and all identities of PARTS, and ``twin``, which two identities claim."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.bin = stage.directory / "bin"
        self.bin.mkdir(mode=0o755)
        self._caps: dict[str, int] = {}
        for part in (*PARTS, "twin", "stranger"):
            self.script(part)
        for part in PARTS:
            self.write(part)
        for part in ("twin-one", "twin-two"):
            self.write(part, script="twin")

    @property
    def cloud(self) -> Any:
        """The cloud."""
        return self.stage.cloud

    def script(self, name: str) -> Path:
        """A copy of the script, root-owned."""
        path = self.bin / name
        shutil.copy(_SCRIPT, path)
        path.chmod(0o755)
        return path

    # -- resources

    def write(
        self,
        part: str,
        *,
        script: str = "",
        destinations: str = "",
        ttl_cap_s: int = 3600,
        mode: str = "enforce",
        on_daemon_down: str = "refuse",
    ) -> None:
        """Write the documents of one part; a reload puts them in force."""
        stage = self.stage
        networks = f'networks: ["10.77.{stage.subnet.number}.0/24", "fd77:c1d:{stage.subnet.number:x}::/64"]'
        if part == "nowhere":
            networks = ""
        roots = f"upstreamRoots: {stage.cloud.ca}"
        hosts = {"other": "identity.test-1.cloud.test", "narrow": STORAGE}.get(part, IDENTITY)
        limits = 'methods: [GET, POST]\n      paths: ["/20160918/users*", "/20160918/regions*", "/20160918/compartments*"]'
        places = (
            destinations
            or f"""\
    - hosts: ["{hosts}"]
      {limits if hosts == IDENTITY else ""}
      {networks}
      {roots}
"""
        )
        if part == "main":
            places += f'    - hosts: ["{STORAGE}"]\n      {networks}\n      {roots}\n'
        (stage.resources / f"{part}.yaml").write_text(
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: {part}}}
spec:
  workloadID: ops/{part}
  owner: platform-team@example.org
  environment: prod
  egress: {"bound-only" if part == "narrow" else "open"}
  selectors:
    - unix:uid: {USER_UID}
      unix:exe:path: {Path("/usr/bin/python3").resolve()}
      script:path: {self.bin / (script or part)}
---
apiVersion: credwire/v1alpha1
kind: Federation
metadata: {{name: {part}-domain}}
spec:
  issuer: self
  audience: oci-demo
  subjectRule: "sub eq spiffe://{TRUST_DOMAIN}/ops/{part}"
  principal: svc-{part}
  owner: platform-team@example.org
---
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {{name: {part}-upst}}
spec:
  federation: {part}-domain
  environment: prod
  owner: platform-team@example.org
  oci:
    domain: https://{DOMAIN}
    clientAuth:
      basic: {{clientId: {CLIENT_ID}, clientSecretFile: {stage.directory / "client-secret"}}}
    {roots}
  ttlCap: {ttl_cap_s}s
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {{name: {part}}}
spec:
  identity: {part}
  source: {part}-upst
  owner: platform-team@example.org
  mode: {mode}
  destinations:
{places}  delivery: {{wire: {{signer: oci}}}}
  onDaemonDown: {on_daemon_down}
"""
        )

    def fresh_lease(self, part: str) -> None:
        """Let the daemon forget the lease of ``part``: its source changes a little."""
        self._caps[part] = self._caps.get(part, 3600) - 1
        self.write(part, ttl_cap_s=self._caps[part])
        self.reload()

    def reload(self) -> None:
        """Put what is on disk in force."""
        told = self.stage.credwire("reload")
        if told.returncode != 0:
            raise HarnessError(f"reload: {told.stdout}{told.stderr}")

    # -- the play

    def hand(self, part: str = "main", **options: Any) -> Hand:
        """Start the script of ``part`` as the ordinary user; it trusts credwire's bundle of that identity and the cloud's CA."""
        return self.run([self.bin / part], part, **options)

    def run(self, argv: Sequence[str | Path], part: str = "main", **options: Any) -> Hand:
        """Start any program that does what hand_script does, with the trust of ``part``."""
        bundle = self.stage.state / "ca" / f"{part}.pem"
        trust = [self.stage.cloud.ca, *([bundle] if bundle.exists() else [])]
        return Hand(self.stage, argv, trust=trust, **options)

    @contextmanager
    def watch(self) -> "Iterator[Watch]":
        """Look at what happens from now on."""
        yield Watch(self.stage)

    def workers(self) -> dict[str, int]:
        """Pid of each process of the daemon."""
        return {row["name"]: int(row["pid"]) for row in self.stage.processes()}

    @contextmanager
    def misbehaving(self, **faults: Any) -> Iterator[None]:
        """Faults of the cloud, for a while."""
        self.stage.cloud.misbehave(**faults)
        try:
            yield
        finally:
            self.stage.cloud.misbehave()


class Watch:
    """Audit and cloud since it was made."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self.began = stage, time.time()
        self._lines, self._records = len(stage.audit()), len(stage.cloud.records())

    def audit(self, within_s: float = 5.0, **wanted: Any) -> dict[str, Any]:
        """Wait for an audit line whose fields are these; the newest such.  Raises HarnessError with what there was instead."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [line for line in self.lines() if all(line.get(name) == value for name, value in wanted.items())]
            return bool(found)

        try:
            self._stage.wait_until(there, within_s, f"an audit line {wanted}")
        except HarnessError as error:
            raise HarnessError(f"{error}; there was {self.lines()[-5:]}") from None
        return found[-1]

    def lines(self) -> list[dict[str, Any]]:
        """Audit lines since."""
        return self._stage.audit()[self._lines :]

    def records(self, wanted: Callable[[Record], bool] = lambda _: True) -> list[Record]:
        """Requests at the cloud since."""
        return [record for record in self._stage.cloud.records()[self._records :] if wanted(record)]

    def valid(self) -> list[Record]:
        """Requests with a valid signature since."""
        return self.records(lambda record: record.verdict == "valid")

    def nothing_given(self) -> bool:
        """No request since carried a credential of ours, valid or not."""
        return not [record for record in self.records(lambda r: r.kind == "api") if record.principal or record.verdict == "valid"]


def refused(scene: Scene, seen: Watch, answer: Answer, status: int, reason: Reason, *, explained: bool = False) -> dict[str, Any]:
    """
    Check one refused request: status, reason, id and hint in the answer, the audit line, no credential of ours at the cloud.

    ``explained`` also asks ``credwire explain``, which takes half a second.  Gives the audit line.
    """
    assert (answer.status, answer.reason) == (status, reason), answer
    told = answer.json()
    assert told["code"] == reason
    assert answer.id in told["message"]
    assert ABOUT[reason].hint in told["message"] or "; " in told["message"]
    assert answer.headers["opc-request-id"] == answer.id
    line = seen.audit(id=answer.id, reason=reason)
    assert line["event"] == "request-refused"
    assert seen.nothing_given(), seen.records()
    if explained:
        said = json.loads(scene.stage.credwire("explain", answer.id, "-o", "json").stdout)
        assert said["reason"] == reason
        assert said["hint"]
    return line


DOWNLOAD = 40 << 20
"""Bytes that ``begun`` downloads: more than all buffers on the way hold."""
_PUT = """
sock = hands.sockets[number]
sock.sendall(head.encode())
for _ in range(size >> 20):
    sock.sendall(b"x" * (1 << 20))
"""


def begun(scene: Scene, hand: Hand) -> int:
    """Begin a download on a connection of its own and stop reading in the middle of it; ``drain`` reads the rest."""
    target = f"/n/{NAMESPACE}/b/demo/o/begun"
    signature = (
        f'Signature version="1",keyId="{TENANCY}/user/00:11",algorithm="rsa-sha256",headers="date (request-target) host",signature="eA=="'
    )
    headers = [("content-type", "application/octet-stream"), ("authorization", signature), ("date", "x"), ("content-length", str(DOWNLOAD))]
    put = hand.open(STORAGE)
    hand.python(_PUT, number=put, head=head(STORAGE, "PUT", target, headers).decode(), size=DOWNLOAD)
    status = hand.answer(put, "PUT").status
    hand.close(put)
    number = hand.open(STORAGE)
    hand.send(number, head(STORAGE, "GET", target))
    if status != 200 or not hand.do("read", number=number, most=1000).startswith("HTTP/1.1 200"):
        raise HarnessError("the download did not begin")
    return number


@contextmanager
def scene(name: str) -> Iterator[Scene]:
    """A scene whose daemon runs."""
    subjects = {f"ops/{part}": f"svc-{part}" for part in (*PARTS, "twin-one", "twin-two")}
    with Stage(name, subjects=subjects) as stage:
        made = Scene(stage)
        stage.start_daemon()
        yield made
