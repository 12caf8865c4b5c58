"""
The second verifier of request signatures: npm's http-signature, installed by integrity and asked over a pipe.

In: a request as it was sent and a public key.  Out: "" when the signature is good, otherwise what is wrong with it.
It checks neither the body nor what must be covered beyond ``required``: the caller does (tests/e2e/cloud/request_signature.py).
The versions stand in tests/vectors/http-signature/package-lock.json; ``npm ci`` refuses a package whose SHA-512 differs.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.e2e.lib.net import REPOSITORY

VERSION = "1.4.0"
LOCK = REPOSITORY / "tests" / "vectors" / "http-signature"
DIRECTORY = Path(f"/var/cache/credwire/http-signature-{VERSION}")
_SCRIPT = Path(__file__).with_suffix(".js")
_STAMP = ".credwire-complete"


class VerifierMissing(Exception):
    """It cannot be installed here; the text says why."""


def install(directory: Path = DIRECTORY) -> Path:
    """Make sure that it is there and give its module directory; as root npm is installed too.  Raises VerifierMissing."""
    module, stamp = directory / "node_modules" / "http-signature", directory / _STAMP
    lock = (LOCK / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == lock and shutil.which("node"):
        return module
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        held = (directory.parent / f".{directory.name}.lock").open("w")
    except OSError as error:
        raise VerifierMissing(f"{directory.parent} cannot be written: {error.strerror}") from error
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _npm()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(LOCK, directory)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], directory)
        stamp.write_text(lock)
    return module


def _npm() -> None:
    if shutil.which("npm") and shutil.which("node"):
        return
    if os.geteuid() != 0:
        raise VerifierMissing("nodejs and npm are not installed, and only root can install them")
    _run(["apt-get", "install", "-y", "--no-install-recommends", "nodejs", "npm"], Path("/"), DEBIAN_FRONTEND="noninteractive")


def _run(argv: Sequence[str], directory: Path, **more: str) -> None:
    done = subprocess.run(argv, cwd=directory, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VerifierMissing(f"{' '.join(argv[:2])} failed: {(done.stderr or done.stdout)[-500:]}")


class Verifier:
    """One node process; a context manager."""

    def __init__(self) -> None:
        module = install()
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            ["node", str(_SCRIPT), str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": os.environ.get("PATH", "")}
        )

    def verify(self, *, method: str, target: str, headers: Mapping[str, str], required: Sequence[str], pem: bytes) -> str:
        """Give what is wrong with the signature; empty when it is good and covers ``required``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lowered = {name.lower(): value for name, value in headers.items()}
        asked: dict[str, Any] = {"method": method, "target": target, "headers": lowered, "required": list(required), "pem": pem.decode()}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return "" if told.get("ok") is True else str(told["error"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
