"""
Say which program a command is, as the kernel will see it.

In: the word that somebody types.  Out: the executable and, for a script, the path given to execve().
Rules: execvp(3) for the search; execve(2) and the kernel's fs/binfmt_script.c for the ``#!`` line.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

_LINE: Final = 256
"""BINPRM_BUF_SIZE: what the kernel reads of a file to see what it is."""
_DEEP: Final = 4
"""An interpreter that is a script itself is followed this far (fs/exec.c, exec_binprm: ELOOP at the sixth)."""


class Found(NamedTuple):
    """A program that exists."""

    given: str
    """The path that execve() is given."""
    exe: str
    """Real path of the executable: the interpreter for a script."""
    script: str
    """``given`` again for a script, else empty."""
    by_env: bool
    """The ``#!`` line names env(1): the kernel then sees env, and an interpreter that runs no script of its knowledge."""


def find(command: str) -> Found | None:
    """Find what ``command`` would run; None where there is nothing that could be executed."""
    given = command if "/" in command else _searched(command)
    if given is None:
        return None
    at, script, by_env = given, "", False
    for _ in range(_DEEP):
        interpreter = _interpreter(at)
        if interpreter is None:
            break
        script, at = given, interpreter
        by_env = by_env or Path(interpreter).name == "env"
    else:
        return None
    exe = os.path.realpath(at)
    return Found(given, exe, script, by_env) if is_file(exe) else None


def _searched(command: str) -> str | None:
    for directory in os.get_exec_path():
        path = os.path.join(directory, command)  # noqa: PTH118  # as os.execvpe joins, so that the path is the one that it tries
        if is_file(path) and os.access(path, os.X_OK):
            return path
    return None


def is_file(path: str) -> bool:
    """Say whether there is such a file, as far as we may look: what may not be searched is passed over, as execvp(3) does."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def _interpreter(path: str) -> str | None:
    """Give the interpreter of a ``#!`` script as its line names it; None for what is no script or cannot be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_LINE)
    except OSError:
        return None  # a program without read permission runs all the same
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    return os.fsdecode(words[0]) if words[0] else None
