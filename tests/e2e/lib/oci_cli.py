"""
The real OCI command line, and a profile that holds nothing but placeholders.

In: a directory for the installation, a home directory for the profile.  Out: the path of ``oci``; argv and environment to run it with.
The profile is complete and useless: its key was made a moment ago and no cloud knows it.  Names resolve to the test cloud through the
CLI's own region table (``OCI_REGION_METADATA``), so host names have the real scheme.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import MD5, Hash
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

VERSION = "3.95.1"
DIRECTORY = Path(f"/var/cache/credwire/oci-cli-{VERSION}")
PYTHON = "/usr/bin/python3"
"""The distribution's: the executable that a process of the CLI shows is /usr/bin/python3.11, as on a machine in use."""

REGION = "test-1"
TENANCY = "ocid1.tenancy.oc99..credwiretest"
USER = "ocid1.user.oc99..placeholder"
COMPARTMENT = "ocid1.compartment.oc99..credwiretest"
NAMESPACE = "credwiretest"
BUCKET = "demo"
_REGION_METADATA = {"realmKey": "OC99", "realmDomainComponent": "cloud.test", "regionKey": "TST", "regionIdentifier": REGION}
_STAMP = ".credwire-complete"


class InstallError(Exception):
    """pip or venv failed; the text says where the log is."""


def install(directory: Path = DIRECTORY, say: Callable[[str], None] = print) -> Path:
    """
    Make sure that oci-cli is installed in ``directory`` and give the path of its ``oci``.

    A stamp written last tells a whole installation from a broken one, which is made anew.  Two callers wait for each other.
    Takes 805 MB and about a minute the first time.  Raises InstallError.
    """
    program, stamp = directory / "bin" / "oci", directory / _STAMP
    if stamp.exists() and stamp.read_text() == VERSION:
        return program
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == VERSION:
            return program  # somebody else made it while we waited
        shutil.rmtree(directory, ignore_errors=True)
        _make(directory, say)
        stamp.write_text(VERSION)
    return program


def _make(directory: Path, say: Callable[[str], None]) -> None:
    log = directory.parent / f"{directory.name}.log"
    say(f"oci-cli {VERSION}: making a virtual environment in {directory}")
    _run([PYTHON, "-m", "venv", str(directory)], log, say)
    pip = [str(directory / "bin" / "pip"), "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    say(f"oci-cli {VERSION}: downloading and installing, about 805 MB")
    _run([*pip, f"oci-cli=={VERSION}"], log, say)
    told = subprocess.run([str(directory / "bin" / "oci"), "--version"], capture_output=True, text=True, check=False, env=_clean()).stdout
    if told.strip() != VERSION:
        raise InstallError(f'"oci --version" prints "{told.strip()}" instead of {VERSION}; see {log}')
    say(f"oci-cli {VERSION}: installed")


def _clean() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def _run(argv: list[str], log: Path, say: Callable[[str], None]) -> None:
    with log.open("a") as kept:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0o022)
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            if line.startswith(("Collecting oci", "Installing collected")):
                say(f"oci-cli {VERSION}: {line.split('(')[0].strip()[:60]}")
    if process.wait() != 0:
        raise InstallError(f"{argv[0]} failed with status {process.returncode}; see {log}")


@dataclass(frozen=True, slots=True)
class Profile:
    """How an ordinary user calls the CLI."""

    argv: tuple[str, ...]
    """Goes in front of ``iam user list`` and the like; begins with the script, so that the kernel sees its ``#!``."""
    environment: Mapping[str, str]
    """The whole environment: nothing of the caller's is passed on."""
    key_id: str
    public_key: str
    """PEM of the placeholder key, for a cloud that is told to know it."""


def write_profile(home: Path, *, program: Path, bundle: Path, uid: int | None = None, gid: int | None = None) -> Profile:
    """
    Write ``.oci/config`` and a new key under ``home``, owned by ``uid``.

    ``bundle`` is the CA file the client trusts; it must exist: an empty variable would turn verification off.
    """
    if not bundle.is_file() or not bundle.stat().st_size:
        raise FileNotFoundError(f"CA bundle {bundle} is missing or empty")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    digest = Hash(MD5())  # noqa: S303  # Oracle's fingerprint of an API key is an MD5
    digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    fingerprint = digest.finalize().hex(":")
    directory = home / ".oci"
    directory.mkdir(parents=True, exist_ok=True)
    key_file, config_file = directory / "placeholder.pem", directory / "config"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    key_file.write_text(f"{private}OCI_API_KEY\n")
    config = {"user": USER, "fingerprint": fingerprint, "tenancy": TENANCY, "region": REGION, "key_file": str(key_file)}
    config_file.write_text("[DEFAULT]\n" + "".join(f"{name}={value}\n" for name, value in config.items()))
    for path in (key_file, config_file):
        path.chmod(0o600)
    if uid is not None:
        for path in (home, directory, key_file, config_file):
            os.chown(path, uid, uid if gid is None else gid)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "USER": "credwire-demo",
        "LOGNAME": "credwire-demo",
        "LANG": "C.UTF-8",
        "OCI_REGION_METADATA": json.dumps(_REGION_METADATA),
        "REQUESTS_CA_BUNDLE": str(bundle),
    }
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Profile((str(program), "--no-retry"), environment, f"{TENANCY}/{USER}/{fingerprint}", public)


USER_LIST = ("iam", "user", "list", "--compartment-id", TENANCY)
REGION_LIST = ("iam", "region", "list")
COMPARTMENT_CREATE = ("iam", "compartment", "create", "--compartment-id", TENANCY, "--name", "made-by-demo", "--description", "demo")
NAMESPACE_GET = ("os", "ns", "get")


def object_put(file: Path, name: str, *extra: str) -> tuple[str, ...]:
    """One PUT with ``Expect: 100-continue``; without ``--no-multipart`` the CLI splits what is over 128 MB."""
    return ("os", "object", "put", "-ns", NAMESPACE, "-bn", BUCKET, "--name", name, "--file", str(file), "--force", *extra)


def object_get(file: Path, name: str, *extra: str) -> tuple[str, ...]:
    """One GET into ``file``; ranges in parallel for what is over 128 MB."""
    return ("os", "object", "get", "-ns", NAMESPACE, "-bn", BUCKET, "--name", name, "--file", str(file), *extra)


OBJECT_LIST = ("os", "object", "list", "-ns", NAMESPACE, "-bn", BUCKET)
