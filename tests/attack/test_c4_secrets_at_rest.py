"""
Attack C4 at rest: what lies on the disk is worth nothing without the master, and the master lies nowhere in plain.

Each search has its control: the same needle is found where it must be.  Needs root.
"""

import base64
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control.credential import seal
from control.daemon import seal_io
from control.daemon.config import Config, Paths, Seal, read_config
from control.errors import SetupError
from control.secret import Secret
from tests.e2e.lib.memscan import Needle, of_bytes, of_key, scan
from tests.e2e.lib.scene import IDENTITY, USERS, Scene
from tests.unit.keys import play

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the master key is root's")
needs_creds = pytest.mark.skipif(shutil.which("systemd-creds") is None, reason="systemd-creds is not on this machine")
API_KEY = "api-key-of-the-test-4711-and-some-more"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An installation of its own, in ``auto``."""
    tmp_path.chmod(0o711)
    return Config(paths=Paths(state=str(tmp_path / "state")))


@pytest.fixture
def in_use(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Have the master kept this way from now on; gives the name of its file."""

    def use(way: str) -> str:
        if way == "plain":
            no_creds(monkeypatch, tmp_path)
        return {"plain": seal_io.KEY_FILE, "systemd": seal_io.CREDENTIAL}[way]

    return use


@pytest.fixture
def opened() -> Iterator[Callable[[Config], seal_io.Seals]]:
    """open_seals(), whose descriptors go with the test."""
    fds: list[int] = []

    def open_it(config: Config) -> seal_io.Seals:
        seals = seal_io.open_seals(config)
        fds.extend(fd for fd in (seals.keys_fd, seals.secrets_fd) if fd >= 0)
        return seals

    yield open_it
    for fd in fds:
        os.close(fd)


def kept_by(config: Config, how: str, key_file: Path | str = "") -> Config:
    """The same installation with another ``seal.with``."""
    return Config(paths=config.paths, seal=Seal(how, str(key_file)))  # type: ignore[arg-type]


def key_file(directory: Path, raw: bytes = b"k" * 32) -> Path:
    path = directory / "operators.key"
    path.write_bytes(raw)
    path.chmod(0o600)
    return path


