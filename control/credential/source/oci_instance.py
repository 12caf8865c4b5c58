"""
Speak as the OCI instance that we run on, so that no client secret is stored.

In: what the metadata service and the auth service answered, the session key, the time.  Out: what to ask them; then the signed exchange.
Rules: Oracle's Python SDK 3.95.1 (InstancePrincipalsSecurityTokenSigner, X509FederationClient): leaf certificate, its key and the
intermediates from the metadata service; ``POST https://auth.<region>.<realm's domain>/v1/x509`` signed with the leaf's key as
``<tenancy>/fed-x509/<SHA-1 of the leaf>`` over date, (request-target) and the body's three headers, without host; the answer's token signs
requests as ``ST$<token>`` with the session key, over date, (request-target), host and the body's three.
Both services may be impostors: everything they say is typed, bounded, and quoted only after a look.  Pure.
"""

import base64
import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from control.credential.source.model import Answered, Ask, Look
from control.credential.source.oci import TOKEN_MOST, quoted, read_token
from control.errors import FarSideError
from control.reason import Reason
from control.secret import Secret

EARLY_S = 60.0
"""A token is not used in its last minute: the SDK's margin for clocks that differ."""
CHAIN_MOST = 5
"""Intermediate certificates that are passed on."""

_WANTED = ("instance/regionInfo", "identity/cert.pem", "identity/key.pem", "identity/intermediate.pem")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TENANCY = re.compile(r"[A-Za-z0-9._-]{1,255}")
_PREFIXES = ("opc-tenant:", "opc-identity:")
_HOST_MOST = 253


class _Region(msgspec.Struct, rename="camel"):
    """``/instance/regionInfo``"""

    realm_domain_component: Annotated[str, msgspec.Meta(max_length=_HOST_MOST)]
    region_identifier: Annotated[str, msgspec.Meta(max_length=63)]


class _Body(msgspec.Struct):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=TOKEN_MOST)]


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """What the metadata service says we are."""

    auth_host: str
    tenancy: str
    fingerprint: str
    leaf: str
    """base64 of the DER certificate."""
    intermediates: tuple[str, ...]
    key: RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Held:
    """A live token of the instance and the session key it is bound to."""

    token: Secret
    key: RSAPrivateKey
    expires_at: float
    """Unix seconds."""

    def fresh(self, now: float) -> bool:
        """Whether it can still sign."""
        return now < self.expires_at - EARLY_S


def looks(metadata: str) -> tuple[Look, ...]:
    """Give what to ask the metadata service, in the order that ``read_instance`` wants the answers."""
    url = urlsplit(metadata)
    host, port = url.hostname or "", url.port or 80
    name = f"[{host}]" if ":" in host else host
    headers = (
        ("host", name if port == 80 else f"{name}:{port}"),
        ("authorization", "Bearer Oracle"),  # IMDS v2: a fixed word, no secret; it keeps out requests that somebody was tricked to send
        ("accept-encoding", "identity"),
    )
    return tuple(Look(host, port, f"{url.path.rstrip('/')}/{what}", headers) for what in _WANTED)


def read_instance(answers: Sequence[Answered], now: float) -> Instance:
    """Read the four answers.  Raises FarSideError that names the document and never quotes it."""
    for what, answer in zip(_WANTED, answers, strict=True):
        if answer.status != 200:
            gone = "; instancePrincipal works on OCI instances only" if answer.status == 404 else ""
            raise _malformed(f"{what} is answered with {answer.status}{gone}")
    region, leaf, key, chain = (answer.body for answer in answers)
    leafs = _certificates(_WANTED[1], leaf)
    if len(leafs) != 1:
        raise _malformed(f"{_WANTED[1]} holds {len(leafs)} certificates instead of one")
    certificate = leafs[0]
    if not certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp():
        raise _malformed(f"{_WANTED[1]} is not valid at this time; check the clock")
    private = _private_key(key)
    if _spki(certificate) != private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise _malformed(f"{_WANTED[2]} is not the key of {_WANTED[1]}: they may have been rotated between two looks")
    intermediates = _certificates(_WANTED[3], chain)
    if not 1 <= len(intermediates) <= CHAIN_MOST:
        raise _malformed(f"{_WANTED[3]} holds {len(intermediates)} certificates, 1 to {CHAIN_MOST} are understood")
    return Instance(
        auth_host=_auth_host(region),
        tenancy=_tenancy(certificate),
        fingerprint=certificate.fingerprint(SHA1()).hex(":").upper(),  # noqa: S303  # the name of the key in Oracle's scheme
        leaf=_packed(certificate),
        intermediates=tuple(_packed(one) for one in intermediates),
        key=private,
    )


