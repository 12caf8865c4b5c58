"""
The commands that ask the daemon.

In: a command line.  Out: answers on stdout; everything else on stderr.  Nothing here decides: the daemon's answer is printed, and the exit
code says whether it was a yes (control/cli/failure.py).
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from control.cli import render
from control.cli.daemon_io import binding_names, daemon
from control.cli.failure import Exit
from control.cli.options import output_option, socket_option
from control.cli.terminal_io import show

_ID: Final = re.compile(r"\bcw-[a-z2-7]{10}\b")
"""What control/audit/event.py gives as an id."""


@click.command()
@output_option
@socket_option
@click.pass_context
def status(ctx: click.Context, form: str, socket: Path | None) -> None:
    """Say how credwire is: processes, revision, health.

    Exit code 1 when a health line is red, or something is switched off: that stands first.

    \b
    Examples:
      credwire status
      credwire status -o json
    """
    with daemon(socket) as admin:
        view = admin.status()
    show(view, form, render.status)
    if not render.well(view):
        ctx.exit(Exit.REFUSED)


@click.group()
def binding() -> None:
    """Look at bindings: identity, source and destinations.

    \b
    Examples:
      credwire binding list
      credwire binding show oci-cli-prod
    """


@binding.command("list")
@output_option
@socket_option
def binding_list(form: str, socket: Path | None) -> None:
    """List the bindings in force.

    \b
    Examples:
      credwire binding list
      credwire binding list -o json
    """
    with daemon(socket) as admin:
        view = admin.bindings()
    show(view, form, render.bindings)


@binding.command("show")
@click.argument("name", shell_complete=binding_names)
@output_option
@socket_option
def binding_show(name: str, form: str, socket: Path | None) -> None:
    """Show everything about the binding NAME.

    \b
    Examples:
      credwire binding show oci-cli-prod
      credwire binding show oci-cli-prod -o yaml
    """
    with daemon(socket) as admin:
        view = admin.binding(name)
    show(view, form, render.binding)


@click.command()
@click.argument("what", metavar="(ID | URL)")
@click.option("--pid", type=click.IntRange(min=1), help="Ask what would happen if this process asked for URL now.")
@click.option("--method", default="GET", show_default=True, help="The method it would use (with --pid).")
@output_option
@socket_option
@click.pass_context
def explain(ctx: click.Context, *, what: str, pid: int | None, method: str, form: str, socket: Path | None) -> None:
    """Say why a request was, or would be, allowed or refused.

    With --pid the question is about URL now, and exit code 1 means that it would be refused.  With an ID, as refusals and the audit
    name it, the question is about the past: exit code 0 whatever happened, 1 when the audit does not know the ID.  Nothing is sent and
    no credential is used.

    \b
    Examples:
      credwire explain --pid 4321 https://identity.test-1.cloud.test/users
      credwire explain --pid 4321 --method GET https://os.test-1.cloud.test/n
      credwire explain 0123456789abcdef
    """
    if pid is None:
        pasted = _ID.search(what)  # people take the bracket of the refusal with it
        what = pasted[0] if pasted else what
        if "/" in what:
            raise click.UsageError("a URL is explained for a process: add --pid N")
        with daemon(socket) as admin:
            show(admin.explain_id(what), form, render.explain)
        return
    _check_url(what)
    with daemon(socket) as admin:
        view = admin.explain_process(pid, what, method)
    show(view, form, render.explain)
    if not view.granted:
        ctx.exit(Exit.REFUSED)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        known = False
    if not known:
        raise click.BadParameter(f'"{url}" is not an http or https URL with a host, like https://api.example.org/', param_hint="URL")


@click.group()
def audit() -> None:
    """Read what happened.

    \b
    Examples:
      credwire audit tail
      credwire audit tail -n 100 -o json
    """


@audit.command("tail")
@click.option("-n", "--lines", "last", type=click.IntRange(0, 10_000), default=10, show_default=True, help="How many of the last events.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until ^C.")
@click.option(
    "-o", "--output", "form", type=click.Choice(("text", "json")), default="text", show_default=True, help="json: an object a line."
)
@socket_option
def audit_tail(last: int, follow: bool, form: str, socket: Path | None) -> None:
    """Show the last events of the audit, oldest first.

    \b
    Examples:
      credwire audit tail
      credwire audit tail -n 100 -o json
    To watch: credwire audit tail -f
    """
    write = render.event if form == "text" else render.json_line
    with daemon(socket) as admin:
        none = True
        for event in admin.audit(last, follow=follow):
            none = False
            click.echo(write(event), nl=False)
    if none and not follow and last and form == "text":
        click.echo("the audit is empty")
