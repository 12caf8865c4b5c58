"""
``credwire``: find the command, run it, say how it ended.

In: the command line.  Out: an exit code of control/cli/failure.py.  Commands are imported when they are called, so that ``--help`` and
completion stay quick; JOBS says where each one lives.
"""

import gc
import importlib
import sys
from typing import Final, NamedTuple

import click

from control.cli.failure import CommandError, Exit
from control.cli.terminal_io import COMPLETE_VARIABLE, completion_asked, forget_stdout, leave


class Entry(NamedTuple):
    """Where a command is, and what the overview says of it."""

    module: str
    name: str
    says: str


JOBS: Final[dict[str, dict[str, Entry]]] = {
    "Begin": {
        "init": Entry("control.cli.init_io", "init", "Make a first binding of your own: one file, one secret."),
        "placeholder": Entry("control.cli.placeholder_io", "placeholder", "Make the worthless credential that a client needs to start."),
        "federation": Entry(
            "control.cli.federation_io", "federation", "Prepare the far side's trust in our issuer, and look whether it can work."
        ),
        "seal": Entry("control.cli.secret_io", "seal", "Seal a secret into the file NAME of the secrets directory."),
    },
    "Run programs": {
        "run": Entry("control.cli.run_io", "run", "Run a command whose clients trust the binding CAs."),
        "ca": Entry("control.cli.local_io", "ca", "Look at the CA bundles, and make clients trust them."),
    },
    "See what happens": {
        "status": Entry("control.cli.ask_io", "status", "Say how credwire is: processes, revision, health."),
        "binding": Entry("control.cli.ask_io", "binding", "Look at bindings: identity, source and destinations."),
        "identity": Entry("control.cli.identity_io", "identity", "Look at identities, and keep their digests current."),
        "explain": Entry("control.cli.ask_io", "explain", "Say why a request was, or would be, allowed or refused."),
        "audit": Entry("control.cli.ask_io", "audit", "Read what happened."),
    },
    "Change what runs": {
        "validate": Entry("control.cli.local_io", "validate", "Check the resources in a directory; needs no daemon and no root."),
        "diff": Entry("control.cli.change_io", "diff", "Show what a reload would change."),
        "reload": Entry("control.cli.change_io", "reload", "Read the resources again and swap the whole set, or keep the running one."),
        "config": Entry("control.cli.local_io", "config", "Look at the configuration."),
    },
    "Stop it": {
        "off": Entry("control.cli.change_io", "off", "Switch off: connections go direct, without a credential."),
        "on": Entry("control.cli.change_io", "on", "Switch on again what credwire off switched off."),
        "revoke": Entry("control.cli.change_io", "revoke", "Cut open connections and throw leases away, now."),
    },
}
"""Jobs to commands, in the order of the overview."""

_ENTRIES: Final = {name: entry for commands in JOBS.values() for name, entry in commands.items()}


class Overview(click.Group):
    """The top of the command line: commands by job, none imported before it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Name the commands, also for completion."""
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # same
        """Import one command."""
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # same
        """Write the jobs."""
        for job, commands in JOBS.items():
            with formatter.section(job):
                formatter.write_dl([(name, entry.says) for name, entry in commands.items()])


@click.group(cls=Overview, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="credwire", message="credwire %(version)s")
@click.option(
    "--config", "config_path", type=click.Path(), envvar="CREDWIRE_CONFIG", show_envvar=True, metavar="FILE",
    help="The configuration, when it is not /etc/credwire/credwired.yaml.",
)  # fmt: skip
@click.pass_context
def credwire(ctx: click.Context, config_path: str | None) -> None:
    """Credentials on the wire, never in the workload.

    \b
    Examples:
      credwire status
      credwire explain --pid 4321 https://identity.test-1.cloud.test/users
      credwire run -- true

    \b
    Exit codes: 0 yes, 1 refused or unhealthy, 2 wrong command line,
    3 the daemon does not answer, 4 not allowed.
    Completion: eval "$(_CREDWIRE_COMPLETE=bash_source credwire)"
    """
    ctx.obj = config_path


def main() -> None:
    """Entry of the command ``credwire``."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage: searching them takes 10 ms; following the audit still is tidied
    leave(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code."""
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # closed before we began
            sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        return Exit.PIPE_CLOSED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except OSError as error:  # what commands expect they answer themselves: this is stdout
        forget_stdout()
        return _fail(f"the answer cannot be written: {error.strerror or error}", "", Exit.REFUSED)
    return code


def _run(arguments: list[str]) -> int:
    instruction = completion_asked()
    if instruction:
        from click.shell_completion import shell_complete  # noqa: PLC0415  # only while a shell completes

        return shell_complete(credwire, {}, "credwire", COMPLETE_VARIABLE, instruction)
    from control.api.ask import AskError, Fault  # noqa: PLC0415  # keeps completion quick
    from control.errors import CredwireError  # noqa: PLC0415

    try:
        with credwire.make_context("credwire", list(arguments)) as ctx:
            credwire.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "credwire"
        return _fail(_lower(error.format_message()), f"{path} --help", Exit.USAGE)
    except CommandError as error:
        return _fail(error.message, error.hint, error.code)
    except AskError as error:
        codes = {Fault.UNREACHABLE: Exit.UNREACHABLE, Fault.NOT_ALLOWED: Exit.NOT_ALLOWED, Fault.REFUSED: Exit.REFUSED}
        return _fail(error.message, error.hint, codes[error.fault])
    except CredwireError as error:
        return _fail(str(error), error.hint, Exit.REFUSED)
    return Exit.OK


def _fail(message: str, hint: str, code: Exit) -> int:
    from control.text import plain  # noqa: PLC0415  # only when something failed

    click.echo(f"credwire: error: {plain(message)}", err=True)
    if hint:
        click.echo(f"credwire: hint: {plain(hint)}", err=True)
    return code


def _lower(message: str) -> str:
    """Give click's sentence the form of ours: lower case first, no full stop."""
    message = message.rstrip().removesuffix(".").replace("\n", " ")
    return message[:1].lower() + message[1:]


if __name__ == "__main__":
    main()
