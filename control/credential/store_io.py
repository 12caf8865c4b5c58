"""
Keep the issuer's and the bindings' keys over restarts.

In: a descriptor of a directory that only the keys process may enter, and the key to seal with.  Out: the keys; new ones are made and
written where none is.
The one place that knows how keys lie on disk: PEM, sealed (control/credential/seal.py), mode 0600, written whole or not at all.
A file that is not ours, not plain, readable by others or not what it says is refused: keys does not start on doubtful keys.

A directory from before sealing is sealed at its first start, file by file, and then marked.  Behind the mark a file that is not sealed is
doubtful: somebody who can write here but cannot seal could put a key of theirs in our key's place.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from control.credential import ca, make_io, seal
from control.credential.ca import Authority
from control.credential.jwt import IssuerKey
from control.errors import SetupError
from control.reason import Reason
from control.secret import Secret
from control.whole_io import write_in

_MOST_BYTES = 64 * 1024
"""No key file of ours is larger."""
_ISSUER: dict[str, Callable[[], EllipticCurvePrivateKey | RSAPrivateKey]] = {
    "issuer-es256.pem": make_io.curve_key,
    "issuer-rs256.pem": make_io.issuer_rsa_key,
}
"""ES256 is the default; RS256 is for the sources that document nothing else."""
_MARK = "sealed"
"""A sealed file that says: every file of this directory is sealed."""


class Store:
    """The key directory."""

    def __init__(self, directory_fd: int, key: Secret | None = None) -> None:
        """
        ``directory_fd`` stays the caller's; without ``key`` files are written plain.

        Raises SetupError when others may enter the directory, or when a file in it does not open with ``key``.
        """
        self._dir, self._key = directory_fd, key
        facts = os.fstat(directory_fd)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
            raise _doubtful("the key directory", "is not a directory of mode 0700 owned by the keys process")
        for name in os.listdir(directory_fd):  # left behind by a crash between write and rename
            if name.endswith(".new"):
                os.unlink(name, dir_fd=directory_fd)
        if key is not None:
            self._seal_all()

    def _seal_all(self) -> None:
        """Seal what is plain, unless the directory is marked; a crash on the way leaves some sealed, some plain, and no mark."""
        there = sorted(os.listdir(self._dir))  # noqa: PTH208  # a descriptor, not a path
        names = [name for name in there if name in _ISSUER or name == _MARK or name.startswith("ca-")]
        for name in names:
            raw = self._raw(name)
            if raw is None or seal.is_sealed(raw):
                self._read(name)  # all or none: one that does not open stops us before another is rewritten
            elif _MARK in names:
                raise _doubtful(name, "is not sealed, though this directory was")
            else:
                _load(name, raw)
        for name in names:
            raw = self._raw(name)
            if raw is not None and not seal.is_sealed(raw):
                self._write(name, raw)
        if _MARK not in names:
            self._write(_MARK, b"every file here\n")

    def issuer(self) -> tuple[IssuerKey, ...]:
        """Load the issuer's keys; make those that are missing."""
        keys = []
        for name, fresh in _ISSUER.items():
            raw = self._read(name)
            if raw is None:
                made = fresh()
                self._write(name, _private_pem(made))
                keys.append(IssuerKey.of(made))
                continue
            loaded = _load(name, raw)
            if name == "issuer-rs256.pem" and not isinstance(loaded, RSAPrivateKey):
                raise _doubtful(name, "does not hold an RSA key")
            keys.append(IssuerKey.of(loaded))
        return tuple(keys)

    def authorities(self, now: float) -> dict[str, list[Authority]]:
        """Load every CA, by binding; those past their life are deleted."""
        found: dict[str, list[Authority]] = {}
        for name in sorted(os.listdir(self._dir)):  # noqa: PTH208  # a descriptor, not a path
            if not name.startswith("ca-"):
                continue
            raw = self._read(name)
            if raw is None:
                continue
            key = _load(name, raw)
            if not isinstance(key, EllipticCurvePrivateKey):
                raise _doubtful(name, "does not hold a P-256 key")
            try:
                authority = Authority.of(key, x509.load_pem_x509_certificate(raw[raw.index(b"-----BEGIN CERTIFICATE-----") :]))
            except ValueError as error:
                raise _doubtful(name, f"does not hold a CA of ours: {error}") from error
            if authority.expires_at <= now:
                os.unlink(name, dir_fd=self._dir)
            else:
                found.setdefault(authority.binding, []).append(authority)
        return found

    def make_authority(self, binding: str, domains: frozenset[str], now: float) -> Authority:
        """Make a CA and write it before anybody hears of it."""
        serial = make_io.serial()
        authority = ca.make(binding, domains, make_io.curve_key(), now=now, serial=serial)
        self._write(f"ca-{serial:040x}.pem", _private_pem(authority.key) + authority.pem())
        return authority

    def _read(self, name: str) -> bytes | None:
        """Give what a file holds, opened when it is sealed."""
        raw = self._raw(name)
        if raw is None or not seal.is_sealed(raw):
            return raw
        if self._key is None:
            raise _doubtful(name, "is sealed, and we have no key to open it", "set seal.with in credwired.yaml as it was")
        try:
            return seal.unseal(self._key, name, raw).reveal()
        except seal.SealError as error:
            raise SetupError(Reason.KEYS_UNAVAILABLE, error.message, hint="restore it, or the master key, from a backup") from error

    def _raw(self, name: str) -> bytes | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._dir)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _doubtful(name, f"cannot be opened: {error.strerror}") from error
        with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
                raise _doubtful(name, "is not a plain file of mode 0600 owned by the keys process")
            return file.read(_MOST_BYTES)

    def _write(self, name: str, content: bytes) -> None:
        """Seal and write, whole or not at all: a crash leaves the former state or the new one."""
        if self._key is not None:
            content = seal.seal(self._key, name, Secret(content), make_io.nonce())
        write_in(self._dir, name, content)


@dataclass(slots=True)
class Authorities:
    """The CAs of all bindings, made as they are wanted."""

    store: Store
    known: dict[str, list[Authority]] = field(default_factory=dict)

    def bundle(self, binding: str, hosts: tuple[str, ...], now: float) -> list[Authority]:
        """Give the CAs that clients of ``binding`` should trust; makes one where one is due."""
        domains = ca.constrained_to(hosts)
        self._refresh(binding, domains, now)
        return ca.alive(self.known[binding], domains, now)

    def signing(self, binding: str, hosts: tuple[str, ...], name: str, now: float) -> Authority | None:
        """Give the CA that signs ``name`` for ``binding``; makes one where one is due."""
        domains = ca.constrained_to(hosts)
        self._refresh(binding, domains, now)
        return ca.signing(self.known[binding], domains, name, now)

    def _refresh(self, binding: str, domains: frozenset[str], now: float) -> None:
        known = self.known.setdefault(binding, [])
        if ca.wants_another(known, domains, now):
            known.append(self.store.make_authority(binding, domains, now))


def _private_pem(key: EllipticCurvePrivateKey | RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(name: str, raw: bytes) -> EllipticCurvePrivateKey | RSAPrivateKey:
    try:
        key = load_pem_private_key(raw, password=None)
    except ValueError as error:
        raise _doubtful(name, "does not hold a private key") from error
    if isinstance(key, RSAPrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)):
        return key
    raise _doubtful(name, "holds a key of another kind")


def _doubtful(name: str, why: str, hint: str = "") -> SetupError:
    usual = "restore it from a backup, or move it away: a new key is made, and trust in the old one ends"
    return SetupError(Reason.KEYS_UNAVAILABLE, f'"{name}" {why}', hint=hint or usual)
