"""
Options that several commands share.

In: nothing.  Out: click decorators.  Pure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

SOCKET_VARIABLE = "CREDWIRE_SOCKET"


def output_option(command: Command) -> Command:
    """``-o``: text for eyes, json and yaml for programs."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(("text", "json", "yaml")), default="text", show_default=True,
        help="text for eyes; json and yaml are stable and only grow.",
    )(command)  # fmt: skip


def socket_option(command: Command) -> Command:
    """``--socket``: which daemon."""
    return click.option(
        "--socket", "socket", type=click.Path(path_type=Path), envvar=SOCKET_VARIABLE, show_envvar=True,
        help="The daemon's admin socket, when it is not the configured one.",
    )(command)  # fmt: skip


def force_option(command: Command) -> Command:
    """``--force``: over what is there."""
    return click.option("--force", is_flag=True, help="Replace what is there.")(command)
