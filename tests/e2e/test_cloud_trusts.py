"""
Every way in which a trust can be wrong, seen from our side: Oracle's error, our reason, detail and what to check.  Needs loopback only.

Request and answer are made and read by control/credential/source/oci.py, as in the exchange process; the domain is the stand-in.
"""

import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.binding.model import OciSource, Source
from control.credential.source import oci
from control.credential.source.model import Answered, Failed, Yielded
from control.reason import Reason
from control.secret import Secret
from tests.e2e.cloud.service import DOMAIN
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.talk import Issuer, send

GRANT, CLIENT, UNAUTHORIZED = "invalid_grant", "invalid_client", "unauthorized_client"
ME = "spiffe://corp.test/ops/oci-cli"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
DER = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"impersonationServiceUsers": [{"rule": rule, "value": user} for rule, user in pairs]}


@dataclass(frozen=True)
class Row:
    """One trust and one assertion; ``error`` is Oracle's code, empty where the exchange must work."""

    name: str
    trust: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    says: str = ""
    principal: str = "svc-oci-cli"
    client: tuple[str, str] = ("exchange-app", "exchange-secret")
    asks_for: str = "upst"
    leave_out: tuple[str, ...] = ()
    """Fields of the trust that are not written at all."""


ROWS = (
    Row("good"),
    Row("inactive", {"active": False}, error=GRANT, says="not active"),
    Row("inactive-by-default", leave_out=("active",), error=GRANT, says="not active"),
    Row("slash-in-the-token", claims={"iss": "https://slash-in-the-token.test/"}, error=GRANT, says="no identity propagation trust"),
    Row("slash-in-the-trust", {"issuer": "https://slash-in-the-trust.test/"}, error=GRANT, says="no identity propagation trust"),
    Row("other-case", claims={"iss": "https://Other-case.test"}, error=GRANT, says="no identity propagation trust"),
    Row("keys-unreachable", {"publicKeyEndpoint": "https://issuer.corp.test:1/jwks"}, error=GRANT, says="cannot be fetched"),
    Row("keys-unverified", {"publicKeyEndpointRoots": ""}, error=GRANT, says="cannot be fetched"),
    Row("unknown-kid", claims={"kid": "key-77"}, error=GRANT, says='no key "key-77"'),
    Row("wrong-algorithm", {"algorithms": ["ES256"]}, error=GRANT, says="does not verify"),
    Row("wrong-certificate", error=GRANT, says="does not verify", leave_out=("publicKeyEndpoint", "publicKeyEndpointRoots")),
    Row("expired", claims={"exp": -60, "iat": -90}, error=GRANT, says="expired"),
    Row("late-within-skew", claims={"exp": -3, "iat": -90}),
    Row("late-beyond-skew", {"clockSkewSeconds": 2}, claims={"exp": -4, "iat": -90}, error=GRANT, says="expired"),
    Row("early-within-skew", {"clockSkewSeconds": 60}, claims={"iat": 30, "exp": 300}),
    Row("early-beyond-skew", {"clockSkewSeconds": 10}, claims={"iat": 30, "exp": 300}, error=GRANT, says="future"),
    Row("audience", {"audience": "somebody-else"}, error=GRANT, says="another audience"),
    Row("client-claim", {"clientClaimName": "aud", "clientClaimValues": ["oci-test", "x"]}),
    Row("client-claim-value", {"clientClaimName": "aud", "clientClaimValues": ["other"]}, error=GRANT, says="aud is not one of"),
    Row("client-claim-missing", {"clientClaimName": "azp", "clientClaimValues": ["x"]}, error=GRANT, says="azp is not one of"),
    Row("subject-claim", {"subjectClaimName": "workload"}, error=GRANT, says="has no workload"),
    Row("subject-claim-there", {"subjectClaimName": "workload"}, claims={"workload": "w"}),
    Row("eq", rules(("sub eq " + ME, "svc-oci-cli"))),
    Row("eq-of-another", rules((f"sub eq {ME}2", "svc-oci-cli")), error=GRANT, says="no impersonation rule"),
    Row("eq-of-a-prefix", rules(("sub eq spiffe://corp.test/ops/oci", "svc-oci-cli")), error=GRANT, says="no impersonation rule"),
    Row("co", rules(("sub co ops/oci-cli", "svc-oci-cli"))),
    Row("co-of-another", rules(("sub co ops/other", "svc-oci-cli")), error=GRANT, says="no impersonation rule"),
    Row("wildcard", rules(("sub eq spiffe://corp.test/*", "svc-oci-cli"))),
    Row("wildcard-elsewhere", rules(("sub eq spiffe://other.test/*", "svc-oci-cli")), error=GRANT, says="no impersonation rule"),
    Row("first-match", rules(("sub co nothing", "svc-gone"), ("sub co corp.test", "svc-other"), (f"sub eq {ME}", "svc-oci-cli")),
        principal="svc-other"),
    Row("first-match-is-gone", rules(("sub co corp.test", "svc-gone"), (f"sub eq {ME}", "svc-oci-cli")),
        error=GRANT, says="no active user"),
    Row("no-rules", rules(), error=GRANT, says="no impersonation rule"),
    Row("not-a-rule", rules(("sub is x", "svc-oci-cli")), error=GRANT, says="is not"),
    Row("unlisted-client", {"oauthClients": ["other-app"]}, error=UNAUTHORIZED, says="not listed"),
    Row("wrong-secret", client=("exchange-app", "wrong"), error=CLIENT, says="authentication failed"),
    Row("inactive-client", client=("sleeping-app", "sleeping-secret"), error=CLIENT, says="authentication failed"),
    Row("no-service-user", rules((f"sub eq {ME}", "alice")), error=UNAUTHORIZED, says="not a service user"),
    Row("no-impersonation", {"allowImpersonation": False}, error=UNAUTHORIZED, says="impersonation"),
    Row("resource-for-a-user", {"subjectType": "Resource"}, error=GRANT, says="subjectType is Resource"),
    Row("user-for-a-resource", asks_for="rpst", error=GRANT, says="subjectType is User"),
    Row("resource", {"subjectType": "Resource", "allowImpersonation": False, **rules()}, asks_for="rpst", principal=ME),
)  # fmt: skip
ADVICE = {GRANT: "credwire federation plan", CLIENT: "check clientAuth", UNAUTHORIZED: "oauthClients"}


