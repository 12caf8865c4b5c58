"""
What one kind of source must say.

In: nothing.  Out: the types that source files and the exchange process share.  Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass

from control.binding.model import Source
from control.credential.jwt import Algorithm
from control.reason import Reason
from control.secret import Secret


@dataclass(frozen=True, slots=True)
class Ask:
    """One POST over verified TLS."""

    host: str
    port: int
    target: str
    headers: tuple[tuple[str, str], ...]
    authorization: Secret
    """Empty where something of the moment signs the request instead (oci_instance.signed)."""
    body: Secret
    roots_pem: str
    """Empty means the system's roots."""


@dataclass(frozen=True, slots=True)
class Look:
    """One GET over plain HTTP at an address of this machine; carries no secret of ours."""

    host: str
    """An address, without brackets."""
    port: int
    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back, whole and bounded."""

    status: int
    content_type: str
    retry_after: str
    """Header as sent; empty when there is none."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Yielded:
    """The credential."""

    token: Secret
    expires_at: float
    """Unix seconds."""
    principal: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is none; ``detail`` names the source and the field, never a secret."""

    reason: Reason
    detail: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the registry."""

    algorithm: Algorithm
    """What the far side documents for the JWT it is given."""
    build: Callable[[Source, Secret, Secret, bytes], Ask]
    """``build(source, client_secret, assertion, public_key_der)``"""
    parse: Callable[[Source, Answered, bytes, float, tuple[Secret, ...]], Yielded | Failed]
    """``parse(source, answered, public_key_der, now, told)``; ``told`` are the secrets that went out and must not come back in a detail."""
