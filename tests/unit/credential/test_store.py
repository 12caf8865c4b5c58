"""Keys last over restarts, and doubtful ones are refused."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from control.credential import ca, seal
from control.credential.store_io import Authorities, Store
from control.errors import SetupError
from control.secret import Secret


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


# ---- sealed ------------------------------------------------------------------------------------------------------------------------

KEY = Secret(b"k" * 32)
NOW = 1_800_000_000.0


def sealed(directory: Path, key: Secret | None = KEY) -> Store:
    return Store(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), key)


def all_sealed(directory: Path) -> bool:
    raws = [file.read_bytes() for file in directory.iterdir()]
    return all(seal.is_sealed(raw) and b"PRIVATE KEY" not in raw for raw in raws)


def test_a_directory_with_a_key_holds_nothing_plain(directory: Path) -> None:
    """Issuer and CA come back, and every file is sealed; without the key, or with another, keys does not start."""
    first = sealed(directory)
    kids = [key.kid for key in first.issuer()]
    made = first.make_authority("b", ca.constrained_to(["a.example"]), NOW)
    assert all_sealed(directory)
    assert {stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()} == {0o600}
    again = sealed(directory)
    assert [key.kid for key in again.issuer()] == kids
    assert [a.certificate for a in again.authorities(NOW)["b"]] == [made.certificate]
    with pytest.raises(SetupError, match="was sealed with key"):
        sealed(directory, Secret(b"x" * 32))
    with pytest.raises(SetupError, match="we have no key"):
        sealed(directory, None).issuer()


def test_a_plain_directory_is_sealed_at_its_first_start(directory: Path) -> None:
    """The same keys, now sealed; a start that was cut short half-way goes on where it stopped."""
    before = opened(directory)
    kids = [key.kid for key in before.issuer()]
    before.make_authority("b", ca.constrained_to(["a.example"]), NOW)
    assert not all_sealed(directory)
    plain = {file.name: file.read_bytes() for file in directory.iterdir()}
    assert [key.kid for key in sealed(directory).issuer()] == kids
    assert all_sealed(directory)
    (directory / "sealed").unlink()  # as a crash after the first file leaves it
    (directory / "issuer-rs256.pem").write_bytes(plain["issuer-rs256.pem"])
    assert [key.kid for key in sealed(directory).issuer()] == kids
    assert all_sealed(directory)
    assert len(sealed(directory).authorities(NOW)["b"]) == 1


def test_a_plain_key_in_a_sealed_directory_is_refused(directory: Path) -> None:
    """Who can write here but not seal cannot put a key of theirs in our key's place."""
    good = sealed(directory)
    good.issuer()
    theirs = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = directory / "issuer-es256.pem"
    ours = file.read_bytes()
    file.write_bytes(theirs)
    with pytest.raises(SetupError, match="is not sealed, though"):
        sealed(directory)
    file.write_bytes((directory / "issuer-rs256.pem").read_bytes())
    with pytest.raises(SetupError, match="was sealed for the name"):
        sealed(directory)
    file.write_bytes(ours)
    sealed(directory).issuer()


def test_a_doubtful_plain_file_stops_the_sealing_before_it_begins(directory: Path) -> None:
    """Nothing is rewritten while one of them is not understood."""
    opened(directory).issuer()
    (directory / "issuer-rs256.pem").write_bytes(b"garbage")
    before = (directory / "issuer-es256.pem").read_bytes()
    with pytest.raises(SetupError, match="issuer-rs256"):
        sealed(directory)
    assert (directory / "issuer-es256.pem").read_bytes() == before
