"""
``credwired``: read the configuration, then become the supervisor.

In: command line and credwired.yaml.  Out: an exec of control.daemon.supervisor_io with plain numbers and paths, so that the process that
lives longest never holds a parser.
"""

import sys
from pathlib import Path

import click

_config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=Path("/etc/credwire/credwired.yaml"), show_default=True
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="credwire")
def main() -> None:
    """The privileged daemon of credwire.

    \b
    credwired start                     as a service; systemd's where it runs
    credwired stop                      bound programs are refused until the next start
    credwired run --config FILE         in the foreground, with another configuration
    credwired detach                    remove every BPF program, link and pin
    """


@main.command()
@_config_option
@click.option("--own-cgroup", is_flag=True, help="Serve from the cgroup we were started in, as a service manager made it.")
def run(config_path: Path, *, own_cgroup: bool) -> None:
    """Start the daemon in the foreground.

    \b
    credwired run --config /etc/credwire/credwired.yaml
    """
    from control.daemon.start_io import start  # noqa: PLC0415  # --help stays quick

    sys.exit(start(config_path, own_cgroup=own_cgroup))


@main.command("start")
@_config_option
@click.option(
    "--log", "log", type=click.Path(path_type=Path), default=Path("/var/log/credwire/credwired.log"), show_default=True,
    help="Where it logs without systemd.",
)  # fmt: skip
def start_service(config_path: Path, log: Path) -> None:
    """Start the daemon as a service and wait until it enforces.

    Where systemd runs and has our unit this is systemctl start; elsewhere the daemon gets a session of its own and logs to a file.

    \b
    credwired start
    """
    from control.daemon.background_io import service  # noqa: PLC0415  # --help stays quick

    sys.exit(service(config_path, log))


@main.command("stop")
@_config_option
def stop_service(config_path: Path) -> None:
    """Stop the daemon.  Its programs stay: bound processes are refused until it starts again.

    \b
    credwired stop
    """
    from control.daemon.background_io import service  # noqa: PLC0415  # --help stays quick

    sys.exit(service(config_path, None))


@main.command()
@_config_option
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
