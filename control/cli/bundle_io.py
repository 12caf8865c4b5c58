"""
Find the bundle that a client should trust.

In: the name of an identity, bundles in the state directory, the private CAs that this environment trusts.  Out: a file to name to clients;
never an empty one.
"""

import glob
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import click

from control.cli import trust
from control.cli.failure import CommandError, Exit
from control.cli.options import Command
from control.cli.settings_io import ca_directory
from control.cli.terminal_io import note


class Bundle(NamedTuple):
    """The bundle of one identity: where it is and what it holds."""

    identity: str
    path: Path
    pem: bytes


def _in_force(directory: Path, otherwise: list[str]) -> list[str]:
    """Name the identities that run; bundles of others stay for programs that were started with them."""
    try:
        return (directory / "in-force").read_text().split()
    except (OSError, UnicodeDecodeError):
        return otherwise


def find(identity: str | None, *, likely: str = "") -> Bundle:
    """
    Find the bundle of ``identity``, else that of ``likely`` where it is there, else the only one.

    Raises CommandError; never gives an empty one.
    """
    directory = ca_directory()
    if identity is None:
        try:
            known = sorted(path.stem for path in directory.glob("*.pem") if not path.name.startswith("."))
        except PermissionError:
            known = []
        known = [name for name in known if name in _in_force(directory, known)]
        if not known:
            hint = "credwired writes one per identity at a reload; credwire status"
            raise CommandError(f"there is no CA bundle in {directory}", hint=hint)
        if len(known) > 1 and likely not in known:
            raise CommandError("several identities have a CA bundle", hint=f"--identity NAME, one of: {', '.join(known)}", code=Exit.USAGE)
        identity = likely if likely in known else known[0]
    if not trust.NAME.fullmatch(identity):
        raise CommandError(f'"{identity}" is not the name of an identity', hint="lower-case letters, digits, - and .", code=Exit.USAGE)
    path = directory / f"{identity}.pem"
    try:
        pem = path.read_bytes()
    except PermissionError:
        raise CommandError(f"{path} may not be read by uid {os.geteuid()}", hint="bundles are 0644", code=Exit.NOT_ALLOWED) from None
    except OSError:
        hint = "credwire binding list shows the identities that have bindings"
        raise CommandError(f'identity "{identity}" has no CA bundle at {path}', hint=hint) from None
    if not trust.certificates(pem):
        # said instead of handed on: an empty bundle turns verification off in some clients
        raise CommandError(f"{path} holds no certificate", hint="credwire reload writes it anew")
    return Bundle(identity, path, pem)


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an identity that has a bundle; needs no daemon and no role."""
    del param
    try:
        return sorted(path.stem for path in ca_directory(ctx).glob(f"{glob.escape(incomplete)}*.pem") if not path.name.startswith("."))
    except Exception:  # a shell that completes wants names or nothing
        return []


def identity_option(command: Command) -> Command:
    """``--identity``: whose bundle."""
    return click.option(
        "--identity", metavar="NAME", shell_complete=names, help="Whose CA bundle; may be left out when there is only one."
    )(command)


def joined(bundle: Bundle) -> Path:
    """
    Give the file to trust: the bundle, or a copy with the private CAs that this environment trusts already.

    The copy is the user's own, named by its content, so that a running program never sees its file change.
    """
    others = []
    for path in trust.previous(os.environ, str(bundle.path)):
        try:
            others.append(Path(path).read_bytes())
        except OSError as error:
            note("warning", f"{path}, which the environment trusts, cannot be read: {error.strerror}")
    pem = trust.added(bundle.pem, others)
    if pem == bundle.pem:
        return bundle.path
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    target = Path(home) / "credwire" / f"{bundle.identity}-{hashlib.sha256(pem).hexdigest()[:16]}.pem"
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        fresh.write_bytes(pem)
        fresh.rename(target)
    except OSError as error:
        note("warning", f"the CAs the environment trusts are left out: {target} cannot be written: {error.strerror}")
        return bundle.path
    return target
