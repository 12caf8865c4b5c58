"""
Run the cloud.

In: the command line.  Out: one JSON line on stdout when it listens; ends at SIGTERM or SIGINT.
Example: ``python -m tests.e2e.cloud.main --listen 10.77.0.2:443 --ca-dir DIR --trusts trusts.yaml --record seen.jsonl``
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.e2e.cloud.model import ConfigError, parse_config
from tests.e2e.cloud.server_io import Listening, serve


def _listening(text: str) -> Listening:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not ADDRESS:PORT')
    return Listening(host.strip("[]"), int(port))


async def _run(options: argparse.Namespace) -> None:
    config = parse_config(options.trusts.read_text())
    task = asyncio.ensure_future(serve(config, options.listen, options.ca_dir, options.record, options.faults))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        pass  # asked to end


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="cloud", description=__doc__)
    parser.add_argument("--listen", type=_listening, action="append", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--ca-dir", type=Path, required=True, help="directory that gets ca.pem")
    parser.add_argument("--trusts", type=Path, required=True, help="YAML or JSON: clients, trusts, users, apiKeys")
    parser.add_argument("--record", type=Path, required=True, help="file that gets a JSON line per request")
    parser.add_argument("--faults", type=Path, help="file with the faults in force, read at each request")
    try:
        asyncio.run(_run(parser.parse_args()))
    except (ConfigError, OSError) as error:
        print(f"cloud: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