def no_creds(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """A machine without systemd-creds."""
    monkeypatch.setattr(seal_io, "_PATH", str(directory))


def state(config: Config) -> Path:
    return Path(config.paths.state)


def listing(config: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(state(config).iterdir()) if path.is_file()}


@pytest.mark.parametrize(
    ("text", "kept", "says"),
    [
        ("", "auto", ""),
        ("seal: {with: systemd}", "systemd", ""),
        ("seal: {with: file, keyFile: /run/secrets/master}", "file", ""),
        ("seal: {with: none}", "none", ""),
        ("seal: {with: file}", "", "belong together"),
        ("seal: {keyFile: /run/secrets/master}", "", "belong together"),
        ("seal: {with: tpm}", "", "tpm"),
        ("seal: {with: file, keyFile: master}", "", "master"),
    ],
)
def test_the_configuration_names_one_way(text: str, kept: str, says: str) -> None:
    """A key file goes with ``file`` and with nothing else; an unknown way is no way."""
    config, errors = read_config("credwired.yaml", text)
    if kept:
        assert config is not None
        assert config.seal.kept == kept
    else:
        assert says in str(errors[0])


# ---- where the master lies ---------------------------------------------------------------------------------------------------------


@needs_creds
def test_systemd_keeps_the_master_and_gives_it_back(config: Config, opened: Callable[[Config], seal_io.Seals]) -> None:
    """The first choice: no red line, two different keys, the same ones at the next start, and no file that holds one of them."""
    first, second = opened(config), opened(config)
    assert (first.how, first.fault) == ("systemd", "")
    keys, secrets = seal_io.key_of(first.keys_fd), seal_io.key_of(first.secrets_fd)
    assert keys != secrets
    assert (seal_io.key_of(second.keys_fd), seal_io.key_of(second.secrets_fd)) == (keys, secrets)
    assert set(listing(config)) == {seal_io.CREDENTIAL, seal_io.RECORD}
    assert {stat.S_IMODE((state(config) / name).stat().st_mode) for name in listing(config)} == {0o600}
    for content in listing(config).values():
        assert keys.reveal() not in content
        assert secrets.reveal() not in content


def test_without_systemd_creds_the_master_lies_plain_and_status_says_so(
    config: Config, opened: Callable[[Config], seal_io.Seals], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A red line with a hint, also at later starts, also when systemd-creds comes back: what is in use stays in use."""
    no_creds(monkeypatch, tmp_path)
    first = opened(config)
    monkeypatch.undo()
    again = opened(config)
    for seals in (first, again):
        assert seals.how == "plain"
        assert seals.fault == "keys at rest are protected by file modes only"
        assert "keyFile" in seals.hint
    assert seal_io.key_of(first.keys_fd) == seal_io.key_of(again.keys_fd)
    assert set(listing(config)) == {seal_io.KEY_FILE, seal_io.RECORD}
    with pytest.raises(SetupError, match=r"seal.with: systemd"):
        seal_io.open_seals(kept_by(config, "systemd"))


def test_an_operators_key_file_is_used_plain_or_in_base64(
    config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path
) -> None:
    """32 bytes in either form are the same master; nothing of it is copied below the state directory."""
    own = kept_by(config, "file", key_file(tmp_path))
    first = opened(own)
    assert (first.how, first.fault) == ("file", "")
    key_file(tmp_path, base64.b64encode(b"k" * 32) + b"\n")
    assert seal_io.key_of(opened(own).keys_fd) == seal_io.key_of(first.keys_fd)
    assert set(listing(own)) == {seal_io.RECORD}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.chmod(0o640), "mode 0600"),
        (lambda path: os.chown(path, 65534, 0), "65534"),
        (lambda path: path.write_bytes(b"short"), "32 bytes"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.parent.chmod(0o777), "may change it|writable"),
        (lambda path: path.write_bytes(b"x" * 32), "another master key"),
    ],
)
def test_a_doubtful_key_file_is_refused(
    config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    """Readable by others, somebody else's, too short, gone, replaceable, another: each is said, and the control beside it opens."""
    room = tmp_path / "room"
    room.mkdir(mode=0o755)
    own = kept_by(config, "file", key_file(room))
    opened(own)
    spoil(room / "operators.key")
    with pytest.raises(SetupError, match=says):
        seal_io.open_seals(own)


def test_none_seals_nothing_and_says_so(config: Config, opened: Callable[[Config], seal_io.Seals]) -> None:
    """No descriptor, nothing written, a red line."""
    seals = opened(kept_by(config, "none"))
    assert (seals.keys_fd, seals.secrets_fd, seals.how) == (-1, -1, "none")
    assert seals.fault
    assert listing(config) == {}
    with pytest.raises(SetupError, match="nothing can be sealed"):
        seal_io.seal_secret(kept_by(config, "none"), "billing", Secret(API_KEY))


# ---- never a new master beside what the old one sealed -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", pytest.param("systemd", marks=needs_creds)])
@pytest.mark.parametrize("gone", [("master",), ("record",), ("master", "record")])
def test_a_master_that_is_gone_is_not_made_anew(
    config: Config, opened: Callable[[Config], seal_io.Seals], in_use: Callable[[str], str], way: str, gone: tuple[str, ...]
) -> None:
    """
    With a sealed key beside it: without the master no start and nothing new on the disk; without the record alone, the same master.

    The hint says what to restore, and how to begin anew on purpose.
    """
    master = in_use(way)
    seals = opened(config)
    own = state(config) / "keys"
    own.mkdir(mode=0o700)
    key = seal_io.key_of(seals.keys_fd)
    (own / "issuer-es256.pem").write_bytes(seal.seal(key, "issuer-es256.pem", Secret("x"), bytes(12)))
    for what in gone:
        (state(config) / {"record": seal_io.RECORD, "master": master}[what]).unlink()
    before = listing(config)
    if gone == ("record",):
        assert seal_io.key_of(opened(config).keys_fd) == key
        return
    with pytest.raises(SetupError, match="master key is gone") as caught:
        seal_io.open_seals(config)
    assert "backup" in caught.value.hint
    assert listing(config) == before


def test_another_master_than_the_one_in_use_is_refused(
    config: Config, opened: Callable[[Config], seal_io.Seals], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key file of another installation, with and without the record."""
    no_creds(monkeypatch, tmp_path)
    seals = opened(config)
    own = state(config) / "keys"
    own.mkdir(mode=0o700)
    (own / "ca-1.pem").write_bytes(seal.seal(seal_io.key_of(seals.keys_fd), "ca-1.pem", Secret("x"), bytes(12)))
    (state(config) / seal_io.KEY_FILE).write_bytes(b"y" * 32)
    with pytest.raises(SetupError, match="another master key"):
        seal_io.open_seals(config)
    (state(config) / seal_io.RECORD).unlink()
    with pytest.raises(SetupError, match="is not the master key with which"):
        seal_io.open_seals(config)


def test_another_way_than_the_one_in_use_is_refused(config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path) -> None:
    """From a key file to nothing, to systemd, to whatever there is: said, with the way back; the way itself still opens."""
    own = kept_by(config, "file", key_file(tmp_path))
    opened(own)
    for other in ("none", "systemd", "auto"):
        with pytest.raises(SetupError, match=r"sealed \(seal.with: file\)") as caught:
            seal_io.open_seals(kept_by(config, other))
        assert "set seal.with back to file" in caught.value.hint
    opened(own)


@needs_creds
def test_a_copied_state_directory_is_useless_elsewhere(config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path) -> None:
    """With another host key, as on another machine, nothing opens; here the very same copy does."""
    opened(config)
    copy = tmp_path / "copy"
    shutil.copytree(state(config), copy)
    copy.chmod(0o711)
    ask = (
        "import sys; from control.daemon import seal_io; from control.daemon.config import Config, Paths\n"
        "from control.errors import SetupError\n"
        "try: print(seal_io.open_seals(Config(paths=Paths(state=sys.argv[1]))).how)\n"
        "except SetupError as error: print('refused', error)"
    )
    elsewhere = 'mount -t tmpfs none /var/lib/systemd && systemd-creds setup && exec "$@"'
    python = [sys.executable, "-c", ask, str(copy)]
    there = subprocess.run(["unshare", "-m", "sh", "-c", elsewhere, "sh", *python], capture_output=True, text=True, check=True)
    assert there.stdout.startswith("refused systemd-creds decrypt"), there
    assert subprocess.run(python, capture_output=True, text=True, check=True).stdout == "systemd\n"


def test_a_state_directory_that_others_may_write_is_refused(config: Config, opened: Callable[[Config], seal_io.Seals]) -> None:
    """They could put a master of theirs there."""
    opened(config)
    state(config).chmod(0o777)
    with pytest.raises(SetupError, match="by others than root"):
        seal_io.open_seals(config)


# ---- secrets of sources ------------------------------------------------------------------------------------------------------------


def test_a_sealed_secret_opens_under_its_name_here_and_nowhere_else(
    config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path
) -> None:
    """What ``credwire seal`` writes the agent reads; not renamed, nor with the key of keys, of another installation, or with none."""
    sealed = seal_io.seal_secret(config, "billing", Secret(API_KEY))
    seals = opened(config)
    assert API_KEY.encode() not in sealed
    assert seal_io.read_secret(sealed, "billing", seals.secrets_fd) == Secret(API_KEY)
    assert seal_io.read_secret(API_KEY.encode() + b"\n", "billing", seals.secrets_fd) == Secret(API_KEY)
    other = opened(Config(paths=Paths(state=str(tmp_path / "other"))))
    for name, fd, says in (
        ("payroll", seals.secrets_fd, "for the name"),
        ("billing", seals.keys_fd, "was sealed with key"),
        ("billing", other.secrets_fd, "was sealed with key"),
        ("billing", -1, "has no key"),
    ):
        with pytest.raises(seal.SealError, match=says):
            seal_io.read_secret(sealed, name, fd)
    with pytest.raises(seal.SealError, match="is empty"):
        seal_io.read_secret(b"\n", "billing", seals.secrets_fd)


# ---- the descriptors ---------------------------------------------------------------------------------------------------------------


def test_a_handed_out_key_cannot_be_changed(config: Config, opened: Callable[[Config], seal_io.Seals]) -> None:
    """Not written, not cut, not grown, and read as often as one likes: the offset is everybody's."""
    fd = opened(config).keys_fd
    key = seal_io.key_of(fd)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x" * 32, 0)
    for size in (0, 64):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.lseek(fd, 32, os.SEEK_SET)
    assert seal_io.key_of(fd) == key
    assert not os.get_inheritable(fd)


def _memfd(raw: bytes, seals: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, raw)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


_ALL = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: _memfd(b"x" * 32, _ALL),  # another installation's
        lambda: _memfd(b"x" * 33, _ALL),
        lambda: _memfd(b"", _ALL),
        lambda: _memfd(b"x" * 32, fcntl.F_SEAL_WRITE),  # whoever made it could still cut it
        lambda: os.open("/dev/zero", os.O_RDONLY),
    ],
)
def test_keys_with_a_wrong_sealing_key_does_not_start(
    config: Config, opened: Callable[[Config], seal_io.Seals], tmp_path: Path, wrong: Callable[[], int]
) -> None:
    """It ends with the reason before it hears anybody; with the right one it starts, and with none it does not either."""
    own = tmp_path / "keys"
    own.mkdir(mode=0o700)
    listener = play.own_listener(tmp_path / "keys.sock")

    def started(fd: int) -> play.Process:
        argument = {"keys_listener": listener.fileno(), "keys_dir": str(own), "seal_fd": fd}
        return play.Process("keys", "KeysSetup", argument, (listener.fileno(), *([fd] if fd >= 0 else [])))

    good = started(opened(config).keys_fd)
    assert good.beaten()
    good.stop()
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    assert all(seal.is_sealed(raw) for raw in before.values())
    fd = wrong()
    for given in (fd, -1):
        bad = started(given)
        assert bad.child.wait(play.DEADLINE_S) == 1
        said = bad.stop()
        assert "keys-doubtful" in said
        assert "keys-ready" not in said
    os.close(fd)
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    listener.close()


# ---- a real start ------------------------------------------------------------------------------------------------------------------


def _files(*roots: Path) -> Iterator[Path]:
    return (path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def test_after_a_real_start_nothing_stands_in_plain(scene: Scene) -> None:
    """
    The whole daemon, one signed request later: state, run time, cache, log, configuration, argv and environment of every process.

    No private key in any form, no master, no derived key, no secret of a sealed file; the control: opened with the master all of them are
    there, and the sealing key of keys is found in the memory of keys and of nobody else.
    """
    stage = scene.stage
    config, errors = read_config(str(stage.config), stage.config.read_text())
    assert config is not None, errors
    with scene.hand("main") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
    secrets_dir = stage.directory / "sealed-secrets"
    secrets_dir.mkdir(mode=0o700)
    (secrets_dir / "billing").write_bytes(seal_io.seal_secret(config, "billing", Secret(API_KEY)))
    seals = seal_io.open_seals(config)
    derived = {"keys": seal_io.key_of(seals.keys_fd), "secrets": seal_io.key_of(seals.secrets_fd)}
    assert seal_io.read_secret((secrets_dir / "billing").read_bytes(), "billing", seals.secrets_fd) == Secret(API_KEY)
    os.close(seals.keys_fd)
    os.close(seals.secrets_fd)

    needles = [*of_bytes("secret of the source", API_KEY.encode())]
    for name, key in derived.items():
        needles += of_bytes(f"sealing key {name}", key.reveal())
    own = list(_files(stage.state / "keys"))
    assert len(own) >= 3
    for path in own:
        raw = path.read_bytes()
        assert seal.is_sealed(raw), path
        plain = seal.unseal(derived["keys"], path.name, raw).reveal()
        if b"PRIVATE KEY" in plain:
            needles += of_key(path.name, load_pem_private_key(plain, None))  # type: ignore[arg-type]
    assert sum(needle.secret.startswith("issuer") for needle in needles) > 2
    assert any(needle.secret.startswith("ca-") for needle in needles)

    texts = {str(path): path.read_bytes() for path in _files(stage.state, stage.run, stage.cache, secrets_dir)}
    texts |= {str(path): path.read_bytes() for path in (stage.directory / "daemon.log", stage.config)}
    for role, pid in scene.workers().items():
        texts |= {f"{what} of {role}": Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ")}
    for where, text in texts.items():
        assert b"PRIVATE KEY" not in text, where
        assert not _within(needles, text), where
    record = json.loads((stage.state / seal_io.RECORD).read_text())
    assert set(record) == {"with", "key"}

    keys_needles = of_bytes("sealing key keys", derived["keys"].reveal())
    assert scan([scene.stage.pid("keys")], keys_needles, keys=False).findings
    others = [pid for name, pid in scene.workers().items() if name not in ("keys", "credwired")]
    assert not scan(others, keys_needles, keys=False).findings


def _within(needles: list[Needle], text: bytes) -> list[str]:
    return [needle.secret for needle in needles if needle.bytes_ in text]
