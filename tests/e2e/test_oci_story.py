"""
The whole OCI story through the real proxy: every verb and body form, Oracle's own SDK, three ways to get a token.  Needs root.

Each signed request is verified twice, by httpsig at the cloud and by npm's http-signature from what the cloud received; the cloud itself
checks body hash, freshness and coverage.
"""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.e2e.cloud.exempt import HOSTS, OPERATIONS
from tests.e2e.cloud.metadata_io import INSTANCE, InstanceAuthority, Metadata
from tests.e2e.cloud.service import DOMAIN
from tests.e2e.lib import oci_cli
from tests.e2e.lib.hand import Answer, Hand
from tests.e2e.lib.http_signature import Verifier, VerifierMissing
from tests.e2e.lib.memscan import of_key, scan
from tests.e2e.lib.net import Subnet
from tests.e2e.lib.scene import IDENTITY, STORAGE, USERS, Watch
from tests.e2e.lib.stage import CLIENT_ID, ISSUER_HOST, TRUST_DOMAIN, USER_UID, Stage

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="BPF and namespaces need root"), pytest.mark.timeout(300)]

_SCRIPT = Path(__file__).with_name("lib") / "hand_script.py"
_SITE = oci_cli.DIRECTORY / "lib" / "python3.11" / "site-packages"
PLACEHOLDER = 'Signature version="1",keyId="ocid1.tenancy/ocid1.user/20:3b",algorithm="rsa-sha256",headers="{}",signature="AAAA"'
THREE, SIX = "date (request-target) host", "date (request-target) host content-length content-type x-content-sha256"
OLD = "Thu, 01 Jan 1970 00:00:00 GMT"
TOO_BIG_FOR_ONE_READ = os.urandom(300_000)


@dataclass
class Part:
    """One workload with a source of its own."""

    name: str
    auth: str
    more: str = ""
    principal: str = ""
    selectors: str = ""


class Story(Stage):
    """A stage whose cloud knows instances and resources, with one metadata service that it believes and one that it does not."""

    def __init__(self) -> None:
        self.metadata, self.imposter = Metadata(), Metadata(InstanceAuthority())
        basic = f"{{basic: {{clientId: {CLIENT_ID}, clientSecretFile: SECRET}}}}"
        self.parts = (
            Part("basic", basic),
            Part("inst", "instancePrincipal", f"    metadata: {self.metadata.url}\n"),
            Part("res", "instancePrincipal", f"    metadata: {self.metadata.url}\n    token: rpst\n    resourceType: credwireworkload\n",
                 f"spiffe://{TRUST_DOMAIN}/ops/res"),
            Part("fake", "instancePrincipal", f"    metadata: {self.imposter.url}\n"),
            Part("wrong", basic, principal="svc-declared"),
            Part("curl", basic, selectors="    - unix:uid: 72450\n      unix:exe:path: /usr/bin/curl\n"),
        )  # fmt: skip
        super().__init__(
            "oci", cloud={"extraApiHosts": list(HOSTS)}, subjects={f"ops/{part.name}": f"svc-{part.name}" for part in self.parts}
        )

    def _cloud_config(self, subnet: Subnet) -> dict[str, Any]:
        config = super()._cloud_config(subnet)
        config["trusts"][0]["oauthClients"].append(INSTANCE)
        resources = {**config["trusts"][0], "name": "resources", "subjectType": "Resource", "allowImpersonation": False}
        config["trusts"].append({**resources, "impersonationServiceUsers": []})
        return {**config, "instanceRoots": self.metadata.authority.roots()}

    def _hold_mounts(self) -> None:
        with self.hosts.open("a") as hosts:
            hosts.write(f"{self.subnet.here4} {ISSUER_HOST}\n")  # for federation check, which asks from this machine
        super()._hold_mounts()

    def _up(self) -> None:
        for service in (self.metadata, self.imposter):
            self._exits.callback(service.close)
        super()._up()

    def write_resources(self, **_: str) -> None:
        super().write_resources()
        (self.directory / "bin").mkdir(mode=0o755, exist_ok=True)
        for part in self.parts:
            script = self.directory / "bin" / part.name
            shutil.copy(_SCRIPT, script)
            script.chmod(0o755)
            self._write(part, script)

    def _write(self, part: Part, script: Path) -> None:
        chosen = part.selectors or (
            f"    - unix:uid: {USER_UID}\n      unix:exe:path: {Path('/usr/bin/python3').resolve()}\n      script:path: {script}\n"
        )
        hosts = ", ".join(f'"{host}"' for host in (IDENTITY, STORAGE, *HOSTS))
        networks = f'["10.77.{self.subnet.number}.0/24", "fd77:c1d:{self.subnet.number:x}::/64"]'
        (self.resources / f"{part.name}.yaml").write_text(
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: {part.name}}}
spec:
  workloadID: ops/{part.name}
  owner: platform-team@example.org
  environment: prod
  selectors:
{chosen}---
apiVersion: credwire/v1alpha1
kind: Federation
metadata: {{name: {part.name}-domain}}
spec:
  issuer: self
  audience: oci-demo
  subjectRule: "sub eq spiffe://{TRUST_DOMAIN}/ops/{part.name}"
  principal: {part.principal or f"svc-{part.name}"}
  owner: platform-team@example.org
