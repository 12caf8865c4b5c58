"""
The assertion that an identity domain exchanges, and the issuer's public keys.

In: the issuer's keys, times and ids as arguments.  Out: a signed JWT and the JWKS.
Rules: SPIFFE JWT-SVID (sub is the SPIFFE ID; aud and exp required), RFC 7515, 7517, 7519.  Pure.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from control.secret import Secret

LIFE_S = 300
"""Life of an assertion: it is used once, at once."""
EARLY_S = 10
"""``iat`` lies this far back: the identity domain's clock may be behind ours."""

Algorithm = Literal["ES256", "RS256"]


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key of the issuer, with the name by which the JWKS lists it."""

    kid: str
    """RFC 7638 thumbprint of the public key."""
    algorithm: Algorithm
    key: EllipticCurvePrivateKey | RSAPrivateKey

    @classmethod
    def of(cls, key: EllipticCurvePrivateKey | RSAPrivateKey) -> "IssuerKey":
        """Name a key after itself; P-256 signs ES256, RSA signs RS256."""
        algorithm: Algorithm = "RS256" if isinstance(key, RSAPrivateKey) else "ES256"
        return cls(kid=_public_jwk(key).thumbprint(), algorithm=algorithm, key=key)


def _public_jwk(key: EllipticCurvePrivateKey | RSAPrivateKey) -> RSAKey | ECKey:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return RSAKey.import_key(pem) if isinstance(key, RSAPrivateKey) else ECKey.import_key(pem)


def assertion(key: IssuerKey, *, issuer: str, subject: str, audience: str, now: float, token_id: str) -> Secret:
    """Sign the workload's JWT.  ``subject`` is its SPIFFE ID, ``now`` Unix seconds, ``token_id`` unique."""
    issued = int(now) - EARLY_S
    claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": issued, "exp": issued + LIFE_S, "jti": token_id}
    signer = RSAKey.import_key(key.key) if isinstance(key.key, RSAPrivateKey) else ECKey.import_key(key.key)
    header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
    return Secret(jws.serialize_compact(header, json.dumps(claims).encode(), signer, algorithms=[key.algorithm]))


def jwks(keys: tuple[IssuerKey, ...]) -> bytes:
    """Give the JWKS document: public halves only, of every key that still verifies something."""
    entries: list[dict[str, Any]] = [
        {**_public_jwk(key.key).as_dict(private=False), "kid": key.kid, "use": "sig", "alg": key.algorithm} for key in keys
    ]
    return json.dumps({"keys": entries}, sort_keys=True).encode()
