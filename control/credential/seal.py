"""
Seal bytes so that they may lie on a disk.

In: a 32-byte key, the name of the file, the bytes, a nonce.  Out: a small text file; from it the bytes again, or SealError.
AES-256-GCM (NIST SP 800-38D).  The header says in clear which key sealed it and under which name, and all of it is associated data: a
sealed file that is renamed, shortened or put together from two does not open.  The header is what makes errors exact: another key,
another name and damage are three things that people mend in three ways.  Pure.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control.errors import SetupError
from control.reason import Reason
from control.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
"""Drawn afresh for each file: with 96 random bits a key may seal 2^32 of them (SP 800-38D 8.3), and we seal some thousand."""
NAME_MOST = 255
"""Bytes of a file's name (NAME_MAX)."""
PLAIN_MOST = 1 << 20

_MAGIC = b"credwire-sealed 1\n"
_FAMILY = b"credwire-sealed "
"""What sealed files of every version begin with."""
_HEADER = re.compile(rb"credwire-sealed 1\nkey ([0-9a-f]{16})\nname ([^\x00-\x1f\x7f/]{1,255})\n\n")
_COLUMNS = 76


class SealError(SetupError):
    """A sealed file does not open here, and why."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(Reason.LEASE_UNAVAILABLE, message, hint=hint)


def derive(master: Secret, purpose: str) -> Secret:
    """Give the key of one purpose (RFC 5869): who holds one of them can make neither the master nor another."""
    return Secret(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"credwire seal 1 " + purpose.encode()).derive(master.reveal()))


def key_id(key: Secret) -> str:
    """Name a key without telling it: 64 bits, enough to notice the wrong one."""
    return hmac.digest(key.reveal(), b"credwire seal 1 key id", hashlib.sha256)[:8].hex()


def is_sealed(raw: bytes) -> bool:
    """Whether these bytes are, or want to be, a sealed file of any version."""
    return raw.startswith(_FAMILY)


def sealed_by(raw: bytes) -> str:
    """Name the key that sealed a file, from its beginning; empty when it is not sealed, or not by this version."""
    found = _HEADER.match(raw)
    return found[1].decode() if found else ""


def seal(key: Secret, name: str, plain: Secret, nonce: bytes) -> bytes:
    """
    Seal ``plain`` for the file ``name`` (its base name) with a nonce that was never used before.

    Raises SealError when the name or the size cannot be.
    """
    title = name.encode()
    header = _MAGIC + b"key " + key_id(key).encode() + b"\nname " + title + b"\n\n"
    if len(nonce) != NONCE_BYTES or not _HEADER.fullmatch(header):
        raise SealError(f'"{shown(name)}" cannot be the name of a sealed file', "use the base name of the file, without control characters")
    if len(plain) > PLAIN_MOST:
        raise SealError(f'"{shown(name)}" would hold {len(plain)} bytes; {PLAIN_MOST} may be sealed', "is it the right file")
    body = base64.b64encode(nonce + AESGCM(key.reveal()).encrypt(nonce, plain.reveal(), header))
    lines = [body[at : at + _COLUMNS] for at in range(0, len(body), _COLUMNS)]
    return header + b"\n".join(lines) + b"\n"


def unseal(key: Secret, name: str, sealed: bytes) -> Secret:
    """
    Open what ``seal`` made for ``name``.

    Raises SealError: sealed by another version, with another key, for another name, or damaged.
    """
    found = _HEADER.match(sealed)
    if found is None:
        if is_sealed(sealed) and not sealed.startswith(_MAGIC):
            raise SealError(f'"{shown(name)}" was sealed by another version of credwire', "open it with that version and seal it again")
        raise SealError(f'"{shown(name)}" is damaged: its header cannot be read', "restore it from a backup, or seal it anew")
    header, (by, title) = found[0], found.groups()
    if by.decode() != key_id(key):
        raise SealError(
            f'"{shown(name)}" was sealed with key {by.decode()}, this installation has key {key_id(key)}',
            "it is of another machine or installation; seal it here anew: credwire seal NAME",
        )
    if title != name.encode():
        raise SealError(
            f'"{shown(name)}" was sealed for the name "{shown(title.decode(errors="replace"))}"',
            "give the file that name again, or seal it anew for this one: credwire seal NAME",
        )
    try:
        body = base64.b64decode(sealed[len(header) :].replace(b"\n", b""), validate=True)
        return Secret(AESGCM(key.reveal()).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], header))
    except (binascii.Error, ValueError, InvalidTag) as error:
        raise SealError(f'"{shown(name)}" is damaged: it is not what was sealed', "restore it from a backup, or seal it anew") from error


def content(raw: bytes, name: str, key: Callable[[], Secret]) -> Secret:
    """
    Give what a secret's file holds: opened when it is sealed, else as it is, without the one line break that editors leave.

    ``key`` is called for sealed files only.
    """
    if is_sealed(raw):
        return unseal(key(), name, raw)
    return Secret(without_line_break(raw))


def without_line_break(raw: bytes) -> bytes:
    """Take one line break off the end."""
    return raw[:-2] if raw.endswith(b"\r\n") else raw[:-1] if raw.endswith(b"\n") else raw


def shown(name: str) -> str:
    """Give a name in a form that a log takes."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in name[:NAME_MOST])
