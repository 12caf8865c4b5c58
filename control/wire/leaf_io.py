"""
TLS contexts that show a leaf for exactly one bound name.

In: a leaf minted by keys.  Out: an ssl.SSLContext.  The private key is made here, one for each name, and never leaves this process; it
lives as long as the leaf (24 h at most).  ssl.load_cert_chain takes paths only, so the PEM goes through a memfd: memory, never a disk.
"""

import os
import ssl
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.wire.limits import Limits


@dataclass(frozen=True, slots=True)
class LeafName:
    """What a leaf is minted for: a new revision may constrain the binding's CA anew."""

    binding: str
    name: str
    revision: int


class LeafKey:
    """A fresh P-256 key."""

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def public_der(self) -> bytes:
        """Give the SubjectPublicKeyInfo that keys certifies."""
        return self._key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def context(self, certificate_pem: bytes) -> ssl.SSLContext:
        """Make the server's context for the certified key.  Raises ssl.SSLError when the certificate is not this key's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        pem = certificate_pem + self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        memory = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(memory, pem)
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)
        return context


class Leaves:
    """The contexts of one worker, by name; the least recently made goes first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[LeafName, tuple[float, ssl.SSLContext]] = {}

    def get(self, name: LeafName, now_unix: float) -> ssl.SSLContext | None:
        """Give the context of a leaf with enough life left."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        if now_unix > kept[0] - self._limits.leaf_margin_s:
            del self._kept[name]
            return None
        return kept[1]

    def put(self, name: LeafName, expires_at: float, context: ssl.SSLContext) -> None:
        """Keep a context until shortly before its leaf expires."""
        while len(self._kept) >= self._limits.leaves:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = (expires_at, context)
