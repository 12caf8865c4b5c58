"""
The commands that work with the daemon dead.

In: a command line, resources in a directory, bundles in the state directory.  Out: verdicts, settings for other programs, or the program
itself, executed in our place.
"""

import hashlib
import os
import shlex
import socket as sockets
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from control.cli import render, trust
from control.cli.failure import CommandError, Exit
from control.cli.options import identity_option, output_option, socket_option
from control.cli.settings_io import admin_socket, ca_directory, configuration
from control.text import plain


def _note(kind: str, text: str) -> None:
    click.echo(f"credwire: {kind}: {plain(text)}", err=True)


# ---- resources and configuration ---------------------------------------------------------------------------------------------------


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--trust-domain", metavar="DOMAIN", help="For the SPIFFE IDs, when it is not the configured one.")
@click.option("--here", is_flag=True, help="Also look at the executables and scripts of this machine.")
@output_option
@click.pass_context
def validate(ctx: click.Context, *, directory: Path | None, trust_domain: str | None, here: bool, form: str) -> None:
    """Check the resources in a directory; needs no daemon and no root.

    Without DIRECTORY those that the configuration names are checked.  Exit code 1 when a reload would refuse them.

    \b
    Examples:
      credwire validate .
      credwire validate . -o json
    """
    from control.binding.validate_io import validate as judge  # noqa: PLC0415  # brings the YAML parser
    from control.errors import ResourceError  # noqa: PLC0415

    directory = directory or Path(configuration().paths.resources)
    found, errors, warnings = judge(directory, trust_domain or configuration().trust_domain, here=here)

    def told(error: ResourceError) -> dict[str, str]:
        return {"place": str(error.place or ""), "reason": str(error.reason), "message": error.message, "hint": error.hint}

    counts = {
        "identities": len(found.identities) if found else 0,
        "sources": len(found.sources) if found else 0,
        "bindings": len(found.bindings) if found else 0,
    }
    for kind, faults in (("error", errors), ("warning", warnings)):
        for fault in faults if form == "text" else ():
            _note(kind, str(fault))
            if fault.hint:
                _note("hint", fault.hint)
    if form != "text":
        verdict = {"valid": found is not None, "digest": found.digest if found else "", **counts}
        known = {**verdict, "errors": [told(e) for e in errors], "warnings": [told(w) for w in warnings]}
        click.echo(render.document(known, form), nl=False)
    elif found is None:
        click.echo(f"{plain(str(directory))}: not valid: {_count(len(errors), 'error')}, {_count(len(warnings), 'warning')}")
    else:
        made = (("identity", found.identities), ("source", found.sources), ("binding", found.bindings))
        said = ", ".join(_count(len(things), name) for name, things in made)
        click.echo(f"{plain(str(directory))}: valid: {said}, {_count(len(warnings), 'warning')}")
    if found is None:
        ctx.exit(Exit.REFUSED)


def _count(number: int, what: str) -> str:
    many = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number} {what if number == 1 else many}"


@click.group()
def config() -> None:
    """Look at the configuration.

    \b
    Examples:
      credwire config show --defaults
    """


@config.command("show")
@click.option("--defaults", is_flag=True, help="What holds where the file says nothing.")
@output_option
def config_show(defaults: bool, form: str) -> None:
    """Show the configuration as its file says, every key with its value.

    With --defaults each key comes with its reason, as a file to begin with.

    \b
    Examples:
      credwire config show --defaults
      credwire config show --defaults -o json
    """
    from control.cli.configuration import document  # noqa: PLC0415  # brings the YAML parser
    from control.daemon.config import Config, defaults_text  # noqa: PLC0415

    if defaults and form == "text":
        click.echo(defaults_text(), nl=False)
        return
    known = document(Config() if defaults else configuration())
    click.echo(render.document(known, "yaml" if form == "text" else form), nl=False)


# ---- trust -------------------------------------------------------------------------------------------------------------------------


class Bundle(NamedTuple):
    """The bundle of one identity: where it is and what it holds."""

    identity: str
    path: Path
    pem: bytes


def _bundle(identity: str | None) -> Bundle:
    """Find the bundle of ``identity``, or the only one.  Raises CommandError; never gives an empty one."""
    directory = ca_directory()
    if identity is None:
        try:
            known = sorted(path.stem for path in directory.glob("*.pem") if not path.name.startswith("."))
        except PermissionError:
            known = []
        if not known:
            hint = "credwired writes one per identity at a reload; credwire status"
            raise CommandError(f"there is no CA bundle in {directory}", hint=hint)
        if len(known) > 1:
            raise CommandError("several identities have a CA bundle", hint=f"--identity NAME, one of: {', '.join(known)}", code=Exit.USAGE)
        identity = known[0]
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


