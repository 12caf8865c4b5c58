"""
Make and read session tokens: of user principals, of resource principals, of instances.

In: the domain's key, the subject, the caller's public key, the time.  Out: a JWT that the API endpoints accept while it lives.
``jwk`` is a JSON *string* inside the claims, as in Oracle's own session tokens.  Pure.
"""

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

ISSUER = "authService.oracle.com"
_ALGORITHM = "RS256"


class TokenRefused(Exception):
    """The token is not ours, not whole or not alive."""


def mint_upst(
    domain_key: RSAPrivateKey,
    *,
    kid: str,
    subject: str,
    tenancy: str,
    public_key: RSAPublicKey,
    now: float,
    life_s: int,
    token_id: str,
    kind: tuple[str, str] = ("user", "upst"),
    resource_type: str = "",
) -> str:
    """Sign a token for ``subject`` that works with the private half of ``public_key`` only; ``kind`` is ``ptype`` and ``ttype``."""
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public_key))
    claims = {
        "iss": ISSUER,
        "aud": "oci",
        "sub": subject,
        "tenant": tenancy,
        "opc-tenant": tenancy,
        "ptype": kind[0],
        "ttype": kind[1],
        **({"res_type": resource_type} if resource_type else {}),
        "iat": int(now),
        "exp": int(now) + life_s,
        "sess_exp": int(now) + life_s,
        "jti": token_id,
        "jwk": json.dumps({"kty": "RSA", "n": jwk["n"], "e": jwk["e"], "alg": _ALGORITHM, "use": "sig", "kid": token_id}),
    }
    return jwt.encode(claims, domain_key, algorithm=_ALGORITHM, headers={"kid": kid})


def read_upst(token: str, domain_key: RSAPublicKey, now: float) -> tuple[str, RSAPublicKey]:
    """Give (subject, key of the caller) of a token that the domain signed and that lives at ``now``.  Raises TokenRefused."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token, domain_key, algorithms=[_ALGORITHM], audience="oci", issuer=ISSUER, options={"verify_exp": False, "verify_iat": False}
        )
        jwk = json.loads(claims["jwk"])
        key = jwt.PyJWK.from_dict(jwk).key
        subject, expires = claims["sub"], float(claims["exp"])
    except (jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
        raise TokenRefused(f"token: {error}") from error
    if now >= expires:
        raise TokenRefused("token has expired")
    if not isinstance(key, RSAPublicKey) or not isinstance(subject, str):
        raise TokenRefused("token carries no RSA key or no subject")
    return subject, key
