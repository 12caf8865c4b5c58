"""
The commands that change what runs.

In: a command line.  Out: what changed, on stdout; faults with their hints on stderr.  All but the whole off switch ask the daemon; that one
writes to the kernel itself (control/daemon/switch_io.py), so that it works with every process of the daemon dead or hung.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli import render
from control.cli.daemon_io import binding_names, daemon, identity_names
from control.cli.failure import CommandError, Exit
from control.cli.options import output_option, socket_option
from control.cli.settings_io import configuration
from control.cli.terminal_io import note, show

if TYPE_CHECKING:
    from control.api.view import FaultView


def _faults(kind: str, faults: "Sequence[FaultView]", sentences: Sequence[str] = ()) -> None:
    """Say what is wrong, each with its hint; plain sentences where the daemon sent no parts."""
    for fault in faults:
        note(kind, render.fault(fault))
        if fault.hint:
            note("hint", fault.hint)
    for sentence in () if faults else sentences:
        note(kind, sentence)


@click.command()
@output_option
@socket_option
@click.pass_context
def reload(ctx: click.Context, form: str, socket: Path | None) -> None:
    """Read the resources again and swap the whole set, or keep the running one.

    Exit code 1 when the set on disk is refused; what ran before goes on running.

    \b
    Examples:
      credwire reload
      credwire reload -o json
    """
    with daemon(socket, long=True) as admin:
        view = admin.reload()
    for warning in view.warnings:
        note("warning", warning)
    _faults("error", view.faults, view.errors)
    show(view, form, render.reload)
    if not view.swapped:
        ctx.exit(Exit.REFUSED)


@click.command()
@output_option
@socket_option
@click.pass_context
def diff(ctx: click.Context, form: str, socket: Path | None) -> None:
    """Show what a reload would change.

    Compares the documents on disk with the set that runs, and says which open connections a reload would cut.  Exit code 0 whether there
    is a change or not, 1 when a reload would be refused.  Nothing is changed.

    \b
    Examples:
      credwire diff
      credwire diff -o json
    """
    with daemon(socket, long=True) as admin:
        view = admin.diff()
    _faults("warning", view.warnings)
    _faults("error", view.errors)
    show(view, form, render.diff)
    if view.errors:
        ctx.exit(Exit.REFUSED)


@click.command()
@click.option("--binding", metavar="NAME", help="Every grant of this binding, and its lease.", shell_complete=binding_names)
@click.option("--identity", metavar="NAME", help="Every grant and lease of this identity.", shell_complete=identity_names)
@click.option("--pid", type=click.IntRange(min=1), help="Every grant of this process, until it runs another program.")
@output_option
@socket_option
def revoke(*, binding: str | None, identity: str | None, pid: int | None, form: str, socket: Path | None) -> None:
    """Cut open connections and throw leases away, now.

    Name exactly one.  A binding or an identity goes on with a new credential at its next connection; to keep it off, use credwire off
    --binding.  A process gets nothing more until it runs another program.

    \b
    Examples:
      credwire revoke --binding oci-cli-prod
      credwire revoke --identity oci-cli
      credwire revoke --pid 4321
    """
    if sum(given is not None for given in (binding, identity, pid)) != 1:
        raise click.UsageError("name exactly one of --binding, --identity and --pid")
    with daemon(socket) as admin:
        view = admin.revoke(binding=binding or "", identity=identity or "", pid=pid or 0)
    show(view, form, render.revoke)


# ---- the off switch --------------------------------------------------------------------------------------------------------------------


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    del ctx, param
    if value is None:
        return 0.0
    from control.binding.duration import seconds  # noqa: PLC0415  # only for this option

    found = seconds(value)
    if found is None:
        raise click.BadParameter(f'"{value}" is not a duration; write it like 90s, 15m or 2h')
    return float(found)


_BINDING = click.option(
    "--binding", metavar="NAME", help="This binding alone; asks the daemon.  Without it: everything.", shell_complete=binding_names
)


@click.command()
@_BINDING
@click.option("--for", "for_s", metavar="DURATION", callback=_seconds, help="Come on again by itself after 90s, 15m or 2h.")
@output_option
@socket_option
def off(*, binding: str | None, for_s: float, form: str, socket: Path | None) -> None:
    """Switch off: connections go direct, without a credential.

    Everything, or one binding.  Everything needs root and works with every process of the daemon dead or hung: it is said to the kernel
    itself.  One binding goes through the daemon: its hosts get no credential, the others do.  Audited, and the first line of credwire
    status.

    \b
    Examples:
      credwire off --binding oci-cli-prod --for 15m
      credwire off --binding oci-cli-prod
    At 3 a.m., for everything: credwire off --for 15m
    """
    if binding is None:
        _everything(form, off=True, for_s=for_s)
        return
    with daemon(socket) as admin:
        view = admin.switch(binding, off=True, for_s=for_s)
    show(view, form, render.switch)


@click.command()
@_BINDING
@output_option
@socket_option
def on(*, binding: str | None, form: str, socket: Path | None) -> None:
    """Switch on again what credwire off switched off.

    Bindings that were switched off one by one stay off until each is switched on.

    \b
    Examples:
      credwire on --binding oci-cli-prod
    For everything: credwire on
    """
    if binding is None:
        _everything(form, off=False)
        return
    with daemon(socket) as admin:
        view = admin.switch(binding, off=False)
    show(view, form, render.switch)


def _everything(form: str, *, off: bool, for_s: float = 0.0) -> None:
    """Throw the whole switch in the kernel, and say what came of it."""
    if os.geteuid() != 0:
        word = "off" if off else "on"
        hint = f"sudo credwire {word}; for one binding, root and members of the group credwire-admin: --binding NAME"
        raise CommandError(f"switching everything {word} needs root: uid {os.geteuid()} may not", hint=hint, code=Exit.NOT_ALLOWED)
    from control.daemon.switch_io import off as throw_off  # noqa: PLC0415  # needed only here
    from control.daemon.switch_io import on as throw_on  # noqa: PLC0415  # same
    from control.daemon.switch_io import who  # noqa: PLC0415  # same

    by = who()
    outcome = throw_off(configuration(), for_s or None, by) if off else throw_on(configuration(), by)
    for fault in outcome.faults:
        note("warning", fault)
    told = {"off": {"everything": off, "until": outcome.until, "by": by}, **outcome._asdict()}
    attached, cut, killed = outcome.attached, outcome.noticed, outcome.killed
    show(told, form, lambda _: render.switched(outcome.until, off=off, attached=attached, cut=cut, killed=killed))
