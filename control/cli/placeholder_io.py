"""
``credwire placeholder``: the dummy profile a client needs, printed or written.

In: a kind of client, a profile's name.  Out: text on stdout, or files of mode 0600 in the home directory.  A profile that is there is never
changed: another is put beside it, or nothing is.
"""

import hashlib
import os
import re
from pathlib import Path

import click

from control.cli import placeholder as texts
from control.cli import secret_io
from control.cli.failure import CommandError, Exit

_WRITE = click.option("--write", is_flag=True, help="Write it, mode 0600, beside the profiles that are there.")


def _profile(ctx: click.Context, param: click.Parameter, value: str) -> str:
    del ctx, param
    if not texts.profile_name(value):
        raise click.BadParameter(f'"{value}" is no profile name; letters, digits, ., - and _')
    return value


@click.group()
def placeholder() -> None:
    """Make the worthless credential that a client needs to start.

    The real one is put on the wire.  Prints by default; with --write it becomes a profile of its own.

    \b
    Examples:
      credwire placeholder oci
      credwire placeholder header X-Api-Key
    """


@placeholder.command("oci")
@click.option("--profile", default="DEFAULT", show_default=True, callback=_profile, help="Section of ~/.oci/config.")
@click.option("--region", default="us-ashburn-1", show_default=True, help="The region that the client asks.")
@_WRITE
def oci(profile: str, region: str, write: bool) -> None:
    """A profile of the OCI CLI and SDKs, with a throw-away key.

    \b
    Examples:
      credwire placeholder oci
      credwire placeholder oci --profile CREDWIRE --region eu-frankfurt-1 --write
    """
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise click.BadParameter(f'"{region}" is no region, like us-ashburn-1', param_hint="--region")
    config, key_file = _home(".oci", "config"), _home(".oci", "credwire-placeholder.pem")
    if not write:
        pem, fingerprint = _key()
        click.echo(f"# {config}")
        click.echo(texts.oci(profile, region, fingerprint, str(key_file)))
        click.echo(f"# {key_file}")
        click.echo(texts.oci_key(pem), nl=False)
        return
    before = _content(config)
    if _there(config, before, profile):
        return
    kept = _content(key_file)
    pem, fingerprint = _key(kept)
    if not kept:
        _put(key_file, texts.oci_key(pem))
    _put(config, texts.joined(before, texts.oci(profile, region, fingerprint, str(key_file))))


@placeholder.command("aws")
@click.option("--profile", default="default", show_default=True, callback=_profile, help="Section of ~/.aws/credentials.")
@_WRITE
def aws(profile: str, write: bool) -> None:
    """A profile of the AWS CLI and SDKs, with a dummy key pair.

    \b
    Examples:
      credwire placeholder aws
      credwire placeholder aws --profile credwire --write
    """
    file = _home(".aws", "credentials")
    if not write:
        click.echo(f"# {file}")
        click.echo(texts.aws(profile), nl=False)
        return
    before = _content(file)
    if not _there(file, before, profile):
        _put(file, texts.joined(before, texts.aws(profile)))


@placeholder.command("netrc")
@click.argument("host")
@click.option("--login", default="credwire", show_default=True, help="The user name that the service would see.")
@_WRITE
def netrc(host: str, login: str, write: bool) -> None:
    """An entry of ~/.netrc for curl -n, git and others.

    \b
    Examples:
      credwire placeholder netrc api.example.org
      credwire placeholder netrc api.example.org --login reports --write
    """
    if any(not re.fullmatch(r"[A-Za-z0-9._@+-]{1,255}", word) for word in (host, login)):
        raise click.BadParameter("host and login are letters, digits, ., -, _, @ and +")
    file, entry = _home(".netrc"), texts.netrc(host, login)
    if not write:
        click.echo(f"# {file}")
        click.echo(entry, nl=False)
        return
    before = _content(file)
    if entry in before:
        click.echo(f'{file} has the placeholder for "{host}" already')
        return
    if host in texts.machines(before):
        raise CommandError(f'{file} has an entry for "{host}", and it is never overwritten', hint="remove that entry first, if it may go")
    _put(file, before.rstrip("\n") + "\n" + entry if before.strip() else entry)


@placeholder.command("header")
@click.argument("name")
def header(name: str) -> None:
    """The curl option for a header of any name.

    \b
    Examples:
      credwire placeholder header X-Api-Key
    """
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", name):
        raise click.BadParameter(f'"{name}" is no header name')
    click.echo(f"-H '{name}: {texts.VALUE}'" if "'" not in name else f'-H "{name}: {texts.VALUE}"')


@placeholder.command("bearer")
def bearer() -> None:
    """The curl option for a bearer token.

    \b
    Examples:
      credwire placeholder bearer
    """
    click.echo(f"-H 'Authorization: Bearer {texts.VALUE}'")


@placeholder.command("basic")
@click.argument("user")
def basic(user: str) -> None:
    """The curl option for a user name and a password.

    \b
    Examples:
      credwire placeholder basic reports
    """
    if not re.fullmatch(r"[A-Za-z0-9._@+-]{1,255}", user):
        raise click.BadParameter("a user name is letters, digits, ., -, _, @ and +")
    click.echo(f"-u '{user}:{texts.VALUE}'")


# ---- files -----------------------------------------------------------------------------------------------------------------------------


def _home(*parts: str) -> Path:
    return Path.home().joinpath(*parts)


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"{path} cannot be read: {why}", hint="nothing was written", code=Exit.NOT_ALLOWED) from None


def _there(file: Path, text: str, profile: str) -> bool:
    """Say whether our placeholder is there already; raises CommandError when a profile of somebody's is."""
    found = texts.section(text, profile)
    if texts.MARK in found:
        click.echo(f'{file} has the placeholder "{profile}" already')
        return True
    if found:
        raise CommandError(f'{file} has a profile "{profile}", and it is never overwritten', hint="--profile NAME puts another beside it")
    return False


def _put(path: Path, text: str) -> None:
    """Write; a link (a home directory under version control) stays one."""
    real = Path(os.path.realpath(path))
    before = secret_io.put(real, text.encode(), 0o600, over=True, directory_mode=0o700)
    click.echo(f"{'wrote' if before is None else 'added to'} {path}, mode 0600")


def _key(kept: str = "") -> tuple[str, str]:
    """Make a key, or read the one that is there, and give it with its fingerprint as Oracle shows it (MD5 of the public key's DER)."""
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415  # slow to import
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    if kept:
        try:
            key = form.load_pem_private_key(kept.encode(), None)
        except ValueError:
            raise CommandError("credwire-placeholder.pem in ~/.oci is no key", hint="remove it") from None
    else:
        key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()
    public = key.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.md5(public, usedforsecurity=False).hexdigest()
    return pem, ":".join(digest[at : at + 2] for at in range(0, 32, 2))
