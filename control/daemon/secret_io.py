"""
Read the secret of a source.

In: a Source of the running set, the descriptor of the key that secrets are sealed with, ``$CREDENTIALS_DIRECTORY`` of credwired.
Out: a Secret, or SetupError saying why not and what to do; for status, what is wrong with the files before anybody needs them.
A file must be root's alone all the way down, and read by nobody else: an API key in a file of mode 0644 is everybody's.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from control.binding.model import OciSource, Source, StaticSource
from control.credential.seal import is_sealed
from control.daemon.seal_io import read_secret
from control.errors import SetupError
from control.facts.path_io import look
from control.reason import Reason
from control.secret import Secret

SECRET_MOST = 64 << 10
"""Bytes of a secret file, sealed or plain."""
_HEAD = 64
"""Bytes that tell a sealed file from a plain one."""


class Vault(NamedTuple):
    """Where secrets lie on this machine."""

    secrets_fd: int
    """What they are sealed with; -1 when nothing is."""
    credentials: str
    """``$CREDENTIALS_DIRECTORY`` of credwired (systemd.exec(5)); empty when it was given none."""

    def read(self, source: Source) -> Secret:
        """Read the secret of ``source``; blocking.  Raises SetupError."""
        path = self.place(source)
        raw = _content(path, plain_ok=_is_credential(source), limit=SECRET_MOST)
        return read_secret(raw, path.name, self.secrets_fd)

    def place(self, source: Source) -> Path:
        """Give the file of ``source``.  Raises SetupError where credwired was given no credentials."""
        of = source.of
        if isinstance(of, OciSource):
            return Path(of.client_secret_file)
        if not of.systemd_credential:
            return Path(of.file)
        if not self.credentials:
            hint = f"add LoadCredentialEncrypted={of.systemd_credential} to the unit of credwired, or name a file"
            raise _no(f'credwired was given no credential "{of.systemd_credential}"', hint)
        return Path(self.credentials) / of.systemd_credential

    def judge(self, sources: Iterable[Source]) -> "list[Judged]":
        """Say what is wrong with the stored secrets without taking any of them; blocking."""
        found = []
        for source in sources:
            if isinstance(source.of, OciSource) and not source.of.client_secret_file:
                continue
            try:
                path = self.place(source)
                head = _content(path, plain_ok=_is_credential(source), limit=None)
            except SetupError as error:
                found.append(Judged(source.name, True, f'source "{source.name}": {error}', error.hint))
                continue
            if self.secrets_fd >= 0 and not _is_credential(source) and not is_sealed(head):
                said = f'source "{source.name}": the secret lies plain in {path}'
                found.append(Judged(source.name, False, said, f"credwire seal {path}"))
        return found


class Judged(NamedTuple):
    """One thing to know about a stored secret."""

    source: str
    refused: bool
    """It will not be read; else it will, and could lie better."""
    says: str
    hint: str


def _is_credential(source: Source) -> bool:
    return isinstance(source.of, StaticSource) and bool(source.of.systemd_credential)


def _content(path: Path, *, plain_ok: bool, limit: int | None) -> bytes:
    """
    Read a guarded file whole, or with ``limit`` None only what tells whether it is sealed.

    ``plain_ok``: systemd laid it there, in a directory that is mounted for credwired alone; it may be readable by a group of one.
    """
    fact = look(str(path), sticky_ok=True)
    if fact.file is None:
        raise _no(fact.fault or f"{path}: no such file", "check the path; credwire seal NAME writes one")
    if not fact.root_owned and not plain_ok:
        raise _no(f"{path}: others than root may change it: {fact.fault}", "chown root and chmod go-w the file and its directories")
    fd = -1
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _no(f"{path} is not a plain file", "name the file that holds the secret")
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & (0o037 if plain_ok else 0o077):
            who = "owned by another than root" if found.st_uid else f"readable by others: mode {stat.S_IMODE(found.st_mode):04o}"
            raise _no(f"{path} is {who}", f"chown root {path}; chmod 0600 {path}; then change the secret: it may have been read")
        raw = os.read(fd, _HEAD if limit is None else limit + 1)
    except OSError as error:
        raise _no(f"{path}: {(error.strerror or 'cannot be read').lower()}", "check the path and its mode") from error
    finally:
        with suppress(OSError):
            os.close(fd)
    if limit is not None and len(raw) > limit:
        raise _no(f"{path} is larger than {limit} bytes", "it should hold the secret alone")
    return raw


def _no(message: str, hint: str) -> SetupError:
    return SetupError(Reason.LEASE_UNAVAILABLE, message, hint=hint)
