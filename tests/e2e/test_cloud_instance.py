"""Oracle's own instance principal against the test cloud: metadata, auth service, API and signed exchange.  Needs root."""

import datetime
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.cloud.metadata_io import INSTANCE, REGION, InstanceAuthority, Metadata, pem
from tests.e2e.lib import oci_cli
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.net import REPOSITORY, free_subnet, launcher
from tests.e2e.lib.talk import Issuer, exchange, spki

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="network and mount namespaces need root"), pytest.mark.timeout(300)]

_UID = 61002
_SDK = """
import json, sys
import oci
from oci._vendor import requests
once = oci.retry.NoneRetryStrategy()
signer = oci.auth.signers.InstancePrincipalsSecurityTokenSigner(
    retry_strategy=once, federation_client_retry_strategy=once,
    federation_client_circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy())
identity = oci.identity.IdentityClient({"region": signer.region}, signer=signer, retry_strategy=once)
users = [user.name for user in identity.list_users("ocid1.tenancy.oc99..credwiretest").data]
form = json.loads(sys.stdin.read())
domain = "https://idcs-demo.identity.test-1.cloud.test/oauth2/v1/token"
answer = requests.post(domain, data=form, auth=signer, headers={"content-type": "application/x-www-form-urlencoded"})
print(json.dumps({"region": signer.region, "users": users, "status": answer.status_code, "answer": answer.json()}))
"""


@dataclass
class Scene:
    """A cloud that knows an authority of instances, and a user whose SDK finds a metadata service."""

    issuer: Issuer
    cloud: RunningCloud
    authority: InstanceAuthority
    hosts: Path
    key: rsa.RSAPrivateKey

    def form(self, **changed: str) -> dict[str, str]:
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:oci:token-type:oci-upst",
            "subject_token": self.issuer.assertion(),
            "subject_token_type": "jwt",
            "public_key": spki(self.key),
            **changed,
        }

    def sdk(self, service: Metadata, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run Oracle's signer with ``service`` as the machine's metadata service; then it signs an exchange."""
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OCI_METADATA_BASE_URL": service.url,
            "OCI_REGION_METADATA": json.dumps(REGION), "REQUESTS_CA_BUNDLE": str(self.cloud.ca),
        }  # fmt: skip
        argv = [*launcher("--private-mounts", "--hosts", str(self.hosts), "--uid", str(_UID), "--parent", str(os.getpid()))]
        argv += ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        argv += [str(oci_cli.DIRECTORY / "bin" / "python3"), "-c", _SDK]
        told = json.dumps(self.form(**changed))
        return subprocess.run(argv, cwd=REPOSITORY, input=told, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    oci_cli.install()
    authority, subnet = InstanceAuthority(), free_subnet()
    with tempfile.TemporaryDirectory(prefix="credwire-instance-") as name:
        base = Path(name)
        base.chmod(0o755)
        with Issuer(base / "issuer", address=subnet.here4) as issuer:
            trusts = [
                issuer.trust(oauthClients=["exchange-app", INSTANCE]),
                issuer.trust(name="resources", issuer="https://resources.test", subjectType="Resource", oauthClients=["exchange-app"],
                             impersonationServiceUsers=[], allowImpersonation=False),
            ]  # fmt: skip
            with RunningCloud(base / "cloud", issuer.cloud_config(trusts=trusts, instanceRoots=authority.roots()), subnet) as cloud:
                key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
                yield Scene(issuer, cloud, authority, cloud.write_hosts(base / "hosts"), key)


def test_oracles_instance_principal_passes_and_signs_an_exchange(scene: Scene) -> None:
    """Certificate to token, token to API call, token to a signed token exchange: no secret was stored anywhere."""
    with Metadata(scene.authority) as service:
        done = scene.sdk(service)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["region"], told["users"][0], told["status"]) == ("test-1", "svc-oci-cli", 200)
    assert list(told["answer"]) == ["token"]
    seen = [(record.kind, record.verdict, record.principal) for record in scene.cloud.records()]
    assert seen[-3:] == [("x509", "exchanged", INSTANCE), ("api", "valid", INSTANCE), ("exchange", "exchanged", "svc-oci-cli")]


def test_oracles_instance_principal_is_refused_like_anybody(scene: Scene) -> None:
    """Another authority, a server's certificate, an old one, another's key: no token, and nothing signed arrives."""
    before = len(scene.cloud.valid())
    stranger = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    for authority, leaf, key, why in (
        (InstanceAuthority(), {}, None, "does not verify"),
        (scene.authority, {"usage": ExtendedKeyUsageOID.SERVER_AUTH}, None, "does not verify"),
        (scene.authority, {"age": datetime.timedelta(hours=3)}, None, "does not verify"),
        (scene.authority, {}, stranger, "signature does not verify"),
    ):
        with Metadata(authority, **leaf) as service:
            if key is not None:
                service.answers["/opc/v2/identity/key.pem"] = (200, key)
            done = scene.sdk(service)
        assert done.returncode != 0
        assert "NotAuthenticated" in done.stderr
        assert why in scene.cloud.records()[-1].why
    assert len(scene.cloud.valid()) == before


def test_a_signed_exchange_of_an_instance_that_the_trust_does_not_list_is_unauthorized(scene: Scene) -> None:
    """The signature is good and the client is still nobody here."""
    with Metadata(scene.authority, instance="ocid1.instance.oc99.test-1.another") as service:
        told = json.loads(scene.sdk(service).stdout)
    assert (told["status"], told["answer"]["error"]) == (401, "unauthorized_client")


def test_a_resource_gets_an_rpst_from_a_trust_for_resources_only(scene: Scene) -> None:
    """subjectType User gives no RPST, Resource no UPST; the RPST is the workload's own, with its type."""
    import jwt

    rpst = "urn:oci:token-type:oci-rpst"
    assertion = scene.issuer.assertion(iss="https://resources.test")
    got = exchange(scene.cloud, assertion, scene.key, requested_token_type=rpst, res_type="credwireworkload")
    assert got.status == 200, got.body
    claims = jwt.decode(got.json()["token"], options={"verify_signature": False})
    assert (claims["sub"], claims["ttype"], claims["ptype"], claims["res_type"]) == (
        "spiffe://corp.test/ops/oci-cli", "rpst", "resource", "credwireworkload",
    )  # fmt: skip
    for form, error, word in (
        ({"assertion": assertion}, "invalid_grant", "subjectType is Resource"),
        ({"assertion": scene.issuer.assertion(), "requested_token_type": rpst, "res_type": "x"}, "invalid_grant", "subjectType is User"),
        ({"assertion": assertion, "requested_token_type": rpst}, "invalid_request", "res_type"),
    ):
        given = form.pop("assertion")
        reply = exchange(scene.cloud, given, scene.key, **form)
        assert (reply.json()["error"], word in reply.json()["error_description"]) == (error, True), reply.body
