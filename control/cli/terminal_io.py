"""
Say things: answers on stdout, everything else on stderr; and what the top of the command line needs of its surroundings.

In: answers, sentences, the environment.  Out: text on a terminal, harmless to the eye; whether a shell asks for completions; a stdout that
can fail no more.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

COMPLETE_VARIABLE = "_CREDWIRE_COMPLETE"
"""Set by the shell functions that click makes."""


def completion_asked() -> str:
    """Give click's instruction (``bash_source``, ``bash_complete``, …); empty in ordinary use."""
    return os.environ.get(COMPLETE_VARIABLE, "")


def forget_stdout() -> None:
    """Nobody reads stdout any more, or it is full: keep the interpreter's last flush from failing again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def leave(code: int) -> NoReturn:
    """
    End this process with ``code``, without taking it apart: files are closed by who opened them, and nothing else is ours to put in order.

    With gRPC loaded the interpreter's own end takes 30 ms, a sixth of a command.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before we began
        try:
            stream.flush()
        except OSError:  # ^C cut the answer short and nobody reads it any more
            pass
    os._exit(code)


def note(kind: str, text: str) -> None:
    """Say one line on stderr: ``credwire: warning: …``."""
    from control.text import plain  # noqa: PLC0415  # only when there is something to say

    click.echo(f"credwire: {kind}: {plain(text)}", err=True)


def show(value: Any, form: str, text: Callable[[Any], str]) -> None:
    """Print an answer, for eyes or for programs."""
    from control.cli import render  # noqa: PLC0415  # brings msgspec

    click.echo(text(value) if form == "text" else render.document(value, form), nl=False)


def asked_by_people() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
