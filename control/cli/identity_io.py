"""
``credwire identity``: who processes are, and whether what is pinned is still what lies on the disk.

In: a command line.  Out: what the daemon says of its identities; for ``refresh-digest`` documents with the digests that files have now.
"""

from pathlib import Path

import click

from control.cli import render
from control.cli.daemon_io import daemon, identity_names
from control.cli.failure import CommandError, Exit
from control.cli.options import output_option, socket_option
from control.cli.settings_io import configuration
from control.cli.terminal_io import show
from control.text import plain


@click.group()
def identity() -> None:
    """Look at identities, and keep their digests current.

    \b
    Examples:
      credwire identity list
      credwire identity show oci-cli
    """


@identity.command("list")
@output_option
@socket_option
def identity_list(form: str, socket: Path | None) -> None:
    """List the identities in force.

    \b
    Examples:
      credwire identity list
      credwire identity list -o json
    """
    with daemon(socket) as admin:
        view = admin.identities()
    show(view, form, render.identities)


@identity.command("show")
@click.argument("name", shell_complete=identity_names)
@output_option
@socket_option
def identity_show(name: str, form: str, socket: Path | None) -> None:
    """Show everything about the identity NAME.

    \b
    Examples:
      credwire identity show oci-cli
      credwire identity show oci-cli -o yaml
    """
    with daemon(socket) as admin:
        known = admin.identities().identities
    for view in known:
        if view.name == name:
            show(view, form, render.identity)
            return
    names = ", ".join(sorted(view.name for view in known)) or "none"
    raise CommandError(f'there is no identity "{name}"', hint=f"defined identities: {names}")


@identity.command("refresh-digest")
@click.argument("name", required=False, shell_complete=identity_names)
@click.option("--diff", "whole", is_flag=True, help="Show the lines that change, as diff -u does.")
@click.option("--write", is_flag=True, help="Write the documents; credwire reload then puts them into force.")
def refresh_digest(name: str | None, *, whole: bool, write: bool) -> None:
    """Take pinned digests from the files that lie on the disk now.

    For unix:exe:sha256 and script:sha256 of the identity NAME, or of all.  After an upgrade that somebody looked at: what is pinned is
    trusted.  Says what would change; with --write changes the documents and nothing else in them.  Needs no daemon.

    \b
    Examples:
      credwire identity refresh-digest
      credwire identity refresh-digest oci-cli --diff
      credwire identity refresh-digest oci-cli --write
    """
    import difflib  # noqa: PLC0415  # only here

    from control.binding import refresh_io  # noqa: PLC0415  # brings the YAML parser

    config = configuration()
    found = refresh_io.changes(Path(config.paths.resources), config.trust_domain, name or "")
    if not found:
        click.echo(f"every pinned digest{f' of {name}' if name else ''} is that of its file")
        return
    for change in found:
        before, after = change.before.splitlines(), change.after.splitlines()
        lines = difflib.unified_diff(before, after, change.file, change.file, lineterm="", n=3 if whole else 0)
        for line in lines:
            if whole or (line[:1] in "+-" and line[:3] not in ("+++", "---")):
                click.echo(plain(line if whole else f"{line[:1]} {line[1:].strip()}"))
        if write:
            try:
                refresh_io.write(change)
            except PermissionError:
                hint = "run it as root"
                raise CommandError(f"{change.file} may not be written", hint=hint, code=Exit.NOT_ALLOWED) from None
            except OSError as error:
                raise CommandError(f"{change.file} cannot be written: {error.strerror}", hint="check the directory") from None
            click.echo(f"wrote {plain(change.file)}")
        else:
            click.echo(f"in {plain(change.file)}; nothing is written without --write")
    if write:
        click.echo("next: credwire diff, then credwire reload")