class Scene(NamedTuple):
    issuer: Issuer
    cloud: RunningCloud

    def asks(self, row: Row) -> Yielded | Failed:
        """Build, send and read one exchange as the exchange process does it."""
        now = time.time()
        shifted = {name: int(now) + value if isinstance(value, int) else value for name, value in row.claims.items()}
        assertion = self.issuer.assertion(**{"iss": f"https://{row.name}.test", **shifted})
        of = OciSource(f"https://{DOMAIN}", row.client[0], "/x", asks_for="rpst" if row.asks_for == "rpst" else "upst",
                       resource_type="credwireworkload" if row.asks_for == "rpst" else "")  # fmt: skip
        source = Source("oci-prod-upst", of, "prod", 3600, "oci-test", row.principal)
        secret = Secret(row.client[1])
        ask = oci.build(source, secret, Secret(assertion), DER)
        more = [("authorization", ask.authorization.reveal().decode()), ("content-length", str(len(ask.body)))]
        reply = send(self.cloud, ask.host, "POST", ask.target, [*ask.headers, *more], ask.body.reveal())
        answered = Answered(reply.status, reply.headers.get("content-type", ""), "", reply.body)
        return oci.parse(source, answered, DER, now, (secret, Secret(assertion), ask.authorization))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Issuer(tmp_path_factory.mktemp("issuer")) as issuer:
        trusts = []
        for row in ROWS:
            trust = issuer.trust(
                **{"name": row.name, "issuer": f"https://{row.name}.test", "oauthClients": ["exchange-app", "sleeping-app"]}
            )
            trust = {name: value for name, value in (trust | row.trust).items() if name not in row.leave_out}
            if "publicKeyEndpoint" not in trust:
                trust["publicCertificate"] = _another_certificate()
            trusts.append(trust)
        config = issuer.cloud_config(trusts=trusts)
        config["clients"] = [*config["clients"], {"id": "sleeping-app", "secret": "sleeping-secret", "active": False}]
        config["users"] = [*config["users"], {"name": "svc-other"}]
        with RunningCloud(tmp_path_factory.mktemp("cloud"), config) as cloud:
            yield Scene(issuer, cloud)


def _another_certificate() -> str:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "another issuer")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key()).serial_number(7)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(KEY, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_fault_of_a_trust_has_its_error_reason_detail_and_advice(scene: Scene, row: Row) -> None:
    """One thing is wrong in each row; rows with nothing wrong stand beside them."""
    outcome = scene.asks(row)
    if not row.error:
        assert isinstance(outcome, Yielded), outcome
        assert outcome.principal == row.principal
        return
    assert isinstance(outcome, Failed), "a token was given"
    assert outcome.reason is Reason.EXCHANGE_REFUSED
    assert f"error {row.error}: " in outcome.detail, outcome.detail
    assert row.says in outcome.detail, outcome.detail
    assert outcome.detail.startswith('source "oci-prod-upst": answered 40'), outcome.detail
    assert ADVICE[row.error] in outcome.detail.rpartition("; ")[2], outcome.detail


def test_an_algorithm_that_the_trust_does_not_take_is_refused_though_the_key_is_right(scene: Scene) -> None:
    """RS512 by the issuer's own key: the trust documents RS256."""
    claims = jwt.decode(scene.issuer.assertion(iss="https://good.test"), options={"verify_signature": False})
    forged = jwt.encode(claims, scene.issuer.key, algorithm="RS512", headers={"kid": scene.issuer.kid})
    source = Source("s", OciSource(f"https://{DOMAIN}", "exchange-app", "/x"), "prod", 3600, "oci-test", "svc-oci-cli")
    ask = oci.build(source, Secret("exchange-secret"), Secret(forged), DER)
    more = [("authorization", ask.authorization.reveal().decode()), ("content-length", str(len(ask.body)))]
    reply = send(scene.cloud, ask.host, "POST", ask.target, [*ask.headers, *more], ask.body.reveal())
    assert (reply.status, reply.json()["error"]) == (400, GRANT)


def test_every_row_is_in_the_reference_page() -> None:
    """docs/reference/source-oci.md lists what each error code means."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "source-oci.md").read_text()
    for code in {row.error for row in ROWS} - {""}:
        assert f"`{code}`" in page
