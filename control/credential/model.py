"""
What an exchange yields and a signer uses.

In: nothing.  Out: the types of the credential stage.  Times are seconds of a clock that the user chooses; none is read here.  Pure.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from control.secret import Secret


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """What a lease belongs to.  Two identities never share a credential, even from one source (attacks: H13)."""

    source: str
    identity: str


@dataclass(frozen=True, slots=True)
class Issue:
    """One rotation of a lease: token and key of one generation, never mixed with another's."""

    number: int
    """Counts the issues of one lease from 1."""
    token: Secret
    session_key: RSAPrivateKey | None
    """Fresh for this token; it never leaves the keys process.  None where the token alone is the credential."""
    got_at: float
    expires_at: float
    """The token's own end or the source's ttlCap, whichever comes first."""
    principal: str
    wall_expires_at: float
    """The same end in Unix seconds, for people."""
    source: str = ""
    """Name of the source, for what a signer says of the secret."""
