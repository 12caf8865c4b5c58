"""
Secrets of sources: what is read, what is refused, and what status says of the files before.

In: real files in a directory of root's.  Out: the secret, or the sentence with its hint.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.binding.model import OciSource, Source, StaticSource
from control.daemon.secret_io import SECRET_MOST, Vault
from control.errors import SetupError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a secret file is root's")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a path that is root's alone."""
    made = Path(tempfile.mkdtemp(prefix="credwire-", dir="/run"))
    yield made
    shutil.rmtree(made)


def source(path: Path | None = None, *, credential: str = "") -> Source:
    return Source("key", StaticSource(file=str(path or ""), systemd_credential=credential), "prod", 60)


def written(path: Path, content: bytes = b"swordfish\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_plain_file_of_roots_is_read_without_its_line_break(place: Path, mode: int) -> None:
    """As an editor leaves it."""
    assert Vault(-1, "").read(source(written(place / "key", mode=mode))).reveal() == b"swordfish"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.chmod(0o640), "readable by others: mode 0640"),
        (lambda path: path.chmod(0o604), "readable by others: mode 0604"),
        (lambda path: os.chown(path, 64001, 0), "others than root may change it"),
        (lambda path: path.parent.chmod(0o777), "others than root may change it"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a regular file"),
        (lambda path: (path.unlink(), path.mkdir(0o700)), "is a directory"),
        (lambda path: path.write_bytes(b"x" * (SECRET_MOST + 1)), "is larger than"),
        (lambda path: path.write_bytes(b"\n"), "is empty"),
    ],
)
def test_a_file_that_others_may_read_or_change_is_not_read(place: Path, spoil, says: str) -> None:
    """Nor is what is no plain file, too large or empty; the sentence holds nothing of the secret."""
    path = written(place / "key")
    spoil(path)
    with pytest.raises(SetupError) as refused:
        Vault(-1, "").read(source(path))
    assert says in str(refused.value)
    assert refused.value.hint
    assert "swordfish" not in f"{refused.value} {refused.value.hint}"


def test_a_credential_of_systemd_is_found_in_its_directory(place: Path) -> None:
    """By name; without the directory the hint says what the unit lacks."""
    written(place / "api-key", mode=0o400)
    assert Vault(-1, str(place)).read(source(credential="api-key")).reveal() == b"swordfish"
    with pytest.raises(SetupError, match='no credential "api-key"') as missing:
        Vault(-1, "").read(source(credential="api-key"))
    assert "LoadCredentialEncrypted=api-key" in missing.value.hint


def test_status_is_told_of_plain_and_open_files_and_of_nothing_else(place: Path) -> None:
    """A plain one is a warning where there is a key to seal with; an open one will be refused."""
    plain, open_to_all = source(written(place / "plain")), source(written(place / "open", mode=0o644))
    instance = Source("i", OciSource("https://x.example", client_auth="instancePrincipal"), "prod", 60)
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        judged = Vault(fd, "").judge([plain, open_to_all, instance])
    finally:
        os.close(fd)
    assert [(j.refused, j.hint.split()[0]) for j in judged] == [(False, "credwire"), (True, "chown")]
    assert "lies plain" in judged[0].says
    assert Vault(-1, "").judge([plain, instance]) == []
    assert "swordfish" not in str(judged)
