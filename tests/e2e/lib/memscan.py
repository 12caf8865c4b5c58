"""
Search the memory of processes for secrets.

In: pids and Secrets to look for.  Out: Findings, one per process, secret and form it was found in.
A secret is looked for in every form that a library here keeps it in: big-endian (DER, Python bytes), little-endian (OpenSSL's limbs),
CPython's 30-bit digits, base64 and base64url at each of three alignments, hex, PEM lines.  Each form is cut into fragments, because a freed
block loses its first bytes to the allocator: one fragment is enough to convict.
Sources: proc_pid_mem(5), proc_pid_maps(5); OpenSSL bn_local.h; CPython Include/cpython/longintrepr.h.
"""

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick, Implementation
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

_CHUNK = 16 << 20
_FRAGMENT = 16
"""128 bits: no accident finds them, and half of a P-256 scalar is one."""
_MIN_SECRET = 8
_PYLONG_SHIFT = 30
_MAX_KEY = 8192
_PEM_BEGIN = (b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN EC PRIVATE KEY-----")
_DER_MARKS = (
    bytes.fromhex("0201003013 06072a8648ce3d0201".replace(" ", "")),  # PKCS#8 of an EC key, after the outer SEQUENCE
    bytes.fromhex("020100300d06092a864886f70d010101"),  # PKCS#8 of an RSA key
)


class ScanError(Exception):
    """A process cannot be searched; an unsearched process is not a clean one."""


@dataclass(frozen=True, slots=True)
class Needle:
    """One fragment of one form of one secret."""

    secret: str
    form: str
    bytes_: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret was there."""

    pid: int
    secret: str
    form: str
    address: int
    mapping: str

    def __str__(self) -> str:
        return f"pid {self.pid} holds {self.secret} as {self.form} at {self.address:#x} in {self.mapping or 'anonymous memory'}"


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A whole private key in PEM or DER that the search was not told of; the fingerprint is SHA-256 of its public SubjectPublicKeyInfo."""

    pid: int
    fingerprint: str
    kind: str
    address: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a search saw; ``bytes_read`` and ``unreadable`` say how much it is worth."""

    findings: tuple[Finding, ...]
    keys: tuple[FoundKey, ...]
    bytes_read: int
    unreadable: tuple[str, ...]
    """Mappings that even root cannot read, such as [vvar]."""

    def secrets(self) -> set[str]:
        """Names of the secrets that were found."""
        return {finding.secret for finding in self.findings}


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    name: str


# -- what to look for


def _fragments(form: bytes) -> Iterator[bytes]:
    """Cut a form: its whole when short, else the 16 bytes at 16 (behind what free() overwrites), in the middle and at the end."""
    if len(form) < 2 * _FRAGMENT:
        yield form
        return
    for at in sorted({16 if len(form) >= 3 * _FRAGMENT else 0, len(form) // 2, len(form) - _FRAGMENT}):
        yield form[at : at + _FRAGMENT]


def _unaligned_base64(raw: bytes, encode: str) -> Iterator[bytes]:
    """The part of a base64 text that does not depend on what stands before or behind ``raw``, for each of three alignments."""
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + raw)
        if encode == "base64url":
            text = text.translate(bytes.maketrans(b"+/", b"-_"))
        skip, tail = (0, 2, 3)[lead], (len(raw) + lead) % 3
        yield text[skip : len(text) - (0, 4, 4)[tail]]  # the last group holds zero bits or padding where raw does not fill it


def _pylong(number: int) -> bytes:
    out = b""
    while number:
        out += (number & ((1 << _PYLONG_SHIFT) - 1)).to_bytes(4, "little")
        number >>= _PYLONG_SHIFT
    return out


def of_bytes(name: str, raw: bytes) -> list[Needle]:
    """Needles of a token, a client secret, a symmetric key.  Raises ValueError when it is too short to be told from chance."""
    if len(raw) < _MIN_SECRET:
        raise ValueError(f'secret "{name}" has {len(raw)} bytes: under {_MIN_SECRET} it would be found everywhere')
    forms = [("bytes", raw), ("hex", raw.hex().encode()), ("hex in capitals", raw.hex().upper().encode())]
    for encode in ("base64", "base64url"):
        forms += [(encode, text) for text in _unaligned_base64(raw, encode)]
    return _needles(name, forms)


def of_number(name: str, number: int) -> list[Needle]:
    """Needles of a private number: both byte orders, CPython's digits, and what ``of_bytes`` knows."""
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return [*of_bytes(name, raw), *_needles(name, [("little-endian", raw[::-1]), ("python int", _pylong(number))])]


def of_key(name: str, key: PrivateKeyTypes) -> list[Needle]:
    """Needles of an RSA or EC private key: each private number and each PEM line that holds a private part."""
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        numbers = {"d": private.d, "p": private.p, "q": private.q, "dp": private.dmp1, "dq": private.dmq1, "qinv": private.iqmp}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = {"d": key.private_numbers().private_value}
    else:
        raise TypeError(f"{type(key).__name__} is not a key we know how to look for")
    needles = [needle for part, number in numbers.items() for needle in of_number(f"{name} {part}", number)]
    for label, form in (("PKCS8", PrivateFormat.PKCS8), ("traditional", PrivateFormat.TraditionalOpenSSL)):
        lines = key.private_bytes(Encoding.PEM, form, NoEncryption()).splitlines()[1:-1]
        # an EC key's first line begins with what all keys share and goes on with the scalar; its last ones are the public point
        secret = lines[-3:-1] if isinstance(key, rsa.RSAPrivateKey) else [lines[0][-24:]]
        needles += _needles(f"{name} pem", [(f"PEM {label}", line) for line in secret])
    return needles


def _needles(name: str, forms: Iterable[tuple[str, bytes]]) -> list[Needle]:
    return [Needle(name, form, fragment) for form, text in forms for fragment in _fragments(text)]


# -- where to look


def _mappings(pid: int) -> list[_Mapping]:
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError as error:
        raise ScanError(f"pid {pid}: {error.strerror}") from error
    found = []
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        start, _, end = fields[0].partition("-")
        if fields[1].startswith("r"):
            found.append(_Mapping(int(start, 16), int(end, 16), fields[5] if len(fields) > 5 else ""))
    return found


def _read(memory: int, mapping: _Mapping, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Give (address, bytes) pieces, each repeating the last ``overlap`` bytes of the one before.  Raises OSError at a hole."""
    at, kept = mapping.start, b""
    while at < mapping.end:
        piece = os.pread(memory, min(_CHUNK, mapping.end - at), at)
        if not piece:
            return
        yield at - len(kept), kept + piece
        at += len(piece)
        kept = piece[-overlap:]


def scan(pids: Iterable[int], needles: Iterable[Needle], *, keys: bool = True) -> Scan:
    """
    Search all readable memory of ``pids`` while they run.

    ``keys`` also looks for whole private keys in PEM or DER that nobody told of.  Needs root or the same user and a dumpable process.
    Raises ScanError when a process is not there or gives nothing to read.
    """
    wanted = list(needles)
    machine = BytesAhoCorasick([needle.bytes_ for needle in wanted], implementation=Implementation.DFA)
    overlap = max([len(needle.bytes_) for needle in wanted] + ([_MAX_KEY] if keys else [2])) - 1
    findings: dict[tuple[int, str, str], Finding] = {}
    found_keys: dict[tuple[int, str], FoundKey] = {}
    unreadable, total = [], 0
    for pid in pids:
        read = 0
        try:
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ScanError(f"pid {pid}: {error.strerror}") from error
        try:
            for mapping in _mappings(pid):
                try:
                    for address, piece in _read(memory, mapping, overlap):
                        read += len(piece)
                        for index, at, _ in machine.find_matches_as_indexes(piece, overlapping=True):
                            key = (pid, wanted[index].secret, wanted[index].form)
                            findings.setdefault(key, Finding(*key, address + at, mapping.name))
                        for found in _whole_keys(pid, address, piece) if keys else ():
                            found_keys.setdefault((pid, found.fingerprint), found)
                except OSError:
                    unreadable.append(f"pid {pid} {mapping.start:#x} {mapping.name}")
        finally:
            os.close(memory)
        if not read:
            raise ScanError(f"pid {pid}: none of its memory can be read")
        total += read
    return Scan(tuple(findings.values()), tuple(found_keys.values()), total, tuple(unreadable))


# -- keys that nobody told of


def _whole_keys(pid: int, address: int, piece: bytes) -> Iterator[FoundKey]:
    for mark in _PEM_BEGIN:
        for at in _all(piece, mark):
            label = mark.removeprefix(b"-----BEGIN ")
            end = piece.find(b"-----END " + label, at, at + _MAX_KEY)
            if end < 0:
                continue  # the mark alone, as a constant of a library
            try:
                key = load_pem_private_key(piece[at : end + len(label) + 9] + b"\n", None)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                continue
            yield FoundKey(pid, fingerprint(key), "PEM", address + at)
    for mark in _DER_MARKS:
        for at in _all(piece, mark):
            for lead in (2, 3, 4):  # the outer SEQUENCE's length takes one, two or three bytes
                start = at - lead
                if start < 0 or piece[start] != 0x30:
                    continue
                try:
                    key = load_der_private_key(_der(piece, start), None)
                except (ValueError, TypeError, UnsupportedAlgorithm):
                    continue
                yield FoundKey(pid, fingerprint(key), "DER", address + start)


def _der(piece: bytes, start: int) -> bytes:
    """The SEQUENCE at ``start``, by its own length: the parser takes no trailing bytes."""
    first = piece[start + 1]
    if first < 0x80:
        return piece[start : start + 2 + first]
    width = first & 0x7F
    return piece[start : start + 2 + width + int.from_bytes(piece[start + 2 : start + 2 + width], "big")]


def _all(piece: bytes, mark: bytes) -> Iterator[int]:
    at = piece.find(mark)
    while at >= 0:
        yield at
        at = piece.find(mark, at + 1)


def fingerprint(key: PrivateKeyTypes) -> str:
    """SHA-256 of the public half, for telling a key that may be there from one that may not."""
    digest = Hash(SHA256())
    digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
