"""
``credwired``: read the configuration, then become the supervisor.

In: command line and credwired.yaml.  Out: an exec of control.daemon.supervisor_io with plain numbers and paths, so that the process that
lives longest never holds a parser.
"""

import sys
from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="credwire")
def main() -> None:
    """The privileged daemon of credwire.

    \b
    credwired run                       with /etc/credwire/credwired.yaml
    credwired run --config FILE         with another configuration
    credwired detach                    remove every BPF program, link and pin
    """


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=Path("/etc/credwire/credwired.yaml"), show_default=True)
def run(config_path: Path) -> None:
    """Start the daemon in the foreground.

    \b
    credwired run --config /etc/credwire/credwired.yaml
    """
    from control.daemon.start_io import start  # noqa: PLC0415  # --help stays quick

    sys.exit(start(config_path))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=Path("/etc/credwire/credwired.yaml"), show_default=True)
def detach(config_path: Path) -> None:
    """Remove every BPF program, link and pin; works with every daemon process dead.

    \b
    credwired detach
    """
    from control.daemon.start_io import detach_all  # noqa: PLC0415

    for line in detach_all(config_path):
        click.echo(line)


if __name__ == "__main__":
    main()
