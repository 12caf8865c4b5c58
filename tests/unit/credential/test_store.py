"""Keys last over restarts, and doubtful ones are refused."""

import os
import stat
from pathlib import Path

import pytest

from control.credential import ca
from control.credential.store_io import Authorities, Store
from control.errors import SetupError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def opened(directory: Path) -> Store:
    return Store(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))


def test_keys_are_the_same_after_a_restart(directory: Path) -> None:
    """So bundles that clients hold and the JWKS that a domain keeps stay valid."""
    first = opened(directory)
    kids = [key.kid for key in first.issuer()]
    made = first.make_authority("b", ca.constrained_to(["a.example"]), 1_800_000_000.0)
    second = opened(directory)
    assert [key.kid for key in second.issuer()] == kids
    assert [a.certificate for a in second.authorities(1_800_000_000.0)["b"]] == [made.certificate]
    assert {key.algorithm for key in second.issuer()} == {"ES256", "RS256"}


def test_files_are_for_the_owner_only(directory: Path) -> None:
    """0600, and nothing half-written stays."""
    opened(directory).issuer()
    (directory / "ca-1.pem.new").write_bytes(b"half")
    opened(directory).issuer()
    assert {stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()} == {0o600}
    assert not list(directory.glob("*.new"))


@pytest.mark.parametrize("name", ["issuer-es256.pem", "issuer-rs256.pem"])
def test_doubtful_keys_are_refused(directory: Path, name: str) -> None:
    """Readable by others, a link, garbage, the wrong kind: keys does not start, and the error names the file."""
    opened(directory).issuer()
    file = directory / name
    good = file.read_bytes()
    file.chmod(0o640)
    with pytest.raises(SetupError, match=name):
        opened(directory).issuer()
    file.unlink()
    file.symlink_to(directory / "elsewhere")
    with pytest.raises(SetupError, match=name):
        opened(directory).issuer()
    file.unlink()
    for content in (b"", b"garbage", good[:200]):
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(SetupError, match=name):
            opened(directory).issuer()


def test_an_open_directory_is_refused(directory: Path) -> None:
    """Others may not even look."""
    directory.chmod(0o750)
    with pytest.raises(SetupError):
        opened(directory)


def test_an_authority_is_made_once_and_an_ended_one_goes(directory: Path) -> None:
    """The bundle asks twice and gets one CA; a year later its file is gone."""
    store, now = opened(directory), 1_800_000_000.0
    authorities = Authorities(store, store.authorities(now))
    first = authorities.bundle("b", ("a.example",), now)
    assert authorities.bundle("b", ("a.example",), now) == first
    assert len(list(directory.glob("ca-*"))) == 1
    later = now + ca.CA_LIFE_S
    assert opened(directory).authorities(later) == {}
    assert not list(directory.glob("ca-*"))
