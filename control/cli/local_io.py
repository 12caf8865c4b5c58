"""
The commands that work with the daemon dead.

In: a command line, resources in a directory, bundles in the state directory.  Out: verdicts, and settings for other programs.
"""

import shlex
from pathlib import Path
from typing import Any

import click

from control.cli import bundle_io, render, trust
from control.cli.bundle_io import identity_option
from control.cli.failure import CommandError, Exit
from control.cli.options import output_option
from control.cli.settings_io import configuration
from control.cli.terminal_io import note
from control.text import plain

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
    if directory.is_file():
        hint = f"credwire validate {directory.parent}: documents name each other, so a directory is judged as a whole"
        raise CommandError(f"{directory} is a file", hint=hint)
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
            note(kind, str(fault))
            if fault.hint:
                note("hint", fault.hint)
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
    values = trust.settings(str(bundle_io.joined(bundle_io.find(identity))))
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
    bundle = bundle_io.find(identity)
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
