"""
Make what must be random: keys, serial numbers, token ids.

In: nothing.  Out: fresh keys of the kinds we use.  Apart from the rest so that everything else takes them as arguments.
"""

import secrets

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control.credential import seal

SESSION_KEY_BITS = 2048
"""What Oracle's own token exchange uses; larger keys make each signature several times slower for a credential of one hour."""


def session_key() -> rsa.RSAPrivateKey:
    """Make an RSA key for one token: 30 to 200 ms, in a thread (OpenSSL lets the interpreter go on meanwhile)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=SESSION_KEY_BITS)


def issuer_rsa_key() -> rsa.RSAPrivateKey:
    """Make the issuer's RS256 key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def curve_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def serial() -> int:
    """Make a certificate's serial number: 159 random bits (RFC 5280 4.1.2.2)."""
    return x509.random_serial_number()


def token_id() -> str:
    """Make a ``jti``: 128 random bits."""
    return secrets.token_urlsafe(16)


def master() -> bytes:
    """Make the master key of an installation."""
    return secrets.token_bytes(seal.KEY_BYTES)


def nonce() -> bytes:
    """Make the nonce of one sealed file."""
    return secrets.token_bytes(seal.NONCE_BYTES)
