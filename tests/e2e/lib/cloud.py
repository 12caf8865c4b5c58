"""
The test cloud as a process: on loopback with ports of its own, or behind a veth pair with the real names and port 443.

In: a directory to work in and a configuration.  Out: a RunningCloud with its CA file, its records and its fault switches.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from tests.e2e.cloud.faults_io import Faults, write_faults
from tests.e2e.cloud.model import parse_config
from tests.e2e.cloud.record_io import Record, read_records
from tests.e2e.cloud.service import API_HOSTS, AUTH, DOMAIN
from tests.e2e.lib.net import REPOSITORY, FarSide, HarnessError, Subnet, launcher, write_hosts

_START_WITHIN_S = 30


class RunningCloud:
    """A cloud that listens; a context manager."""

    def __init__(self, directory: Path, config: Mapping[str, Any], subnet: Subnet | None = None) -> None:
        """
        Start it in ``directory``; with a ``subnet`` (root only) in its own network namespace on port 443, else on 127.0.0.1 and ::1.

        It dies with the calling thread.  Raises HarnessError, or ConfigError when ``config`` is wrong.
        """
        self.directory = directory
        text = json.dumps(dict(config))
        self.names = (DOMAIN, AUTH, *API_HOSTS, *(parsed := parse_config(text)).extra_api_hosts, *parsed.open_hosts)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cloud.json").write_text(text)
        self.record_file, self.faults_file = directory / "seen.jsonl", directory / "faults.json"
        self.record_file.unlink(missing_ok=True)
        self.faults_file.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "tests.e2e.cloud.main", "--ca-dir", str(directory), "--trusts", str(directory / "cloud.json")]
        argv += ["--record", str(self.record_file), "--faults", str(self.faults_file)]
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        self._log: IO[bytes] = (directory / "cloud.log").open("wb")
        self._far: FarSide | None = None
        if subnet is None:
            argv += ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*launcher("--parent", str(os.getpid())), *argv],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        else:
            argv += ["--listen", f"{subnet.there4}:443", "--listen", f"[{subnet.there6}]:443"]
            self._far = FarSide(argv, subnet, environment=environment, stderr=self._log)
            self.process = self._far.process
        try:
            told = self._first_line()
        except BaseException:
            self.stop()
            raise
        self.ca = Path(told["ca"])
        self.addresses = [(str(host), int(port)) for host, port in told["listening"]]

    def _first_line(self) -> dict[str, Any]:
        stdout = self.process.stdout
        assert stdout is not None
        line = stdout.readline() if select.select([stdout], [], [], _START_WITHIN_S)[0] else b""
        if not line:
            raise HarnessError(f"the cloud did not start: {(self.directory / 'cloud.log').read_text()[-2000:]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def write_hosts(self, path: Path) -> Path:
        """Write a hosts file that sends the cloud's names to it."""
        return write_hosts(path, self.names, [host for host, _ in self.addresses])

    def records(self, wanted: Callable[[Record], bool] = lambda _: True) -> list[Record]:
        """What the cloud saw so far."""
        return [record for record in read_records(self.record_file) if wanted(record)]

    def valid(self) -> list[Record]:
        """The requests that carried a signature which the real service would take."""
        return self.records(lambda record: record.verdict == "valid")

    def misbehave(self, **faults: Any) -> None:
        """Put these faults in force; with none, end them."""
        write_faults(self.faults_file, Faults(**faults))

    def stop(self) -> None:
        """End it."""
        if self._far is not None:
            self._far.stop()
        else:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
