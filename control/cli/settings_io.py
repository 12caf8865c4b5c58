"""
Where this installation keeps its things.

In: the configuration file, as ``--config`` or CREDWIRE_CONFIG names it.  Out: paths.  Read only by commands that need it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli.failure import CommandError

if TYPE_CHECKING:
    from control.daemon.config import Config


def configuration() -> "Config":
    """Read the configuration.  Raises CommandError with the place of its first fault."""
    from control.daemon.config_io import DEFAULT_PATH, load_config  # noqa: PLC0415  # brings the YAML parser

    named = click.get_current_context().find_root().obj
    found, faults = load_config(Path(named) if named else DEFAULT_PATH)
    if found is None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CommandError(f"{faults[0]}{more}", hint=faults[0].hint)
    return found


def admin_socket() -> Path:
    """Where the daemon answers."""
    return Path(configuration().paths.run) / "admin.sock"


def ca_directory() -> Path:
    """Where the bundles lie: one plain file per identity."""
    return Path(configuration().paths.state) / "ca"