def _joined(bundle: Bundle) -> Path:
    """
    Give the file to trust: the bundle, or a copy with the private CAs that this environment trusts already.

    The copy is the user's own, named by its content, so that a running program never sees its file change.
    """
    others = []
    for path in trust.previous(os.environ, str(bundle.path)):
        try:
            others.append(Path(path).read_bytes())
        except OSError as error:
            _note("warning", f"{path}, which the environment trusts, cannot be read: {error.strerror}")
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
        _note("warning", f"the CAs the environment trusts are left out: {target} cannot be written: {error.strerror}")
        return bundle.path
    return target


@click.group()
def ca() -> None:
    """Look at the CA bundles, and make clients trust them.

    \b
    Examples:
      credwire ca env
      credwire ca show
    """


@ca.command("env")
@identity_option
@output_option
def ca_env(identity: str | None, form: str) -> None:
    """Print the settings that make clients trust the CAs of an identity.

    For this shell: eval "$(credwire ca env)".  Works with the daemon stopped.  A private CA that the environment trusts already stays
    trusted.

    \b
    Examples:
      credwire ca env
      credwire ca env --identity oci-cli -o json
    """
    values = trust.settings(str(_joined(_bundle(identity))))
    if form == "text":
        click.echo("".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()), nl=False)
    else:
        click.echo(render.document(values, form), nl=False)


@ca.command("show")
@identity_option
@click.option("--pem", is_flag=True, help="The bundle itself.")
@output_option
def ca_show(identity: str | None, *, pem: bool, form: str) -> None:
    """Show the binding CAs in an identity's bundle.

    \b
    Examples:
      credwire ca show
      credwire ca show --identity oci-cli --pem
    """
    bundle = _bundle(identity)
    if pem:
        click.echo(bundle.pem.decode("utf-8", "surrogateescape"), nl=False)
        return
    rows, others = _authorities(bundle.pem)
    if form != "text":
        known = {"identity": bundle.identity, "path": str(bundle.path), "authorities": rows, "other_roots": others}
        click.echo(render.document(known, form), nl=False)
        return
    click.echo(render.pairs([("identity", bundle.identity), ("bundle", str(bundle.path)), ("other roots", str(others))]))
    cells = [(row["binding"], "\n".join(row["names"]), render.utc(row["expires_at"]), row["sha256"][:16]) for row in rows]
    heads = ("BINDING", "MAY SIGN FOR", "UNTIL (UTC)", "SHA-256")
    click.echo(render.table(heads, cells, empty="no binding CA: the identity has no binding"), nl=False)


def _authorities(pem: bytes) -> tuple[list[dict[str, Any]], int]:
    """Tell our CAs, which are constrained to names and name their binding, from the roots around them."""
    import warnings  # noqa: PLC0415

    from cryptography import x509  # noqa: PLC0415  # slow to import
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old roots of the system have odd serial numbers, which is not news to our caller
        known = x509.load_pem_x509_certificates(pem)
    rows: list[dict[str, Any]] = []
    for certificate in known:
        makers = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        if makers != ["credwire"]:
            continue
        bindings = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        names = [name.value for name in constraints.permitted_subtrees or () if isinstance(name, x509.DNSName)]
        rows.append(
            {
                "binding": str(bindings[0].value) if bindings else "",
                "names": sorted(names),
                "expires_at": certificate.not_valid_after_utc.timestamp(),
                "sha256": certificate.fingerprint(SHA256()).hex(),
            }
        )
    return rows, len(known) - len(rows)


# ---- running programs --------------------------------------------------------------------------------------------------------------


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@identity_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing before the command runs.")
@socket_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
def run(identity: str | None, *, quiet: bool, socket: Path | None, command: tuple[str, ...]) -> NoReturn:
    """Run a command whose clients trust the binding CAs.

    Sets the variables of "credwire ca env" and executes CMD in place of credwire: same process, same user, and its exit code is the
    answer (126 when CMD cannot be executed, 127 when there is none).  Which identity CMD has is decided by what it is, not by this
    command: --identity chooses the bundle only.

    \b
    Examples:
      credwire run -- true
      credwire run --identity oci-cli -- true
    """
    bundle = _bundle(identity)
    values = trust.settings(str(_joined(bundle)))
    if not quiet:
        _note("run", f'{command[0]} trusts the CAs of identity "{bundle.identity}" ({values["SSL_CERT_FILE"]})')
        if _nobody_listens(socket or admin_socket()):
            _note("warning", "credwired is not running: connections of bound processes will be refused")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], list(command), {**os.environ, **values})  # noqa: S606  # running what the user names is what it is for
    except FileNotFoundError:
        raise CommandError(f'there is no command "{command[0]}"', hint="check PATH or give its path", code=Exit.NOT_FOUND) from None
    except OSError as error:
        why = (error.strerror or "it cannot be executed").lower()
        raise CommandError(f'"{command[0]}" cannot be executed: {why}', hint="check its mode", code=Exit.CANNOT_EXECUTE) from None


def _nobody_listens(path: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return True
        except OSError:
            return False  # most callers may not ask, which is no sign of a dead daemon
    return False
