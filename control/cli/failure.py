"""
How a command ends.

In: nothing.  Out: the exit codes (docs/cli.md lists them) and the error every command raises when it cannot do what was asked.  Pure.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; ``run`` gives the code of its command instead."""

    OK = 0
    REFUSED = 1
    """The answer is no, the state is unhealthy, or what was asked for does not exist."""
    USAGE = 2
    """The command line is wrong."""
    UNREACHABLE = 3
    """The daemon does not answer."""
    NOT_ALLOWED = 4
    """The caller may not do this."""
    CANNOT_EXECUTE = 126
    """``run`` found the command but could not execute it; as env(1) and the shell say it."""
    NOT_FOUND = 127
    """``run`` did not find the command."""
    INTERRUPTED = 130
    """^C."""
    PIPE_CLOSED = 141
    """Whoever read our output went away."""


class CommandError(Exception):
    """The command ends here: one sentence, one hint, one exit code."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.REFUSED) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code
