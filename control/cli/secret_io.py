"""
Take a secret in, and put it away sealed.

In: a file, standard input or a prompt without echo; never an argument and never the environment, which others may read.  Out: a file of
mode 0600 in the secrets directory, sealed for its own name (control/daemon/seal_io.py).
"""

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from control.cli.failure import CommandError, Exit
from control.cli.settings_io import configuration, secrets_directory
from control.cli.terminal_io import note

if TYPE_CHECKING:
    from control.daemon.config import Config
    from control.secret import Secret

MOST_BYTES: Final = 64 << 10
_SEALED: Final = b"credwire-sealed "
"""What a sealed file begins with (control/credential/seal.py)."""
SILENCE_S: Final = 15.0
"""A password manager that asks its user takes some seconds."""


def read(source: str, what: str) -> "Secret":
    """
    Read a secret from a file, or from standard input where ``source`` is ``-``; on a terminal it is asked for without echo.

    One line break at its end is not part of it.  Raises CommandError; the error never holds a byte of it.
    """
    from control.secret import Secret  # noqa: PLC0415  # only commands that take one

    if source != "-":
        try:
            with Path(source).open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise CommandError(f"{source} cannot be read: {error.strerror}", hint="name the file that holds the secret alone") from None
    elif sys.stdin.isatty():
        raw = click.prompt(what, hide_input=True, err=True).encode()
    else:
        raw = _piped()
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not raw:
        raise CommandError("the secret is empty", hint="pipe it in (printf %s … | credwire …) or name a file")
    if len(raw) > MOST_BYTES:
        raise CommandError(f"the secret is longer than {MOST_BYTES} bytes", hint="is it the file that holds the secret alone?")
    return Secret(raw)


def _piped() -> bytes:
    """Read standard input; one that stays silent is not waited for without end."""
    try:
        silent = not select.select([sys.stdin.fileno()], [], [], SILENCE_S)[0]
    except (OSError, ValueError):
        silent = False  # no descriptor behind it
    if silent:
        raise CommandError(f"standard input is silent for {SILENCE_S:.0f} s", hint="pipe the secret in, or name a file that holds it")
    return sys.stdin.buffer.read(MOST_BYTES + 1)


def one_line(secret: "Secret") -> None:
    """See that the secret can stand in a header.  Raises CommandError."""
    if any(byte < 0x20 or byte == 0x7F for byte in secret.reveal()):
        raise CommandError("the secret holds control characters", hint="it is to be one line: is it the file that holds the secret alone?")


def may_seal(config: "Config") -> None:
    """See that the caller may seal, before the secret is asked for.  Raises CommandError."""
    if config.seal.kept != "none":
        _root("sealing")


def sealed(config: "Config", name: str, secret: "Secret") -> tuple[bytes, str]:
    """Give what the file ``name`` is to hold, and a word for how.  Raises CommandError, SetupError."""
    if config.seal.kept == "none":  # said by the operator; status shows it red
        return secret.reveal() + b"\n", "plain (seal.with is none)"
    from control.daemon.seal_io import seal_secret  # noqa: PLC0415  # brings cryptography

    _root("sealing")
    return seal_secret(config, name, secret), "sealed"


def _root(what: str) -> None:
    if os.geteuid() != 0:
        raise CommandError(f"{what} needs root: uid {os.geteuid()} may not", hint="sudo, as the same command", code=Exit.NOT_ALLOWED)


def put(path: Path, content: bytes, mode: int, *, over: bool, directory_mode: int = 0o755) -> bytes | None:
    """
    Write a file whole or not at all, and give what was there before.

    Without ``over`` a file that is there is left alone and CommandError is raised.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    if path.is_symlink():  # what it leads to would be read now, and written in its place when something fails later
        raise CommandError(f"{path} is a link", hint="name the file itself, or remove the link")
    try:
        path.parent.mkdir(mode=directory_mode, parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else None
        if before is not None and not over:
            raise CommandError(f"{path} is there already", hint="--force replaces it, another NAME goes beside it")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            if over:
                fresh.rename(path)
            else:
                os.link(fresh, path)  # unlike rename, fails when somebody was quicker
        finally:
            fresh.unlink(missing_ok=True)
    except PermissionError:
        hint = "run it as root, or name another directory"
        raise CommandError(f"{path} may not be written by uid {os.geteuid()}", hint=hint, code=Exit.NOT_ALLOWED) from None
    except FileExistsError:
        raise CommandError(f"{path} is there already", hint="--force replaces it, another NAME goes beside it") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", hint="check the directory and the disk") from None
    return before


def there(path: Path) -> bool:
    """Say whether something is there; who may not look hears about it when they write."""
    try:
        return path.exists()
    except OSError:
        return False


def take_back(path: Path, before: bytes | None, mode: int) -> None:
    """Undo a put()."""
    if before is None:
        path.unlink(missing_ok=True)
    else:
        put(path, before, mode, over=True)


@click.command()
@click.argument("name")
@click.argument("file", required=False)
@click.option("--to", metavar="PATH", help="Where to write, when it is not the secrets directory; - for standard output.")
def seal(name: str, file: str | None, to: str | None) -> None:
    """Seal a secret into the file NAME of the secrets directory.

    Reads FILE, standard input, or asks without echo; a sealed file opens on this machine and under its own name only.  Replaces what is
    there: that is how a secret is rotated.  The daemon reads it again when its source's ttlCap is over, or at once after credwire
    reload.  Where NAME is a path, the plain file that lies there is sealed in its place.  Needs root.

    \b
    Examples:
      credwire seal billing < key.txt
      credwire seal billing --to - < key.txt
    """
    config = configuration()
    path, source = _places(config, name, file, to)
    may_seal(config)
    secret = read(source, f'secret "{path.name}"')
    if secret.reveal().startswith(_SEALED):
        raise CommandError(f"{source} is sealed already", hint=f"to replace the secret: credwire seal {name} -, and pipe the new one in")
    content, how = sealed(config, path.name, secret)
    if to == "-":
        sys.stdout.buffer.write(content)
        return
    before = put(path, content, 0o600, over=True, directory_mode=0o700)
    click.echo(f"{'wrote' if before is None else 'replaced'} {path}: {how}, mode 0600")
    if how != "sealed":
        note("warning", "the secret lies on the disk as it is: whoever reads the disk has it")


def _places(config: "Config", name: str, file: str | None, to: str | None) -> tuple[Path, str]:
    """Say where the secret goes and where it comes from."""
    from control.binding.name import check_label  # noqa: PLC0415  # brings the rules of names
    from control.errors import ResourceError  # noqa: PLC0415

    if "/" in name:
        path = Path(name)
        return Path(to) if to not in (None, "-") else path, file or (name if there(path) else "-")
    try:
        check_label(name)
    except ResourceError as error:
        raise CommandError(error.message, hint=f"{error.hint}, or as a path", code=Exit.USAGE) from None
    return Path(to) if to not in (None, "-") else secrets_directory(config) / name, file or "-"
