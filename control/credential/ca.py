"""
The certificate authority of one binding, and the leaves it signs.

In: keys, serial numbers and times as arguments.  Out: certificates.
One CA per binding, name-constrained to that binding's hosts and caDomains; no address, e-mail or URI name is possible under it; path
length 0; a leaf carries exactly one DNS name and lives at most 24 hours (attacks: H15).  Rules: RFC 5280 4.2.1.

Rotation: at half life a second CA is made and joins the bundle; leaves go on being signed by the older one until it nears its end, so that
a client that read the bundle any time in the last half year still trusts what it is shown.  Pure.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.errors import Refusal
from control.reason import Reason

CA_LIFE_S = 365 * 86400
LEAF_LIFE_S = 24 * 3600
EARLY_S = 300
"""Certificates begin this much before now, for clients whose clock is a little behind; it counts into their life."""
SIGN_UNTIL_S = 2 * LEAF_LIFE_S
"""A CA with less life left than this signs no more leaves."""
COMMON_NAME_MOST = 64
"""Upper bound of a common name (RFC 5280 A.1 ub-common-name)."""

_NOWHERE = "credwire.invalid"
"""
The only e-mail and URI host the constraint permits, a name that cannot exist (RFC 6761).
RFC 5280 has no form for "no e-mail address at all"; permitting one that nobody can have says it to every verifier.
"""

_KEY_USAGE_CA = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
    key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
_KEY_USAGE_LEAF = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
    key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
_SERVER_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_LEAF_BASIC = x509.BasicConstraints(ca=False, path_length=None)


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA: its key, its certificate and what follows from them."""

    binding: str
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate
    domains: frozenset[str]
    """Permitted DNS subtrees."""
    starts_at: float
    expires_at: float

    @classmethod
    def of(cls, key: EllipticCurvePrivateKey, certificate: x509.Certificate) -> "Authority":
        """
        Read a CA back from its certificate.

        Raises ValueError when the two do not belong together or when the certificate is not one of ours.
        """
        if certificate.public_key() != key.public_key():
            raise ValueError("the certificate is for another key")
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound as error:
            raise ValueError("the certificate has no name constraints") from error
        names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        if len(names) != 1:
            raise ValueError("the certificate names no binding")
        domains = frozenset(n.value for n in constraints.permitted_subtrees or () if isinstance(n, x509.DNSName))
        return cls(
            binding=str(names[0].value), key=key, certificate=certificate, domains=domains,
            starts_at=certificate.not_valid_before_utc.timestamp(), expires_at=certificate.not_valid_after_utc.timestamp(),
        )  # fmt: skip

    def pem(self) -> bytes:
        """Give the certificate as clients hold it."""
        return self.certificate.public_bytes(Encoding.PEM)


def constrained_to(hosts: Iterable[str]) -> frozenset[str]:
    """
    Give the DNS subtrees that permit ``hosts``: ``*.x`` becomes ``x``.

    A subtree also permits names below it (RFC 5280 4.2.1.10); leaves are narrower still, and exact.
    """
    names = {host.removeprefix("*.") for host in hosts}
    return frozenset(n for n in names if not any(n.endswith("." + other) for other in names))


def make(binding: str, domains: frozenset[str], key: EllipticCurvePrivateKey, *, now: float, serial: int) -> Authority:
    """Certify ``key`` as the CA of ``binding`` for ``domains``.  Raises ValueError when there is no domain to constrain it to."""
    if not domains:
        raise ValueError(f'binding "{binding}" has no host to constrain its CA to')
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "credwire"),
            # a binding's name is at most 63 characters, ub-organizational-unit-name is 64
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, binding),
            # two CAs of one binding need names that differ: some clients look issuers up by name alone
            x509.NameAttribute(NameOID.COMMON_NAME, f"credwire binding CA {serial & 0xFFFFFFFFFFFFFFFF:016x}"),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    permitted: list[x509.GeneralName] = [x509.DNSName(domain) for domain in sorted(domains)]
    permitted += [x509.RFC822Name(_NOWHERE), x509.UniformResourceIdentifier(_NOWHERE)]
    excluded = [x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")), x509.IPAddress(ipaddress.ip_network("::/0"))]
    start = int(now) - EARLY_S
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_utc(start))
        .not_valid_after(_utc(start + CA_LIFE_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE_CA, critical=True)
        .add_extension(_SERVER_AUTH, critical=False)
        .add_extension(x509.NameConstraints(permitted, excluded), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority.of(key, certificate)


def alive(authorities: Iterable[Authority], domains: frozenset[str], now: float) -> list[Authority]:
    """
    Give those that clients should trust, oldest first: within their life, and permitting nothing the binding no longer names.

    A binding that gained a host keeps its older, narrower CA for the names it had; one that lost a host retires the wider CA at once.
    """
    good = [a for a in authorities if a.starts_at <= now < a.expires_at and _covers_all(domains, a.domains)]
    return sorted(good, key=lambda a: a.starts_at)


def wants_another(authorities: Sequence[Authority], domains: frozenset[str], now: float) -> bool:
    """Whether a CA must be made: none permits all of ``domains``, or the youngest that does is past half its life."""
    whole = [a for a in alive(authorities, domains, now) if a.domains == domains]
    return not whole or now >= (whole[-1].starts_at + whole[-1].expires_at) / 2


def signing(authorities: Sequence[Authority], domains: frozenset[str], name: str, now: float) -> Authority | None:
    """Choose the CA for a leaf: the oldest living one that permits ``name`` and is not about to end."""
    for authority in alive(authorities, domains, now):
        if authority.expires_at - now >= SIGN_UNTIL_S and _covers(authority.domains, name):
            return authority
    return None


def leaf(authority: Authority, name: str, public_key_der: bytes, *, now: float, serial: int) -> tuple[bytes, float] | Refusal:
    """Certify ``public_key_der`` (P-256 SubjectPublicKeyInfo) for exactly ``name``; give PEM and the end of its life, or the refusal."""
    try:
        public_key = load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm):
        return Refusal(Reason.REQUEST_MALFORMED, "the leaf's public key is not DER SubjectPublicKeyInfo")
    if not isinstance(public_key, EllipticCurvePublicKey) or not isinstance(public_key.curve, SECP256R1):
        return Refusal(Reason.REQUEST_MALFORMED, "the leaf's public key is not on P-256")
    start = int(now) - EARLY_S
    end = min(start + LEAF_LIFE_S, int(authority.expires_at))
    # the name stands in the subject for people only; one that is too long leaves the subject empty, and then the SAN must be critical
    short = len(name) <= COMMON_NAME_MOST
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if short else [])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(_utc(start))
        .not_valid_after(_utc(end))
        .add_extension(_LEAF_BASIC, critical=True)
        .add_extension(_KEY_USAGE_LEAF, critical=True)
        .add_extension(_SERVER_AUTH, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=not short)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_identifier(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), float(end)


def _authority_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _covers(domains: Iterable[str], name: str) -> bool:
    return any(name == domain or name.endswith("." + domain) for domain in domains)


def _covers_all(domains: Iterable[str], names: Iterable[str]) -> bool:
    wide = tuple(domains)
    return all(_covers(wide, name) for name in names)


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
