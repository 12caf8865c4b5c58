"""
The real AWS command line, with credentials that are nothing but placeholders.

In: a directory for the installation, a home directory.  Out: the path of ``aws``, and the environment to run it with.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.e2e.lib.oci_cli import PYTHON, InstallError

VERSION = "1.46.3"
DIRECTORY = Path(f"/var/cache/credwire/awscli-{VERSION}")
_STAMP = ".credwire-complete"


def install(directory: Path = DIRECTORY, say: Callable[[str], None] = print) -> Path:
    """
    Make sure that awscli is installed in ``directory`` and give the path of its ``aws``.

    A stamp written last tells a whole installation from a broken one, which is made anew.  Two callers wait for each other.
    Takes 200 MB and half a minute the first time.  Raises InstallError.
    """
    program, stamp = directory / "bin" / "aws", directory / _STAMP
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == VERSION:
            return program
        shutil.rmtree(directory, ignore_errors=True)
        say(f"awscli {VERSION}: installing in {directory}")
        log = directory.parent / f"{directory.name}.log"
        pip = [str(directory / "bin" / "pip"), "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        for argv in ([PYTHON, "-m", "venv", str(directory)], [*pip, f"awscli=={VERSION}"]):
            with log.open("a") as kept:
                done = subprocess.run(argv, stdout=kept, stderr=subprocess.STDOUT, umask=0o022, check=False)
            if done.returncode != 0:
                raise InstallError(f"{argv[0]} failed with status {done.returncode}; see {log}")
        stamp.write_text(VERSION)
    return program


def environment(home: Path, bundle: Path, uid: int) -> Mapping[str, str]:
    """Give the whole environment of a run: placeholder keys, no retries, no metadata service, and the CA file to trust."""
    if not bundle.is_file() or not bundle.stat().st_size:
        raise FileNotFoundError(f"CA bundle {bundle} is missing or empty")
    home.mkdir(exist_ok=True)
    os.chown(home, uid, uid)
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": "AKIAPLACEHOLDER00000",
        "AWS_SECRET_ACCESS_KEY": "placeholder",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "AWS_CA_BUNDLE": str(bundle),
    }
