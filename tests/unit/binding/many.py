"""
Large sets, for tests and measurements of their growth.

In: how many bindings.  Out: the text of each binding's documents.
"""

_EACH = """\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: app-{n}}}
spec:
  owner: team@example.org
  workloadID: apps/app-{n}
  environment: prod
  selectors:
    - unix:uid: {uid}
      unix:exe:path: /opt/app/bin/app
---
apiVersion: credwire/v1alpha1
kind: CredentialSource
metadata: {{name: key-{n}}}
spec:
  owner: team@example.org
  environment: prod
  static: {{file: /etc/credwire/secrets/key-{n}}}
  reviewedAt: 2026-01-01
  reviewEvery: 90d
---
apiVersion: credwire/v1alpha1
kind: WorkloadCredential
metadata: {{name: binding-{n}}}
spec:
  owner: team@example.org
  identity: {identity}
  source: {source}
  mode: enforce
  destinations:
    - hosts: [{host}]
      methods: [GET]
      paths: ["{path}"]
  delivery: {{wire: {{signer: header, header: x-api-key}}}}
"""


def many(
    count: int, *, identity: str = "app-{n}", source: str = "key-{n}", host: str = "api-{n}.example.com", path: str = "/v1/*"
) -> list[str]:
    """Give the documents of ``count`` bindings, each of an identity and a source of its own unless named otherwise."""
    return [
        _EACH.format(
            n=n, uid=10_000 + n, identity=identity.format(n=n), source=source.format(n=n), host=host.format(n=n), path=path.format(n=n)
        )
        for n in range(count)
    ]
