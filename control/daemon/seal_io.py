"""
Hold the master key of this installation: what keys, and the secrets of static sources, are sealed with.

In: the configuration (``seal``), the state directory.  Out: two derived keys, each in a sealed memfd of its own, for keys and for the
agent; what a sealed or plain secret file holds; a sealed file for ``credwire seal``.
The master lies on the disk as systemd-creds encrypted it (host key, and TPM where there is one), in a key file of the operator's, or, red
in ``status``, in a plain file of mode 0600.  Which of the three is in use is written down (``seal.json``) with the name of the key: another
way, another key, or none at all is an error later on, never a reason to make a new master beside what the old one sealed.
Only root calls this, before anything is confined; a master never leaves this module and the memory of the process that ran it.
"""

import base64
import binascii
import fcntl
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control.credential import make_io, seal
from control.daemon.config import Config
from control.errors import SetupError
from control.facts.path_io import look
from control.reason import Reason
from control.secret import Secret
from control.whole_io import write_in

CREDENTIAL, KEY_FILE, RECORD = "seal.cred", "seal.key", "seal.json"
"""In the state directory: the master as systemd-creds keeps it, the plain one, and which of them is in use."""
CREDS_S = 60.0
"""A TPM that is busy takes seconds."""
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NAME = "credwire-seal"
"""What systemd-creds binds the master to."""
_SEAL_OPTIONS = ("--with-key=auto", "--tpm2-pcrs=")
"""Host key and TPM, whichever there are; not its PCRs, which an update of the firmware's lists changes: every key would be lost."""
_MOST_BYTES = 64 * 1024
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_WAYS = ("systemd", "plain", "file")
_FAULT = "keys at rest are protected by file modes only"


@dataclass(frozen=True, slots=True)
class Seals:
    """
    The keys to hand on, and what to tell people.

    Descriptors are not inheritable until the caller makes them so, and read with pread: their offset is everybody's.
    """

    keys_fd: int
    """For keys; -1 when nothing is sealed."""
    secrets_fd: int
    """For the agent; -1 when nothing is sealed."""
    how: str
    """``systemd``, ``file``, ``plain``, ``none``"""
    fault: str = ""
    """A red line for ``status``; empty when all is well."""
    hint: str = ""


def open_seals(config: Config) -> Seals:
    """
    Open the master, or make the first one, and give what is derived from it.

    Raises SetupError when the master is not there any more, is another one, or may be read by others.
    """
    master, how, hint = _opened(config)
    if master is None:
        return Seals(-1, -1, how, _FAULT, hint)
    keys, secrets = (_memfd(f"credwire-{purpose}", seal.derive(master, purpose)) for purpose in ("keys", "secrets"))
    return Seals(keys, secrets, how, _FAULT if how == "plain" else "", hint)


def seal_secret(config: Config, name: str, plain: Secret) -> bytes:
    """Seal a source's secret for the file ``name`` (its base name); as root.  Raises SetupError."""
    if os.geteuid() != 0:
        raise _fault("sealing needs root", f"sudo credwire seal {seal.shown(name)}")
    master, _, hint = _opened(config)
    if master is None:
        raise _fault("seal.with is none: nothing can be sealed here", hint)
    return seal.seal(seal.derive(master, "secrets"), name, plain, make_io.nonce())


def read_secret(raw: bytes, name: str, secrets_fd: int) -> Secret:
    """
    Give the secret that the file ``name`` (its base name) holds: sealed, or plain without its final line break.

    Raises SealError: sealed elsewhere, for another name, damaged, or empty.
    """

    def key() -> Secret:
        if secrets_fd < 0:
            raise seal.SealError(f'"{seal.shown(name)}" is sealed and credwired has no key', "set seal.with in credwired.yaml and restart")
        return key_of(secrets_fd)

    secret = seal.content(raw, name, key)
    if not len(secret):
        raise seal.SealError(f'"{seal.shown(name)}" is empty', "write the secret into it: credwire seal NAME")
    return secret


def key_of(fd: int) -> Secret:
    """
    Read a derived key from the descriptor that open_seals() made; it may be read again.

    Raises SetupError when it is anything but a sealed memfd of one key.
    """
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        raw = os.pread(fd, seal.KEY_BYTES + 1, 0) if sealed else b""
    except OSError:
        raw = b""
    if len(raw) != seal.KEY_BYTES:
        raise _fault(f"descriptor {fd} holds no sealing key", "start credwired, which passes one to each process that needs it")
    return Secret(raw)


