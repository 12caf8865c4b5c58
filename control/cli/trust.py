"""
Which variables make which clients trust a bundle.

In: the bundle of an identity and the environment a program would get.  Out: what to set.  Sources: the clients' own manuals, each tried
(docs/cli.md, "Trust").  A variable is never set to an empty value: an empty REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE turns verification off in
Python requests and in the OCI SDK.  Pure.
"""

import re
from collections.abc import Mapping
from typing import Final

VARIABLES: Final[dict[str, str]] = {
    "REQUESTS_CA_BUNDLE": "Python requests, OCI CLI and SDK, Azure and Google SDKs",
    "AWS_CA_BUNDLE": "AWS CLI, boto3",
    "CURL_CA_BUNDLE": "curl",
    "SSL_CERT_FILE": "OpenSSL programs, Go, Python ssl, httpx",
    "NODE_EXTRA_CA_CERTS": "Node",
    "GIT_SSL_CAINFO": "git",
    "CARGO_HTTP_CAINFO": "cargo",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "gRPC",
}
"""Variable to who reads it.  A JVM reads none of them: it wants a trust store file."""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
"""A resource's name; in particular no path."""


def settings(bundle: str) -> dict[str, str]:
    """Give the variables for the bundle at ``bundle``.  Raises ValueError rather than say an empty path."""
    if not bundle:
        raise ValueError("a bundle's path is never empty")
    return dict.fromkeys(VARIABLES, bundle)


def previous(environment: Mapping[str, str], ours: str) -> tuple[str, ...]:
    """Name the files that the environment points clients at now, other than ``ours``; each once."""
    found = (environment.get(name, "") for name in VARIABLES)
    return tuple(dict.fromkeys(path for path in found if path and path != ours))


def certificates(pem: bytes) -> list[bytes]:
    """Give the base64 of each certificate of a bundle, white space removed so that two bundles compare."""
    return [b"".join(match.split()) for match in _CERTIFICATE.findall(pem)]


def added(ours: bytes, others: list[bytes]) -> bytes:
    """
    Give ``ours`` with the certificates of ``others`` that it lacks, or ``ours`` itself when it lacks none.

    A client that already trusted a private CA goes on trusting it.
    """
    known = set(certificates(ours))
    lacking: list[bytes] = []
    for other in others:
        for certificate in certificates(other):
            if certificate not in known:
                known.add(certificate)
                lacking.append(certificate)
    if not lacking:
        return ours
    return ours.rstrip(b"\n") + b"\n" + b"".join(map(_pem, lacking))


def _pem(certificate: bytes) -> bytes:
    lines = b"\n".join(certificate[at : at + 64] for at in range(0, len(certificate), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
