"""
``credwire run``: a program in our place, its clients trusting the binding CAs.

In: a command, the bundle of an identity.  Out: the program itself, executed; before that, on stderr, what credwire will make of it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Final

import click

from control.api.ask import AskError, Fault
from control.cli import bundle_io, preflight, trust
from control.cli.bundle_io import Bundle, identity_option
from control.cli.daemon_io import daemon, look_at
from control.cli.failure import CommandError, Exit
from control.cli.options import socket_option
from control.cli.preflight import Line
from control.cli.program_io import Found, find
from control.cli.settings_io import admin_socket, configuration
from control.cli.terminal_io import note

_ANSWER_S: Final = 1.0
"""A preflight is no reason to wait longer."""
_CODES: Final = {Fault.UNREACHABLE: Exit.UNREACHABLE, Fault.NOT_ALLOWED: Exit.NOT_ALLOWED, Fault.REFUSED: Exit.REFUSED}


class Preflight:
    """What was found out before the start."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.identity = ""
        """Who the program would be; empty when nobody knows."""
        self.pem = b""
        """The bundle of that identity, as the daemon has it."""
        self.code = Exit.OK
        """What ``--check`` ends with."""

    def add(self, line: Line, code: Exit = Exit.REFUSED) -> None:
        """Note one finding; the first bad one decides the exit code."""
        self.lines.append(line)
        if not line.fine and self.code is Exit.OK:
            self.code = code

    def compare(self, bundle: Bundle) -> None:
        """See whether the bundle is the right one and the newest."""
        if not self.identity:
            return
        if self.identity != bundle.identity:
            says = f'the bundle is of identity "{bundle.identity}", and the program would be "{self.identity}"'
            self.add(Line(False, f"{says}: it would not trust its CAs", f"--identity {self.identity}"))
        elif set(trust.certificates(self.pem)) - set(trust.certificates(bundle.pem)):
            self.add(Line(False, f"{bundle.path} lacks CAs that the daemon has", "credwire reload writes it anew"))

    def say(self) -> None:
        """Print what was found."""
        for line in self.lines:
            note("run" if line.fine else "warning", line.says)
            if line.hint:
                note("hint", line.hint)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@identity_option
@click.option("-q", "--quiet", is_flag=True, help="Ask nothing and say nothing before the command runs.")
@click.option("--check", is_flag=True, help="Do not run it: say what would happen, exit code 1 when something would get no credential.")
@socket_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
@click.pass_context
def run(ctx: click.Context, identity: str | None, *, quiet: bool, check: bool, socket: Path | None, command: tuple[str, ...]) -> None:
    """Run a command whose clients trust the binding CAs.

    Sets the variables of "credwire ca env" and executes CMD in place of credwire: same process, same user, and its exit code is the
    answer (126 when CMD cannot be executed, 127 when there is none).  Before that it asks the daemon, where it may, which identity CMD
    has here and whether the URLs among its arguments are destinations.  Which identity CMD has is decided by what it is, not by this
    command: --identity chooses the bundle only.

    \b
    Examples:
      credwire run -- true
      credwire run -q --identity oci-cli -- true
    To look only: credwire run --check -- curl https://api.example.org/
    """
    found = find(command[0])
    seen = Preflight() if quiet and not check else _asked(socket or admin_socket(), found, command, whole=check)
    try:
        bundle = bundle_io.find(identity, likely=seen.identity)
    except CommandError:
        seen.say()  # often the reason
        raise
    values = trust.settings(str(bundle_io.joined(bundle)))
    if check or not quiet:
        seen.compare(bundle)
        note("run", f'{command[0]} trusts the CAs of identity "{bundle.identity}" ({values["SSL_CERT_FILE"]})')
        seen.say()
    if check:
        if found is None:
            raise CommandError(f'there is no command "{command[0]}"', hint="check PATH or give its path", code=Exit.NOT_FOUND)
        ctx.exit(seen.code)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], list(command), {**os.environ, **values})  # noqa: S606  # running what the user names is what it is for
    except FileNotFoundError:
        raise CommandError(f'there is no command "{command[0]}"', hint="check PATH or give its path", code=Exit.NOT_FOUND) from None
    except OSError as error:
        why = (error.strerror or "it cannot be executed").lower()
        raise CommandError(f'"{command[0]}" cannot be executed: {why}', hint="check its mode", code=Exit.CANNOT_EXECUTE) from None


def _asked(path: Path, found: Found | None, command: tuple[str, ...], *, whole: bool) -> Preflight:
    """Ask the daemon about the program; what cannot be asked is said and stops nothing.  ``whole`` also says what goes without saying."""
    seen = Preflight()
    try:
        look_at(path)
        with daemon(path, answer_s=_ANSWER_S) as admin:
            from control.api.view import Program  # noqa: PLC0415  # came with gRPC

            status = admin.status()
            state = preflight.state(status)
            if whole or not state.fine:
                seen.add(state)
            if found is None:
                return seen
            program = Program(found.exe, found.script, os.geteuid(), os.getegid())
            view = admin.explain_program(program)
            seen.add(preflight.identity(found.script or found.exe, view, program.uid))
            if found.by_env:
                says = f"{found.given} is started through env: the kernel does not say which script runs"
                seen.add(Line(False, says, "write the interpreter's own path into its #! line"))
            if not view.identity or not view.granted:
                return seen
            seen.identity = view.identity
            wishes = preflight.wishes(command[1:])
            modes = {row.name: row.mode for row in admin.bindings().bindings} if wishes else {}
            for wish in wishes:
                told = admin.explain_program(program, wish.url, wish.method)
                seen.add(preflight.wish(wish, told, modes, status.off.bindings))
            seen.pem = admin.bundle(seen.identity).pem.encode()
    except AskError as error:
        _unasked(seen, error)
    return seen


def _gone() -> bool:
    """
    Whether the daemon that wrote its table of processes has ended; everybody may know, so that whoever is refused is not left guessing.

    A daemon that was stopped in order took the table with it: then its directory has no table, or there is none.
    """
    try:
        rows = json.loads((Path(configuration().paths.run) / "processes.json").read_text())
        return not Path(f"/proc/{int(rows[0]['pid'])}").exists()
    except FileNotFoundError:
        return True
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _unasked(seen: Preflight, error: AskError) -> None:
    code = _CODES[error.fault]
    if error.fault is Fault.NOT_ALLOWED:
        seen.lines.append(Line(True, "identity and destinations are not checked (needs group credwire-view)"))
        seen.code = code
        if _gone():
            seen.add(Line(False, "credwired has ended: connections of bound processes will be refused", "credwired start, as root"), code)
    elif error.fault is Fault.UNREACHABLE:
        seen.add(Line(False, f"{error.message}: connections of bound processes will be refused", error.hint), code)
    else:
        seen.add(Line(False, f"not checked: {error.message}", error.hint), code)