def _auth_host(raw: bytes) -> str:
    try:
        region = msgspec.json.decode(raw, type=_Region)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(f"{_WANTED[0]} cannot be read") from error
    labels = [region.region_identifier.lower(), *region.realm_domain_component.lower().split(".")]
    host = ".".join(["auth", *labels])
    if len(labels) < 3 or len(host) > _HOST_MOST or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdecimal():
        raise _malformed(f"{_WANTED[0]} names no region and domain")
    return host


def _certificates(what: str, pem: bytes) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Oracle's subjects hold attributes longer than X.520 allows
            return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _malformed(f"{what} is no certificate") from error


def _private_key(pem: bytes) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _malformed(f"{_WANTED[2]} is no private key") from None  # the cause might quote it
    if not isinstance(key, RSAPrivateKey) or key.key_size < 2048:
        raise _malformed(f"{_WANTED[2]} is not RSA of 2048 bits or more")
    return key


def _tenancy(certificate: x509.Certificate) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = [str(attribute.value) for attribute in certificate.subject]
    for value in values:
        for prefix in _PREFIXES:
            found = value.removeprefix(prefix)
            if found != value and _TENANCY.fullmatch(found):
                return found
    raise _malformed(f"{_WANTED[1]} names no tenancy")


def _packed(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ask_token(instance: Instance, session_key: RSAPrivateKey, roots_pem: str, now: float) -> Ask:
    """Give the POST that asks the auth service for a token bound to ``session_key``."""
    public = session_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = json.dumps(
        {"certificate": instance.leaf, "publicKey": base64.b64encode(public).decode(), "intermediateCertificates": instance.intermediates}
    ).encode()
    ask = Ask(
        host=instance.auth_host, port=443, target="/v1/x509",
        headers=(("host", instance.auth_host), ("content-type", "application/json"), ("accept", "application/json"),
                 ("accept-encoding", "identity")),
        authorization=Secret(b""), body=Secret(body), roots_pem=roots_pem,
    )  # fmt: skip
    return _signed(ask, f"{instance.tenancy}/fed-x509/{instance.fingerprint}", instance.key, ("date", "(request-target)"), now)


def read_held(answered: Answered, session_key: RSAPrivateKey, now: float, told: tuple[Secret, ...]) -> Held:
    """Read the auth service's answer.  Raises FarSideError."""
    if answered.status != 200:
        try:
            error = msgspec.json.decode(answered.body, type=_Error)
        except (msgspec.DecodeError, RecursionError):
            raise FarSideError(Reason.EXCHANGE_MALFORMED, f"the auth service answered {answered.status} without a code") from None
        says = f"the auth service answered {answered.status}, error {quoted(error.code, error.message, told)}"
        raise FarSideError(Reason.EXCHANGE_REFUSED, f"{says}; check the instance's certificate and clock")
    public = session_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        body = msgspec.json.decode(answered.body, type=_Body)
    except (msgspec.DecodeError, RecursionError):
        raise FarSideError(Reason.EXCHANGE_MALFORMED, "the auth service's field token cannot be read") from None
    read = read_token(body.token, public, now)
    if isinstance(read, str):
        raise FarSideError(Reason.EXCHANGE_MALFORMED, f"of the auth service: {read}")
    return Held(read.token, session_key, read.expires_at)


def signed(ask: Ask, held: Held, now: float) -> Ask:
    """Sign ``ask`` as the instance."""
    return _signed(ask, f"ST${held.token.reveal().decode('ascii')}", held.key, ("date", "(request-target)", "host"), now)


def _signed(ask: Ask, key_id: str, key: RSAPrivateKey, generic: tuple[str, ...], now: float) -> Ask:
    body = ask.body.reveal()
    fresh = (
        ("date", formatdate(now, usegmt=True)),
        ("content-length", str(len(body))),
        ("x-content-sha256", base64.b64encode(hashlib.sha256(body).digest()).decode()),
    )
    names = (*generic, "content-length", "content-type", "x-content-sha256")
    values = {**dict(ask.headers), **dict(fresh), "(request-target)": f"post {ask.target}"}
    text = "\n".join(f"{name}: {values[name]}" for name in names)
    signature = base64.b64encode(key.sign(text.encode("ascii"), PKCS1v15(), SHA256())).decode()
    authorization = f'Signature algorithm="rsa-sha256",headers="{" ".join(names)}",keyId="{key_id}",signature="{signature}",version="1"'
    headers = (*ask.headers, *((name, value) for name, value in fresh if name != "content-length"))  # https_io writes the length
    return Ask(ask.host, ask.port, ask.target, headers, Secret(authorization), ask.body, ask.roots_pem)


def _malformed(what: str) -> FarSideError:
    return FarSideError(Reason.EXCHANGE_MALFORMED, f"the metadata service: {what}")
