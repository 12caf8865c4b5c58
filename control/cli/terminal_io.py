"""
What the top of the command line needs of its surroundings.

In: the environment and stdout.  Out: whether a shell asks for completions, and a stdout that can fail no more.
"""

import os
import sys

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