---
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {{name: {part.name}-token}}
spec:
  federation: {part.name}-domain
  environment: prod
  owner: platform-team@example.org
  oci:
    domain: https://{DOMAIN}
    clientAuth: {part.auth.replace("SECRET", str(self.directory / "client-secret"))}
{part.more}    upstreamRoots: {self.directory}/cloud/ca.pem
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {{name: {part.name}}}
spec:
  identity: {part.name}
  source: {part.name}-token
  owner: platform-team@example.org
  mode: enforce
  destinations:
    - hosts: [{hosts}]
      networks: {networks}
      upstreamRoots: {self.directory}/cloud/ca.pem
  delivery: {{wire: {{signer: oci}}}}
"""
        )

    def hand(self, part: str, **options: Any) -> Hand:
        """Start the workload of ``part``."""
        bundle = self.state / "ca" / f"{part}.pem"
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "REQUESTS_CA_BUNDLE": str(bundle), **options.pop("env", {})}
        return Hand(self, [self.directory / "bin" / part], trust=[bundle], env=env, **options)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Story() as made:
        made.start_daemon()
        yield made


@pytest.fixture(scope="module")
def hand(story: Story) -> Iterator[Hand]:
    with story.hand("basic") as made:
        yield made


@pytest.fixture(scope="module")
def second() -> Iterator[Verifier]:
    try:
        made = Verifier()
    except VerifierMissing as missing:
        pytest.skip(f"the second verifier is not here: {missing}")
    with made:
        yield made


def hashed(body: bytes, kind: str = "application/json") -> list[tuple[str, str]]:
    """What Oracle's client says of a body whose hash it signs."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return [("content-length", str(len(body))), ("content-type", kind), ("x-content-sha256", digest)]