def _memfd(name: str, key: Secret) -> int:
    """Keep ``key`` in memory that has no name on any disk and can never be changed."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o400)
    os.write(fd, key.reveal())
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


# ---- which way ---------------------------------------------------------------------------------------------------------------------


def _opened(config: Config) -> tuple[Secret | None, str, str]:
    """Give the master, which way it is kept, and a hint where that way is a poor one."""
    asked = config.seal.kept
    with _state(config) as directory:
        record = _recorded(directory)
        if record is None:
            return _first(config, directory)
        way, name = record
        if asked not in (way, "auto") or (asked == "auto" and way == "file"):
            shown = "plain" if way == "plain" else f"seal.with: {way}"
            raise _fault(
                f"the keys of this installation are sealed ({shown}), and credwired.yaml says seal.with: {asked}",
                f"set seal.with back to {'auto' if way == 'plain' else way}, or start anew: {_anew(config)}",
            )
        master = _load(config, directory, way)
        if master is None:
            raise _fault(f"the master key is gone ({_place(config, way)}), and keys are sealed with it",
                         f"restore it from a backup, or start anew: {_anew(config)}")  # fmt: skip
        if seal.key_id(master) != name:
            raise _fault(f"{_place(config, way)} holds another master key than the one in use ({seal.key_id(master)} for {name})",
                         f"restore it from a backup, or start anew: {_anew(config)}")  # fmt: skip
        return master, way, _better(config) if way == "plain" else ""


def _first(config: Config, directory: int) -> tuple[Secret | None, str, str]:
    """
    Choose a way and make the master.

    One that lies there without a record is of a start that was cut short: nothing was sealed with it yet, or its record was lost, and then
    the sealed files tell whether it is theirs.
    """
    asked, sealed_by = config.seal.kept, _sealed_by(config)
    if asked == "none":
        if sealed_by:
            raise _fault("the keys of this installation are sealed, and credwired.yaml says seal.with: none",
                         f"set seal.with back, or start anew: {_anew(config)}")  # fmt: skip
        return None, "none", _better(config)
    master = None
    ways = {"auto": ("systemd", "plain")}.get(asked, (asked,))
    for way in ways:
        master = _load(config, directory, way)
        if master is not None:
            break
    else:
        if sealed_by:
            raise _fault(f"the master key is gone ({_place(config, ways[0])}), and keys are sealed with it",
                         f"restore it from a backup, or start anew: {_anew(config)}")  # fmt: skip
        master, way = _make(directory, ways)
    if sealed_by and sealed_by != seal.key_id(seal.derive(master, "keys")):
        raise _fault(f"{_place(config, way)} is not the master key with which the keys of this installation are sealed",
                     f"restore it from a backup, or start anew: {_anew(config)}")  # fmt: skip
    write_in(directory, RECORD, json.dumps({"with": way, "key": seal.key_id(master)}).encode() + b"\n")
    return master, way, _better(config) if way == "plain" else ""


def _make(directory: int, ways: tuple[str, ...]) -> tuple[Secret, str]:
    """Make a master and write it in the first way that works here."""
    master = Secret(make_io.master())
    if "systemd" in ways:
        try:
            kept = _creds("encrypt", master.reveal(), *_SEAL_OPTIONS)
            if _creds("decrypt", kept) != master.reveal():
                raise _fault("systemd-creds did not give back what it was given", "look at its own messages")
        except SetupError:
            if "plain" not in ways:
                raise
        else:
            write_in(directory, CREDENTIAL, kept)
            return master, "systemd"
    write_in(directory, KEY_FILE, base64.b64encode(master.reveal()) + b"\n")
    return master, "plain"


def _load(config: Config, directory: int, way: str) -> Secret | None:
    """Read the master as ``way`` keeps it; None when there is none."""
    if way == "file":
        return _operators(config.seal.key_file)
    raw = _read(config, directory, CREDENTIAL if way == "systemd" else KEY_FILE)
    if raw is None:
        return None
    if way == "plain":
        return _key(raw, _place(config, way))
    master = _creds("decrypt", raw)
    if len(master) != seal.KEY_BYTES:
        raise _fault(f"{_place(config, way)} does not hold a master key", f"restore it from a backup, or start anew: {_anew(config)}")
    return Secret(master)


def _operators(path: str) -> Secret:
    """Read the operator's key file: root's alone, on a path that only root can change."""
    if not (fact := look(path, sticky_ok=True)).root_owned:
        raise _fault(f"key file {path}: {fact.fault or 'is not a file of root'}", "chown root and chmod go-w the file and its directories")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _fault(f"key file {path}: {(error.strerror or 'cannot be opened').lower()}", "check seal.keyFile") from error
    with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o077:
            raise _fault(f"key file {path} is not a plain file of root with mode 0600", f"chown root {path}; chmod 0600 {path}")
        return _key(file.read(_MOST_BYTES), f"key file {path}")


def _key(raw: bytes, place: str) -> Secret:
    """Read 32 bytes, as they are or in base64."""
    if len(raw) == seal.KEY_BYTES:
        return Secret(raw)
    try:
        decoded = base64.b64decode(raw.strip(b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != seal.KEY_BYTES:
        raise _fault(f"{place} does not hold 32 bytes, plain or in base64", "make one with: head -c 32 /dev/urandom | base64")
    return Secret(decoded)


def _creds(verb: str, given: bytes, *options: str) -> bytes:
    """Run systemd-creds; secrets go through pipes only.  Raises SetupError with its own last words."""
    program = shutil.which("systemd-creds", path=_PATH)
    if program is None:
        raise _fault("systemd-creds is not on this machine", "install systemd 250 or later, or set seal: {with: file, keyFile: …}")
    command = [program, verb, f"--name={_NAME}", *options, "-", "-"]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=CREDS_S, check=False, env={"PATH": _PATH, "LANG": "C.UTF-8"}, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _fault(
            f"systemd-creds {verb} did not answer: {type(error).__name__}", "systemd-creds has-tpm2 shows what it would use"
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit {done.returncode}"]
        raise _fault(
            f"systemd-creds {verb}: {seal.shown(words[-1])}",
            "the host key (/var/lib/systemd/credential.secret) or the TPM is not the one the master was sealed with",
        )
    return done.stdout


# ---- the state directory -----------------------------------------------------------------------------------------------------------


@contextmanager
def _state(config: Config) -> Iterator[int]:
    """Open the state directory and keep others who make a master out of it until we are done."""
    path = Path(config.paths.state)
    if os.geteuid() != 0:
        raise _fault("the master key is root's", "sudo credwire … or sudo credwired …")
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if facts.st_uid != 0 or facts.st_mode & 0o022:
            raise _fault(f"{path} may be changed by others than root", f"chown root {path}; chmod 0711 {path}")
        fcntl.flock(fd, fcntl.LOCK_EX)
        for name in (CREDENTIAL, KEY_FILE, RECORD):  # left behind by a crash between write and rename
            if (path / f"{name}.new").exists():
                os.unlink(f"{name}.new", dir_fd=fd)
        yield fd
    finally:
        os.close(fd)


def _recorded(directory: int) -> tuple[str, str] | None:
    raw = _read(None, directory, RECORD)
    if raw is None:
        return None
    try:
        told = json.loads(raw)
        way, name = told["with"], told["key"]
    except (ValueError, KeyError, TypeError):
        way, name = "", ""
    if way not in _WAYS or not isinstance(name, str):
        raise _fault(f"{RECORD} in the state directory cannot be read", "restore it from a backup")
    return way, name


def _sealed_by(config: Config) -> str:
    """Name the key with which the files of keys are sealed; empty when none is."""
    keys = Path(config.paths.state) / "keys"
    try:
        names = sorted(os.listdir(keys))  # noqa: PTH208  # names, opened one by one
    except FileNotFoundError:
        return ""
    for name in names:
        fd = os.open(keys / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            by = seal.sealed_by(file.read(256)) if stat.S_ISREG(os.fstat(fd).st_mode) else ""
        if by:
            return by
    return ""


def _read(config: Config | None, directory: int, name: str) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _fault(f"{name} in the state directory: {error.strerror}", "it should be a plain file of root") from error
    with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o077:
            where = Path(config.paths.state) / name if config is not None else name
            raise _fault(f"{where} is not a plain file of root with mode 0600", f"chown root {where}; chmod 0600 {where}; ask who read it")
        return file.read(_MOST_BYTES)


# ---- words -------------------------------------------------------------------------------------------------------------------------


def _place(config: Config, way: str) -> str:
    state = Path(config.paths.state)
    return {"systemd": str(state / CREDENTIAL), "plain": str(state / KEY_FILE)}.get(way, f"key file {config.seal.key_file}")


def _anew(config: Config) -> str:
    state = config.paths.state
    return f"move {state}/keys and {state}/seal.* away; new keys are made, and trust in the old ones ends"


def _better(config: Config) -> str:
    """Say how the master gets a better place."""
    return f"install systemd-creds or set seal: {{with: file, keyFile: …}}, then {_anew(config)} (docs/reference/sealing.md)"


def _fault(message: str, hint: str) -> SetupError:
    return SetupError(Reason.KEYS_UNAVAILABLE, message, hint=hint)
