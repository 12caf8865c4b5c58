"""The assertion and the JWKS, checked with joserfc's verifier."""

import json

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import KeySet

from control.credential.jwt import LIFE_S, IssuerKey, assertion, jwks

KEYS = (IssuerKey.of(ec.generate_private_key(ec.SECP256R1())), IssuerKey.of(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
SPIFFE_ID = "spiffe://corp.example/ops/oci-cli"


def test_an_assertion_verifies_against_the_jwks_and_says_who_and_for_whom() -> None:
    """Both algorithms; every claim that identity domains ask for; five minutes at most."""
    published = KeySet.import_key_set(json.loads(jwks(KEYS)))
    for key in KEYS:
        token = assertion(key, issuer="https://issuer.example", subject=SPIFFE_ID, audience="oci-prod", now=1_800_000_000, token_id="id1")
        read = jwt.decode(token.reveal().decode(), published, algorithms=[key.algorithm])
        assert read.header["kid"] == key.kid
        claims = read.claims
        assert (claims["iss"], claims["sub"], claims["aud"], claims["jti"]) == ("https://issuer.example", SPIFFE_ID, "oci-prod", "id1")
        assert claims["exp"] - claims["iat"] <= LIFE_S == 300
        assert claims["iat"] <= 1_800_000_000 < claims["exp"]


def test_the_jwks_holds_public_halves_only() -> None:
    """No private member of RFC 7518, and each key says how it is used."""
    for entry in json.loads(jwks(KEYS))["keys"]:
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & entry.keys()
        assert entry["use"] == "sig"
        assert entry["alg"] in ("ES256", "RS256")
