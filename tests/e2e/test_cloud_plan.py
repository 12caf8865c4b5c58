"""``credwire federation plan``: what it prints makes the stand-in's domain exchange for this workload only.  Needs loopback only."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.net import REPOSITORY
from tests.e2e.lib.talk import Issuer, exchange

EXAMPLE = REPOSITORY / "docs" / "examples" / "oci-cli.yaml"


class Desk:
    """A resources directory and the command line; neither root nor a daemon."""

    def __init__(self, base: Path, issuer_url: str) -> None:
        self.resources, self.config = base / "resources", base / "credwired.yaml"
        self.resources.mkdir()
        self.config.write_text(f"trustDomain: corp.example\nissuerUrl: {issuer_url}\npaths: {{resources: {self.resources}}}\n")
        self.write()

    def write(self, *changes: tuple[str, str]) -> None:
        """Write the example, changed."""
        text = EXAMPLE.read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (self.resources / "oci-cli.yaml").write_text(text)

    def credwire(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "control.cli.main", "--config", str(self.config), "federation", *words]
        return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)

    def plan(self, *words: str) -> dict[str, Any]:
        done = self.credwire("plan", "oci", *words, "-o", "json")
        assert done.returncode == 0, done.stderr
        (made,) = json.loads(done.stdout)
        return dict(made)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    with Issuer(tmp_path / "issuer") as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, issuer: Issuer) -> Desk:
    return Desk(tmp_path, issuer.url)


def test_the_planned_trust_exchanges_for_the_workload_and_nobody_else(tmp_path: Path, desk: Desk, issuer: Issuer) -> None:
    """The JSON as printed, its <> filled in: right subject and audience pass, another subject, audience or client does not."""
    plan = desk.plan()
    (trust,) = plan["trusts"]
    assert trust["schemas"] == ["urn:ietf:params:scim:schemas:oracle:idcs:IdentityPropagationTrust"]
    assert trust["publicKeyEndpoint"] == f"{issuer.url}/jwks"
    (user,) = plan["service_users"]
    (client,) = (entry["clientId"] for entry in plan["applications"] if entry["for"] == "exchange")
    filled = json.loads(json.dumps(trust).replace(f"<id of service user {user['userName']}>", user["userName"]))
    del filled["schemas"]
    filled |= {
        "publicKeyEndpoint": issuer.jwks,
        "publicKeyEndpointRoots": str(issuer.roots),
    }  # the issuer of the tests has a port of its own
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    config = issuer.cloud_config(trusts=[filled], users=[{"name": user["userName"]}], clients=[{"id": client, "secret": "s"},
                                                                                            {"id": "another", "secret": "s"}])  # fmt: skip
    me, audience = "spiffe://corp.example/ops/oci-cli", filled["clientClaimValues"][0]
    with RunningCloud(tmp_path / "cloud", config) as cloud:
        assert exchange(cloud, issuer.assertion(sub=me, aud=audience), key, client=f"{client}:s").status == 200
        for claims, as_client in (
            ({"sub": f"{me}2", "aud": audience}, client),
            ({"sub": me, "aud": "another"}, client),
            ({"sub": me, "aud": audience}, "another"),
        ):
            assert exchange(cloud, issuer.assertion(**claims), key, client=f"{as_client}:s").status in (400, 401)


def test_the_text_names_everything_an_administrator_creates(desk: Desk) -> None:
    """Applications, service user, trust, policy, in this order; the same words as the JSON."""
    done = desk.credwire("plan", "oci")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert [step.split(".")[0] for step in steps] == ["1", "2", "3", "4"]
    for word in ("credwire-exchange", '"serviceUser": true', '"active": true', '"sub eq spiffe://corp.example/ops/oci-cli"', "Allow group"):
        assert word in done.stdout, word
    assert done.stderr == ""


def test_one_application_for_both_is_warned_of(desk: Desk) -> None:
    """Whoever could exchange could change the trust too."""
    done = desk.credwire("plan", "oci", "--setup-client", "credwire-exchange")
    assert 'credwire: warning: application "credwire-exchange" would both exchange and change trusts' in done.stderr
    assert desk.credwire("plan", "oci", "--setup-client", "credwire-setup").stderr == ""


def test_a_rule_for_everybody_is_refused(desk: Desk) -> None:
    """``sub eq *`` and ``sub co`` are no plan: exit 1, the place, what to write."""
    for rule in ("sub eq *", "sub co corp.example"):
        desk.write(("sub eq spiffe://corp.example/ops/oci-cli", rule))
        done = desk.credwire("plan", "oci")
        assert (done.returncode, done.stdout) == (1, "")
        assert "trusts more than one workload" in done.stderr
        assert "hint: write sub eq with the whole SPIFFE ID" in done.stderr


def test_an_instance_and_a_resource_have_plans_of_their_own(desk: Desk) -> None:
    """No exchanging application, a trust for resources without impersonation, a policy over request.principal."""
    text = EXAMPLE.read_text()
    start = text.index("    clientAuth:")
    end = text.index("  ttlCap:", start) if "  ttlCap:" in text[start:] else text.index("---", start)
    client = text[start:end]
    desk.write((client, "    clientAuth: instancePrincipal\n    token: rpst\n    resourceType: credwireworkload\n"))
    plan = desk.plan("oci-prod-upst")
    assert [entry["for"] for entry in plan["applications"]] == ["set-up"]
    assert plan["service_users"] == []
    (trust,) = plan["trusts"]
    assert (trust["subjectType"], "allowImpersonation" in trust, "impersonationServiceUsers" in trust) == ("Resource", False, False)
    assert "request.principal.type = 'credwireworkload'" in plan["policies"][0]
    assert any("instance principal" in warning for warning in plan["warnings"])


def test_unknown_names_and_no_sources_are_said(desk: Desk) -> None:
    """With the names that there are."""
    done = desk.credwire("plan", "oci", "nobody")
    assert done.returncode == 1
    assert 'there is no source "nobody" of kind oci' in done.stderr
    assert "oci-prod-upst" in done.stderr
    (desk.resources / "oci-cli.yaml").unlink()
    assert "there is no source of kind oci" in desk.credwire("check").stderr


def test_check_without_issuer_domain_or_daemon_says_each(desk: Desk) -> None:
    """Three questions, three answers, each with what to try; exit 1."""
    done = desk.credwire("check")
    assert done.returncode == 1, done.stderr
    assert "red   issuer https://issuer.corp.test: its name does not resolve" in done.stdout
    assert "red   domain https://idcs-" in done.stdout
    assert "warn  exchange: not asked: " in done.stdout
    assert done.stdout.count("      try: ") == 3
