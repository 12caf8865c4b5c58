"""
C5: trust that is wider than anybody meant.  Each over-broad form is refused, by ``credwire validate`` as by a reload, with the rule's name.

The command line is the installed one, run as anybody would; nothing of credwire needs to run.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from control.binding.rule import RULES
from tests.unit.binding.bad_static import ORDERS
from tests.unit.binding.docs import GOOD

WHOLE = GOOD + "---\n" + ORDERS
GROUP = "unix:exe:path: /usr/bin/python3.11\n      script:path: /opt/oci/bin/oci\n"
SUBJECT = '"sub eq spiffe://corp.example/ops/oci-cli"'
HOST = '["*.us-ashburn-1.oraclecloud.com"]'
FEDERATION = "kind: Federation\nmetadata: {name: oci-domain}\nspec:\n  owner: team@example.org\n"

BROAD = [
    ("one-subject", SUBJECT, '"sub eq *"'),
    ("one-subject", SUBJECT, '"sub eq spiffe://corp.example/*"'),
    ("one-subject", SUBJECT, '"sub co spiffe://corp.example"'),
    ("one-audience", "audience: oci-prod", "audience: [oci-prod, oci-test]"),
    ("one-audience", "audience: oci-prod", 'audience: "*"'),
    ("one-principal", "principal: svc-oci-cli", 'principal: "svc-*"'),
    ("short-lived", "ttlCap: 30m", "ttlCap: 365d"),
    ("short-lived", "ttlCap: 30m", "ttlCap: 25h"),
    ("owner-named", FEDERATION, FEDERATION.replace("  owner: team@example.org\n", "")),
    ("owner-named", FEDERATION, FEDERATION.replace("team@example.org", "")),
    ("static-reviewed", "  reviewedAt: 2026-01-01\n  reviewEvery: 90d\n", ""),
    ("review-yearly", "reviewEvery: 90d", "reviewEvery: 3650d"),
    ("one-environment", "environment: prod\n  static", "environment: test\n  static"),
    ("stale-bounded", "onLeaseFailure: refuse", "onLeaseFailure: {stale: 7d}"),
    ("named-host", HOST, '["*"]'),
    ("named-host", HOST, '["*.com"]'),
    ("named-network", "ports: [443]", "networks: [0.0.0.0/0]"),
    ("named-network", "ports: [443]", 'networks: ["::/0"]'),
    ("one-program", GROUP, "unix:exe:path: /usr/bin/python3.11\n"),
    ("one-program", GROUP, "unix:exe:path: /bin/bash\n"),
    ("one-program", "    - unix:uid: 1001\n      " + GROUP, "    - {}\n"),
    ("no-relay", GROUP, "unix:exe:path: /usr/bin/socat\n"),
    ("no-root", "unix:uid: 1001", "unix:uid: 0"),
]


def validate(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run ``credwire validate``."""
    command = [str(Path(sys.executable).with_name("credwire")), "validate", str(directory), "--trust-domain", "corp.example"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(("rule", "old", "new"), BROAD, ids=[f"{number}-{row[0]}" for number, row in enumerate(BROAD)])
def test_an_overbroad_form_is_refused_with_the_rules_name(tmp_path: Path, rule: str, old: str, new: str) -> None:
    """File, line and column, the rule, and what to write instead; exit code 1 or above, nothing on the way to a set."""
    assert WHOLE.count(old) == 1, old
    (tmp_path / "a.yaml").write_text(WHOLE.replace(old, new))
    told = validate(tmp_path)
    assert told.returncode != 0
    errors = [line for line in told.stderr.splitlines() if f'(rule "{rule}")' in line]
    assert errors, told.stderr
    assert "a.yaml:" in errors[0]
    assert told.stderr.splitlines()[told.stderr.splitlines().index(errors[0]) + 1].startswith("credwire: hint: ")


def test_the_narrow_form_beside_them_is_valid(tmp_path: Path) -> None:
    """The success beside the refusals."""
    (tmp_path / "a.yaml").write_text(WHOLE)
    told = validate(tmp_path)
    assert (told.returncode, told.stderr.count("credwire: error")) == (0, 0), told.stderr


def test_each_rule_has_a_refusal() -> None:
    """No rule is only a name."""
    assert {rule for rule, _, _ in BROAD} == set(RULES)
