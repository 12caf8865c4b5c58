"""Documents that the tests change one line at a time."""

GOOD = """\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {name: oci-cli}
spec:
  owner: team@example.org
  workloadID: ops/oci-cli
  environment: prod
  selectors:
    - unix:uid: 1001
      unix:exe:path: /usr/bin/python3.11
      script:path: /opt/oci/bin/oci
  egress: open
---
apiVersion: credwire/v1alpha1
kind: Federation
metadata: {name: oci-domain}
spec:
  owner: team@example.org
  issuer: self
  audience: oci-prod
  subjectRule: "sub eq spiffe://corp.example/ops/oci-cli"
  principal: svc-oci-cli
  reviewedAt: 2026-01-01
  reviewEvery: 30d
---
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {name: oci-upst}
spec:
  owner: team@example.org
  federation: oci-domain
  environment: prod
  ttlCap: 30m
  oci:
    domain: https://idcs-1.identity.oraclecloud.com
    clientAuth: {basic: {clientId: app, clientSecretFile: /etc/credwire/secrets/oci}}
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {name: oci-prod}
spec:
  owner: team@example.org
  identity: oci-cli
  source: oci-upst
  mode: enforce
  destinations:
    - hosts: ["*.us-ashburn-1.oraclecloud.com"]
      ports: [443]
      methods: [GET]
      paths: ["/20160918/users*"]
  delivery: {wire: {signer: oci}}
  onLeaseFailure: refuse
  onDaemonDown: refuse
"""

SECOND = """\
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {name: second}
spec:
  owner: team@example.org
  identity: oci-cli
  source: oci-upst
  destinations:
    - {hosts: ["*.us-ashburn-1.oraclecloud.com"], paths: ["/20160918/users*"]}
  delivery: {wire: {signer: oci}}
"""
"""A binding that ties with the first; 57 lines stand before it when it follows GOOD."""


def changed(old: str, new: str) -> str:
    """GOOD with one thing changed."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)
