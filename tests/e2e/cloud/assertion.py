"""
Verify the workload's JWT against a trust.

In: the compact JWT, the trust, the issuer's JWKS document and the time.  Out: its claims, or ExchangeRefused.
Verification is PyJWT's; the times are compared here because the clock is an argument.  Pure.
"""

import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography import x509
from jwt.types import Options

from tests.e2e.cloud.model import Trust

_SIGNATURE_ONLY: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""The claims are compared below, against the trust and a clock that is an argument."""


class ExchangeRefused(Exception):
    """The token endpoint says no: ``error`` is the OAuth2 code, ``why`` the description, ``status`` the HTTP status."""

    def __init__(self, error: str, why: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {why}")
        self.error, self.why, self.status = error, why, status


class UnknownKid(Exception):
    """The JWKS holds no such key: the caller may fetch it afresh, once."""


def unverified_issuer(token: str) -> str:
    """Read ``iss`` only to find the trust; nothing else is believed before the signature was checked."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise ExchangeRefused("invalid_grant", f"the subject token is not a JWT: {error}") from error
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise ExchangeRefused("invalid_grant", "the subject token has no issuer")
    return issuer


def _key_of_jwks(token: str, jwks: bytes) -> Any:
    kid = jwt.get_unverified_header(token).get("kid")
    try:
        keys = json.loads(jwks)["keys"]
        found = [key for key in keys if kid is None or key.get("kid") == kid]
        if not found:
            raise UnknownKid(f'no key "{kid}" at the issuer')
        if len(found) > 1:
            raise ExchangeRefused("invalid_grant", "the issuer has several keys and the subject token names none")
        if found[0].get("use", "sig") != "sig":
            raise ExchangeRefused("invalid_grant", f'key "{kid}" of the issuer is not for signatures')
        if private := {"d", "p", "q", "k"} & set(found[0]):
            raise ExchangeRefused("invalid_grant", f"the issuer publishes private members {sorted(private)}")
        return jwt.PyJWK.from_dict(found[0]).key
    except (ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise ExchangeRefused("invalid_grant", f"the issuer's key set cannot be read: {error}") from error


def _key_of_certificate(pem: str) -> Any:
    return x509.load_pem_x509_certificate(pem.encode()).public_key()


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExchangeRefused("invalid_grant", f"the subject token's {name} is missing or no number")
    return float(value)


def verify_assertion(token: str, trust: Trust, jwks: bytes | None, now: float) -> dict[str, Any]:
    """Give the claims of a token that the trust's issuer signed and that is valid at ``now``.  Raises ExchangeRefused, UnknownKid."""
    key = _key_of_certificate(trust.public_certificate) if jwks is None else _key_of_jwks(token, jwks)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(trust.algorithms),
            options=_SIGNATURE_ONLY,
        )
    except (jwt.PyJWTError, TypeError, ValueError) as error:  # TypeError: an RSA key under an ES256 header and the like
        raise ExchangeRefused("invalid_grant", f"the subject token does not verify: {error}") from error
    if claims.get("iss") != trust.issuer:
        raise ExchangeRefused("invalid_grant", "the subject token's issuer is not the trust's")
    skew = trust.clock_skew_seconds
    if now >= _seconds(claims, "exp") + skew:
        raise ExchangeRefused("invalid_grant", "the subject token has expired")
    if _seconds(claims, "iat") > now + skew:
        raise ExchangeRefused("invalid_grant", "the subject token was issued in the future")
    if "nbf" in claims and _seconds(claims, "nbf") > now + skew:
        raise ExchangeRefused("invalid_grant", "the subject token is not valid yet")
    if trust.audience:
        held = claims.get("aud")
        if trust.audience not in (held if isinstance(held, list) else [held]):
            raise ExchangeRefused("invalid_grant", "the subject token is for another audience")
    if trust.client_claim_name:
        held = claims.get(trust.client_claim_name)
        if not set(held if isinstance(held, list) else [held]) & set(trust.client_claim_values):
            raise ExchangeRefused("invalid_grant", f"the subject token's {trust.client_claim_name} is not one of the trust's")
    if not isinstance(claims.get(trust.subject_claim_name), str):
        raise ExchangeRefused("invalid_grant", f"the subject token has no {trust.subject_claim_name}")
    return claims
