"""Oracle's own clients against the test cloud, with the real names and port 443: placeholders are refused, keys are not.  Needs root."""

import filecmp
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lib import oci_cli
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.net import REPOSITORY, free_subnet, launcher
from tests.e2e.lib.talk import Issuer

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="network and mount namespaces need root"), pytest.mark.timeout(300)]

_UID = 61001
_BIG = 200 << 20


@dataclass
class Scene:
    """A cloud behind a veth pair and an ordinary user who finds it by name."""

    issuer: Issuer
    cloud: RunningCloud
    home: Path
    hosts: Path
    placeholder: oci_cli.Profile
    known: oci_cli.Profile

    def run(self, argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run as the user, with this environment and no more."""
        options = ["--private-mounts", "--hosts", str(self.hosts), "--uid", str(_UID), "--parent", str(os.getpid())]
        clean = [f"{name}={value}" for name, value in environment.items()]
        whole = [*launcher(*options), "/usr/bin/env", "-i", *clean, *argv]
        return subprocess.run(whole, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)

    def oci(self, profile: oci_cli.Profile, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the real CLI."""
        return self.run([*profile.argv, *words], profile.environment)

    def works(self, words: Sequence[str]) -> Any:
        """Run the CLI with a key that the cloud knows; give what it prints."""
        done = self.oci(self.known, words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory that an ordinary user can get at: pytest keeps its own 0700, again at the start of each run."""
    with tempfile.TemporaryDirectory(prefix="credwire-clients-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def scene(base: Path) -> Iterator[Scene]:
    program = oci_cli.install(say=lambda line: print(line, file=sys.stderr))
    subnet, bundle = free_subnet(), base / "cloud" / "ca.pem"
    bundle.parent.mkdir()
    bundle.write_text("not yet")
    placeholder = oci_cli.write_profile(base / "placeholder", program=program, bundle=bundle, uid=_UID)
    known = oci_cli.write_profile(base / "known", program=program, bundle=bundle, uid=_UID)
    with Issuer(base / "issuer", address=subnet.here4) as issuer:
        config = issuer.cloud_config(apiKeys=[{"keyId": known.key_id, "publicKey": known.public_key}])
        with RunningCloud(base / "cloud", config, subnet) as cloud:
            yield Scene(issuer, cloud, base / "known", cloud.write_hosts(base / "hosts"), placeholder, known)


def test_the_placeholder_profile_gets_a_401_and_no_valid_signature_is_seen(scene: Scene) -> None:
    """The CLI is content with its profile; the cloud is not: Oracle's own error, printed by the CLI."""
    before = len(scene.cloud.valid())
    done = scene.oci(scene.placeholder, oci_cli.USER_LIST)
    assert done.returncode != 0
    assert '"status": 401' in done.stderr
    assert '"code": "NotAuthenticated"' in done.stderr
    asked = [record for record in scene.cloud.records() if record.path.startswith("/20160918/users")]
    assert [(record.verdict, record.why, record.key_id_kind) for record in asked] == [("invalid", "unknown key id", "api-key")]
    assert len(scene.cloud.valid()) == before


def test_the_same_calls_work_with_a_key_that_the_cloud_knows(scene: Scene) -> None:
    """So a 401 above is about the key alone: list, create, namespace."""
    assert [user["name"] for user in scene.works(oci_cli.USER_LIST)["data"]] == ["svc-oci-cli", "alice", "svc-gone"]
    assert scene.works(oci_cli.REGION_LIST)["data"][0]["name"] == "test-1"
    assert scene.works(oci_cli.COMPARTMENT_CREATE)["data"]["name"] == "made-by-demo"
    assert scene.works(oci_cli.NAMESPACE_GET)["data"] == "credwiretest"


@pytest.mark.slow
def test_200_mb_go_up_and_come_back_whole(scene: Scene) -> None:
    """One PUT with Expect: 100-continue and a multipart upload; both come back byte for byte."""
    up, down = scene.home / "up", scene.home / "down"
    with up.open("wb") as file:
        for _ in range(_BIG >> 20):
            file.write(os.urandom(1 << 20))
    up.chmod(0o644)
    for extra in (("--no-multipart",), ()):
        scene.works(oci_cli.object_put(up, "big", *extra))
        puts = [record for record in scene.cloud.valid() if record.method == "PUT"][-2:]
        assert all(record.expect_continue for record in puts)
        assert (puts[-1].body_bytes if extra else sum(record.body_bytes for record in puts)) == _BIG
        scene.works(oci_cli.object_get(down, "big"))
        assert filecmp.cmp(up, down, shallow=False)
        down.unlink()
    listed = scene.works(oci_cli.OBJECT_LIST)["data"]
    assert [(entry["name"], entry["size"]) for entry in listed] == [("big", _BIG)]
    up.unlink()


def test_the_cli_verifies_tls(scene: Scene, tmp_path: Path) -> None:
    """With the issuer's CA in place of the cloud's nothing is sent: no request arrives."""
    before = len(scene.cloud.records())
    bundle = scene.hosts.with_name("other.pem")
    bundle.write_bytes(scene.issuer.roots.read_bytes())
    mistaken = replace(scene.known, environment={**scene.known.environment, "REQUESTS_CA_BUNDLE": str(bundle)})
    done = scene.oci(mistaken, oci_cli.REGION_LIST)
    assert done.returncode != 0
    assert "certificate" in done.stderr
    assert len(scene.cloud.records()) == before


def test_an_empty_bundle_is_never_handed_to_a_client(scene: Scene, tmp_path: Path) -> None:
    """An empty CA variable would turn verification off: the profile writer refuses."""
    (tmp_path / "empty.pem").touch()
    for bundle in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        with pytest.raises(FileNotFoundError, match="missing or empty"):
            oci_cli.write_profile(tmp_path / "home", program=oci_cli.DIRECTORY / "bin" / "oci", bundle=bundle)


_EXCHANGE = """
import sys, json
import oci
from oci.auth.signers import TokenExchangeSigner
assertion, client, secret = sys.stdin.read().split()
signer = TokenExchangeSigner(assertion, "https://idcs-demo.identity.test-1.cloud.test", client, secret)
config = {"region": "test-1"}
identity = oci.identity.IdentityClient(config, signer=signer, retry_strategy=oci.retry.NoneRetryStrategy())
users = identity.list_users("ocid1.tenancy.oc99..credwiretest").data
details = oci.identity.models.CreateCompartmentDetails(compartment_id="ocid1.tenancy.oc99..x", name=sys.argv[1], description="made")
made = identity.create_compartment(details).data
storage = oci.object_storage.ObjectStorageClient(config, signer=signer, retry_strategy=oci.retry.NoneRetryStrategy())
storage.put_object("credwiretest", "sdk", "one/two three", b"bytes")
got = storage.get_object("credwiretest", "sdk", "one/two three").data.content.decode()
print(json.dumps({"users": [user.name for user in users], "made": made.name, "got": got}))
"""


def _token_exchange_signer(scene: Scene, assertion: str, client: str, name: str) -> subprocess.CompletedProcess[str]:
    argv = [*launcher("--private-mounts", "--hosts", str(scene.hosts), "--uid", str(_UID)), "/usr/bin/env", "-i"]
    argv += [f"{key}={value}" for key, value in scene.known.environment.items()]
    argv += [str(oci_cli.DIRECTORY / "bin" / "python3"), "-c", _EXCHANGE, name]
    told = f"{assertion} {client}"
    return subprocess.run(argv, cwd=REPOSITORY, input=told, capture_output=True, text=True, timeout=120, check=False)


def test_oracles_token_exchange_signer_passes_and_its_requests_are_signed(scene: Scene) -> None:
    """Exchange, GET, POST, object PUT and GET with a space in the name, all by the oci SDK and all as the service user."""
    before = len(scene.cloud.valid())
    done = _token_exchange_signer(scene, scene.issuer.assertion(), "exchange-app exchange-secret", "by-sdk")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"users": ["svc-oci-cli", "alice", "svc-gone"], "made": "by-sdk", "got": "bytes"}
    seen = scene.cloud.valid()[before:]
    assert [(record.method, record.principal, record.key_id_kind) for record in seen] == [
        (method, "svc-oci-cli", "upst") for method in ("GET", "POST", "PUT", "GET")
    ]


def test_oracles_token_exchange_signer_is_refused_like_anybody(scene: Scene) -> None:
    """Wrong secret, wrong audience, wrong subject: no token, and nothing signed arrives."""
    before = len(scene.cloud.valid())
    for assertion, client, status in (
        (scene.issuer.assertion(), "exchange-app wrong-secret", "401"),
        (scene.issuer.assertion(aud="another"), "exchange-app exchange-secret", "400"),
        (scene.issuer.assertion(sub="spiffe://corp.test/ops/else"), "exchange-app exchange-secret", "400"),
    ):
        done = _token_exchange_signer(scene, assertion, client, "never")
        assert done.returncode != 0
        assert f"{status} Client Error" in done.stderr
    assert len(scene.cloud.valid()) == before
