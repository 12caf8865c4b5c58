"""
The kinds of sources there are: one file and one row each.

In: nothing.  Out: SOURCES by the field that names them in a CredentialSource.  Pure.
"""

from typing import Any

from control.binding.source import oci, static
from control.binding.source.kind import SourceKind

_OCI: dict[str, Any] = {
    "type": "object",
    "description": "an OCI identity domain that exchanges our JWT",
    "additionalProperties": False,
    "required": ["domain", "clientAuth"],
    "properties": {
        "domain": {"type": "string", "pattern": "^https://[^/?#@]+/?$", "description": "https://host[:port] of the identity domain"},
        "clientAuth": {
            "description": "how the exchange shows the domain who asks",
            "oneOf": [
                {"const": "instancePrincipal"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["basic"],
                    "properties": {
                        "basic": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["clientId", "clientSecretFile"],
                            "properties": {
                                "clientId": {"type": "string", "maxLength": 255},
                                "clientSecretFile": {"type": "string", "pattern": "^/", "description": "root-only file"},
                            },
                        }
                    },
                },
            ],
        },
        "metadata": {"type": "string", "pattern": "^http://", "description": "the instance's metadata service, for instancePrincipal"},
        "token": {"enum": ["upst", "rpst"], "default": "upst", "description": "a user's or a resource's session token"},
        "resourceType": {"type": "string", "maxLength": 64, "description": "res_type of an RPST"},
        "upstreamRoots": {"type": "string", "pattern": "^/", "description": "root-owned PEM file of CA certificates"},
    },
}

SOURCES: dict[str, SourceKind] = {
    oci.NAME: SourceKind(oci.read, (oci.SIGNER,), _OCI),
    static.NAME: SourceKind(static.read, static.SIGNERS, static.SHAPE, federated=False, reviewed=True, private=True),
}
LATER = frozenset({"aws", "gcp", "azure", "vault", "oauth2", "githubApp"})
"""Kinds that people will look for; refused by name."""
