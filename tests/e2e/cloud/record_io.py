"""
Keep one JSON line per request that reached the cloud, so that a test can say what did not.

In: Records.  Out: lines in a file; ``read_records`` reads them back.
``principal`` is set whenever a genuine token or key id was presented, even under a signature that does not verify.
"""

import os
from pathlib import Path

import msgspec


class Record(msgspec.Struct, frozen=True):
    """What the cloud saw and thought."""

    at: float
    """Unix seconds."""
    kind: str
    """``api``, ``exchange``, ``x509`` or ``open``"""
    host: str
    method: str
    path: str
    """The target, raw, as it stood in the request line."""
    verdict: str
    """api: ``valid``, ``invalid``, ``unsigned``; exchange: ``exchanged``, ``refused``; open: ``open``"""
    why: str
    key_id_kind: str
    principal: str
    client: str
    """Address the connection came from."""
    client_port: int
    status: int
    body_bytes: int
    """Bytes of the request's body that arrived."""
    expect_continue: bool
    """The client asked for a 100 before the body."""


class Recorder:
    """Appends whole lines; one write each, so that a reader never sees half a line."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, record: Record) -> None:
        """Append one line."""
        os.write(self._fd, msgspec.json.encode(record) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_records(path: Path) -> list[Record]:
    """Read all lines; a file that is not there holds none."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]
