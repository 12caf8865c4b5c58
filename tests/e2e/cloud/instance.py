"""
The auth service's decision: which instance is this?

In: the head and body of a ``POST /v1/x509``, the authority that certifies instances, the time.  Out: an Instance, or FederationRefused.
The chain is verified by ``cryptography``'s client verifier (times, constraints, extended key usage clientAuth), the signature by httpsig;
who may call, what must be covered, freshness and the body's hash are checked here.
Source: X509FederationClient and AuthTokenRequestSigner of Oracle's SDK, read from the far side.  Pure.
"""

import base64
import binascii
import datetime
import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.e2e.cloud.request_signature import Head, SignatureRefused, verify_signature

COVERED = frozenset({"(request-target)", "content-length", "content-type", "x-content-sha256"})
"""Beside date; ``host`` is none of them: the SDK does not sign it here."""


class FederationRefused(Exception):
    """The auth service says no."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Who asks, and for which session key."""

    instance: str
    tenancy: str
    public_key: RSAPublicKey


def read_federation(head: Head, body: bytes, roots_pem: str, now: float) -> Instance:
    """Verify chain, purpose, signature and body.  Raises FederationRefused."""
    if head.method != "POST":
        raise FederationRefused(f"{head.method} is not served")
    if not roots_pem:
        raise FederationRefused("no authority certifies instances here")
    try:
        told: dict[str, Any] = json.loads(body)
        leaf = _certificate(told["certificate"])
        chain = [_certificate(one) for one in told.get("intermediateCertificates", [])]
        public = load_der_public_key(base64.b64decode(told["publicKey"], validate=True))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise FederationRefused(f"the body cannot be read: {type(error).__name__}") from error
    if told.get("purpose") not in (None, "DEFAULT"):
        raise FederationRefused(f'purpose "{told["purpose"]}" is not an instance\'s')
    if not isinstance(public, RSAPublicKey) or public.key_size < 2048:
        raise FederationRefused("publicKey is not RSA of 2048 bits or more")
    _verify_chain(leaf, chain, roots_pem, now)
    key = leaf.public_key()
    if not isinstance(key, RSAPublicKey):
        raise FederationRefused("the certificate's key is not RSA")
    tenancy, instance = _subject(leaf, "opc-tenant:"), _subject(leaf, "opc-instance:")
    key_id = f"{tenancy}/fed-x509/{leaf.fingerprint(SHA1()).hex(':').upper()}"  # noqa: S303  # the name of the key
    try:
        given, digest = verify_signature(head, key, COVERED, now)
    except SignatureRefused as refused:
        raise FederationRefused(str(refused)) from refused
    if given != key_id:
        raise FederationRefused("the key id is not tenancy and fingerprint of the certificate")
    if digest != hashlib.sha256(body).digest():
        raise FederationRefused("the body's hash is not x-content-sha256")
    return Instance(instance, tenancy, public)


def _certificate(encoded: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(encoded, validate=True))


def _verify_chain(leaf: x509.Certificate, chain: list[x509.Certificate], roots_pem: str, now: float) -> None:
    store = Store(x509.load_pem_x509_certificates(roots_pem.encode()))
    at = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)
    try:
        PolicyBuilder().store(store).time(at).build_client_verifier().verify(leaf, chain)
    except (VerificationError, ValueError) as error:
        raise FederationRefused(f"the certificate does not verify: {error}") from error


def _subject(leaf: x509.Certificate, prefix: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [str(entry.value).removeprefix(prefix) for entry in leaf.subject if str(entry.value).startswith(prefix)]
    if len(found) != 1:
        raise FederationRefused(f"the certificate's subject has {len(found)} {prefix}")
    return found[0]