def chunked(body: bytes, size: int = 70_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


JSON = b'{"name": "x"}'
Form = tuple[str, list[tuple[str, str]], bytes, bytes]
"""Method, headers, the body as sent, the body that is meant."""


def _forms() -> dict[str, Form]:
    forms: dict[str, Form] = {}
    signed, three = ("authorization", PLACEHOLDER.format(SIX)), ("authorization", PLACEHOLDER.format(THREE))
    dated = ("authorization", PLACEHOLDER.format(SIX.replace("date", "x-date", 1)))
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        forms[f"{method} without a signature"] = (method, [], b"", b"")
        forms[f"{method} mirrored"] = (method, [("date", OLD), three], b"", b"")
    for method in ("POST", "PUT", "PATCH"):
        forms[f"{method} without a body"] = (method, [], b"", b"")
        forms[f"{method} empty"] = (method, [("content-length", "0")], b"", b"")
        forms[f"{method} JSON"] = (method, [("content-type", "application/json")], JSON, JSON)
        forms[f"{method} binary"] = (method, [("content-type", "application/octet-stream")], TOO_BIG_FOR_ONE_READ, TOO_BIG_FOR_ONE_READ)
        forms[f"{method} chunked"] = (method, [("transfer-encoding", "chunked")], chunked(TOO_BIG_FOR_ONE_READ), TOO_BIG_FOR_ONE_READ)
        forms[f"{method} mirrored JSON"] = (method, [("date", OLD), *hashed(JSON), signed], JSON, JSON)
        forms[f"{method} mirrored empty"] = (method, [("date", OLD), *hashed(b""), signed], b"", b"")
        forms[f"{method} mirrored with x-date"] = (method, [("x-date", OLD), *hashed(JSON), dated], JSON, JSON)
        forms[f"{method} mirrored with both dates"] = (method, [("date", OLD), ("x-date", OLD), *hashed(JSON), signed], JSON, JSON)
        forms[f"{method} another scheme"] = (method, [("authorization", "Bearer of-the-client")], JSON, JSON)
    return forms


FORMS = _forms()


def twice(second: Verifier, answer: Answer, target: str) -> dict[str, Any]:
    """Verify with the second verifier what the cloud received, beside a target that it must refuse; gives what the cloud says of it."""
    told: dict[str, Any] = answer.json()
    headers = dict(told["headers"])
    listed = headers["authorization"].partition('headers="')[2].partition('"')[0].split()
    given = {"method": told["method"], "headers": headers, "required": listed, "pem": told["pem"].encode()}
    assert {"(request-target)", "host"} <= set(listed)
    assert not second.verify(target=target, **given)
    assert second.verify(target="/another", **given)
    return told


@pytest.mark.parametrize("form", FORMS)
def test_every_verb_and_body_form_is_signed_and_arrives_whole(story: Story, hand: Hand, second: Verifier, form: str) -> None:
    """Method, target and body are what the client sent; the placeholders are gone; two verifiers agree."""
    method, headers, sent, meant = FORMS[form]
    seen, target = Watch(story), "/echo/a%20b?x=%2F&y"
    answer = hand.request(IDENTITY, method, target, headers=headers, body=sent)
    assert answer.status == 200, answer
    (record,) = seen.records(lambda record: record.kind == "api")
    assert (record.verdict, record.principal, record.method, record.path) == ("valid", "svc-basic", method, target)
    assert record.body_bytes == len(meant)
    if method == "HEAD":
        return  # no body comes back to say more
    told = twice(second, answer, target)
    assert told["sha256"] == hashlib.sha256(meant).hexdigest()
    assert "of-the-client" not in str(told)
    assert "ocid1.user" not in str(told)
    names = [name.lower() for name, _ in told["headers"]]
    assert ("x-date" in names) == (form.endswith("with x-date"))
    if method in ("POST", "PUT", "PATCH"):
        assert dict(told["headers"])["content-length"] == str(len(meant))


def test_expect_100_continue_is_answered_before_the_body(story: Story, hand: Hand) -> None:
    """The client waits with its body for the 100, as Oracle's does for an object."""
    seen, body = Watch(story), os.urandom(50_000)
    headers = [("expect", "100-continue"), ("date", OLD), *hashed(body), ("authorization", PLACEHOLDER.format(SIX))]
    number = hand.open(IDENTITY)
    lines = "\r\n".join(["PUT /echo HTTP/1.1", f"host: {IDENTITY}", *(f"{name}: {value}" for name, value in headers)])
    hand.send(number, lines.encode() + b"\r\n\r\n")
    assert hand.do("read", number=number, most=100).startswith("HTTP/1.1 100 ")
    hand.send(number, body)
    answer = hand.answer(number, "PUT")
    hand.close(number)
    assert (answer.status, answer.json()["sha256"]) == (200, hashlib.sha256(body).hexdigest())
    assert seen.valid()[-1].expect_continue


def test_a_body_that_is_not_the_announced_one_reaches_nobody_whole(story: Story, hand: Hand) -> None:
    """The signature is good and the body is another: aborted, and the cloud counts no valid request with it."""
    seen = Watch(story)
    headers = [("date", OLD), *hashed(JSON), ("authorization", PLACEHOLDER.format(SIX))]
    answer = hand.request(IDENTITY, "POST", "/echo", headers=headers, body=JSON[::-1])
    assert (answer.status, answer.reason) == (400, "body-hash-mismatch")
    assert all(record.status != 200 for record in seen.records(lambda record: record.kind == "api"))


_SDK = f"""
import sys
sys.path.insert(0, {str(_SITE)!r})
import oci
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
config = {{"user": {oci_cli.USER!r}, "tenancy": {oci_cli.TENANCY!r}, "fingerprint": ":".join(["aa"] * 16), "region": "test-1",
          "key_content": pem}}
def client(kind):
    return kind(config, retry_strategy=oci.retry.NoneRetryStrategy())
"""
_NINETEEN = (
    _SDK
    + """
done = []
def call(what, *arguments, **more):
    what(*arguments, **more)
    done.append(what.__name__)
body = b"\\x00binary\\xff" * 100
storage = client(oci.object_storage.ObjectStorageClient)
call(storage.put_object, "credwiretest", "exempt", "one/two three", body)
upload = storage.create_multipart_upload("credwiretest", "exempt",
    oci.object_storage.models.CreateMultipartUploadDetails(object="big")).data.upload_id
call(storage.upload_part, "credwiretest", "exempt", "big", upload, 1, body)
streams = oci.streaming.StreamClient(config, "https://streaming.test-1.oci.cloud.test", retry_strategy=oci.retry.NoneRetryStrategy())
entry = oci.streaming.models.PutMessagesDetailsEntry(key="aw==", value="dg==")
call(streams.put_messages, "ocid1.stream", oci.streaming.models.PutMessagesDetails(messages=[entry]))
logs = client(oci.log_analytics.LogAnalyticsClient)
call(logs.upload_discovery_data, "ns", body)
call(logs.upload_log_events_file, "ns", "ocid1.group", body)
call(logs.upload_log_file, "ns", "source", "file.log", "ocid1.group", body)
call(logs.upload_otlp_logs, "ns", "ocid1.group", body)
call(client(oci.apm_config.ConfigClient).put_data_file, body, "file", "ocid1.apm", "AGENT")
artifacts = client(oci.generic_artifacts_content.GenericArtifactsContentClient)
call(artifacts.put_generic_artifact_content_by_path, "ocid1.repo", "a/b", "1.0", body)
science = client(oci.data_science.DataScienceClient)
call(science.create_job_artifact, "ocid1.job", body)
call(science.create_model_artifact, "ocid1.model", body)
call(science.create_model_custom_metadatum_artifact, "ocid1.model", "key", body)
call(science.create_model_defined_metadatum_artifact, "ocid1.model", "key", body)
call(science.create_model_group_artifact, "ocid1.group", body)
call(science.create_step_artifact, "ocid1.pipeline", "step", body)
call(science.get_step_artifact_content, "ocid1.pipeline", "step")
call(science.update_model_custom_metadatum_artifact, "ocid1.model", "key", body)
call(science.update_model_defined_metadatum_artifact, "ocid1.model", "key", body)
call(client(oci.opsi.OperationsInsightsClient).put_awr_hub_object, body, "ocid1.source", "object")
result = done
"""
)


def test_the_nineteen_operations_with_unsigned_bodies_pass_by_the_mirror_rule(story: Story) -> None:
    """Oracle's SDK calls each of them; three headers are signed because three were, and the bodies stream through."""
    seen = Watch(story)
    region = json.dumps(oci_cli._REGION_METADATA)
    with story.hand("basic", env={"OCI_REGION_METADATA": region}) as hand:
        done = hand.python(_NINETEEN)
    assert len(done) == len(set(done)) == len(OPERATIONS) == 19
    records = seen.records(lambda record: record.kind == "api")
    assert {record.verdict for record in records} == {"valid"}, [r for r in records if r.verdict != "valid"]
    assert {record.principal for record in records} == {"svc-basic"}
    for method, host, path in OPERATIONS:
        matching = [r for r in records if r.method == method and r.host.startswith(host) and path.fullmatch(r.path.partition("?")[0])]
        assert len(matching) == 1, (method, host, path.pattern)
        assert matching[0].body_bytes > 0 or method == "GET"


def test_oracles_sdk_reads_and_writes(story: Story) -> None:
    """GET, POST with a signed body, HEAD, DELETE; the SDK parses each answer."""
    seen, region = Watch(story), json.dumps(oci_cli._REGION_METADATA)
    code = (
        _SDK
        + """
identity = client(oci.identity.IdentityClient)
users = [user.name for user in identity.list_users(config["tenancy"]).data]
details = oci.identity.models.CreateCompartmentDetails(compartment_id=config["tenancy"], name="story", description="x")
made = identity.create_compartment(details).data
storage = client(oci.object_storage.ObjectStorageClient)
storage.put_object("credwiretest", "sdk", "o", b"bytes")
size = storage.head_object("credwiretest", "sdk", "o").headers["content-length"]
storage.delete_object("credwiretest", "sdk", "o")
result = [users, made.name, size]
"""
    )
    with story.hand("basic", env={"OCI_REGION_METADATA": region}) as hand:
        users, made, size = hand.python(code)
    assert ("svc-basic" in users, made, size) == (True, "story", "5")
    assert [record.method for record in seen.valid()] == ["GET", "POST", "PUT", "HEAD", "DELETE"]


def test_a_client_that_signs_nothing_is_signed_by_the_rules(story: Story) -> None:
    """Plain requests in Python, and curl with an identity of its own: no OCI profile, no placeholder."""
    seen = Watch(story)
    code = f"""
import sys
sys.path.insert(0, {str(Path(requests.__file__).parents[1])!r})
import requests
result = [requests.get("https://{IDENTITY}{USERS}").status_code, requests.post("https://{IDENTITY}/echo", json={{"a": 1}}).json()["bytes"],
          requests.post("https://{IDENTITY}/echo", data=iter([b"in ", b"chunks"])).json()["bytes"]]
"""
    with story.hand("basic") as hand:
        assert hand.python(code) == [200, 8, 9]
    assert [record.verdict for record in seen.records(lambda record: record.kind == "api")] == ["valid"] * 3
    if not Path("/usr/bin/curl").exists():
        pytest.skip("/usr/bin/curl is not here; requests was tried")
    env = {"PATH": "/usr/bin:/bin", "CURL_CA_BUNDLE": str(story.state / "ca" / "curl.pem")}
    for more in ([], ["-d", "a=b"], ["-X", "POST"], ["-T", "/etc/hostname"], ["-I"]):
        done = story.client(["/usr/bin/curl", "-sS", "--fail", *more, f"https://{IDENTITY}/echo"], env=env)
        assert done.returncode == 0, (more, done.stderr)
    assert [record.principal for record in seen.valid()[-5:]] == ["svc-curl"] * 5


# ---- tokens ------------------------------------------------------------------------------------------------------------------------


def test_an_instance_principal_needs_no_stored_secret(story: Story) -> None:
    """Metadata, auth service, signed exchange, signed request; the next source of the instance uses the same token of it."""
    seen = Watch(story)
    with story.hand("inst") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
    order = [(record.kind, record.verdict, record.principal) for record in seen.records() if record.kind != "open"]
    assert order[0] == ("x509", "exchanged", INSTANCE)
    assert order[1:] == [("exchange", "exchanged", "svc-inst"), ("api", "valid", "svc-inst")]
    assert [path.rpartition("/")[2] for path in story.metadata.asked] == ["regionInfo", "cert.pem", "key.pem", "intermediate.pem"]
    assert seen.audit(event="exchange-done", source="inst-token")["detail"] == 'principal "svc-inst"'
    with story.hand("res") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
    resource = f"spiffe://{TRUST_DOMAIN}/ops/res"
    assert seen.valid()[-1].principal == resource
    assert seen.audit(event="exchange-done", source="res-token")["detail"] == f'principal "{resource}"'
    assert len(seen.records(lambda record: record.kind == "x509")) == 1
    pem = story.metadata.answers["/opc/v2/identity/key.pem"][1]
    key = load_pem_private_key(pem, None)
    others = [pid for name, pid in ((row["name"], int(row["pid"])) for row in story.processes()) if name != "exchange"]
    found = scan(others, of_key("instance", key), keys=False)
    assert len(others) >= 4
    assert not found.findings, found.findings
    assert "PRIVATE KEY" not in story.log_tail(1 << 20) + json.dumps(story.audit())


def test_an_instance_that_no_authority_certified_gets_nothing(story: Story) -> None:
    """The auth service's words stand in the refusal; nothing is exchanged or signed."""
    seen = Watch(story)
    with story.hand("fake") as hand:
        answer = hand.request(IDENTITY, "GET", USERS)
    assert answer.reason == "exchange-refused", answer
    line = seen.audit(event="exchange-failed", source="fake-token")
    assert "the auth service answered 401, error NotAuthenticated" in line["detail"]
    assert {record.kind for record in seen.records()} == {"x509"}


def test_another_principal_is_refused_and_audited_as_such(story: Story) -> None:
    """The trust maps the workload to somebody whom its federation does not declare: no token is used, and no success is told before."""
    seen = Watch(story)
    with story.hand("wrong") as hand:
        answer = hand.request(IDENTITY, "GET", USERS)
    assert answer.reason == "principal-mismatch", answer
    line = seen.audit(event="exchange-failed", source="wrong-token")
    assert (line["reason"], line["detail"]) == (
        "principal-mismatch",
        'source "wrong-token": the token is for "svc-wrong", the federation declares "svc-declared"',
    )
    assert not [line for line in seen.lines() if line["event"] == "exchange-done" and line.get("source") == "wrong-token"]
    assert seen.nothing_given()


# ---- federation check --------------------------------------------------------------------------------------------------------------


def test_federation_check_answers_each_question(story: Story) -> None:
    """Issuer, keys, domain, clock, exchange: all good for one source, red with a hint for another, and without the issuer's CA."""
    with story.hand("basic") as hand:
        hand.request(IDENTITY, "GET", USERS)
    good = story.credwire("federation", "check", "basic-token", "--issuer-roots", str(story.issuer_ca), "-o", "json")
    assert good.returncode == 0, good.stdout + good.stderr
    lines = json.loads(good.stdout)
    assert {line["level"] for line in lines} == {"ok"}, lines
    said = [line["what"].split()[0] for line in lines]
    assert said == ["issuer", "keys", "domain", "clock", "keys", "exchange"]
    assert 'gave principal "svc-basic"' in lines[-1]["says"]
    with story.hand("wrong") as hand:
        hand.request(IDENTITY, "GET", USERS)
    bad = story.credwire("federation", "check", "wrong-token", "--issuer-roots", str(story.issuer_ca))
    assert bad.returncode == 1
    assert 'red   exchange wrong-token for wrong: source "wrong-token": the token is for "svc-wrong"' in bad.stdout
    assert "(principal-mismatch)\n      try: " in bad.stdout
    unverified = story.credwire("federation", "check", "basic-token")
    assert unverified.returncode == 1
    assert "its certificate does not verify" in unverified.stdout
    assert story.client_secret not in good.stdout + bad.stdout + unverified.stdout
