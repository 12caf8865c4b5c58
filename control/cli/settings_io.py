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


def configuration(ctx: click.Context | None = None) -> "Config":
    """Read the configuration.  Raises CommandError with the place of its first fault."""
    from control.daemon.config_io import load_config  # noqa: PLC0415  # brings the YAML parser

    found, faults = load_config(config_path(ctx))
    if found is None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CommandError(f"{faults[0]}{more}", hint=faults[0].hint)
    return found


def config_path(ctx: click.Context | None = None) -> Path:
    """Give the file that is read, there or not."""
    from control.daemon.config_io import DEFAULT_PATH  # noqa: PLC0415  # same

    root = (ctx or click.get_current_context()).find_root()
    named = root.obj or root.params.get("config_path")  # while a shell completes, nobody has run the top command
    return Path(named) if named else DEFAULT_PATH


def admin_socket(ctx: click.Context | None = None) -> Path:
    """Where the daemon answers."""
    return Path(configuration(ctx).paths.run) / "admin.sock"


def ca_directory(ctx: click.Context | None = None) -> Path:
    """Where the bundles lie: one plain file per identity."""
    return Path(configuration(ctx).paths.state) / "ca"


def secrets_directory(config: "Config") -> Path:
    """Where sealed secrets lie: beside the resources, so /etc/credwire/secrets."""
    return Path(config.paths.resources).parent / "secrets"
