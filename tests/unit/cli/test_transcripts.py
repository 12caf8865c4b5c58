"""Command lines as people meet them: every transcript in transcripts/ is played and compared, stdout, stderr and exit code."""

import re
from pathlib import Path

import msgspec
import pytest

from control.api.view import BindingsView, HealthLine, ProcessView
from tests.unit.api.small import NOBODY, VIEWER, Small, running
from tests.unit.cli.stage import Stage, staged

TRANSCRIPTS = Path(__file__).with_name("transcripts")


def replay(stage: Stage, name: str) -> tuple[str, str]:
    """Play every command of a transcript; give (what it says, what came out)."""
    said = (TRANSCRIPTS / f"{name}.txt").read_text()
    came = [line + "\n" for line in said.splitlines()[:1]]
    for line in said.splitlines():
        if line.startswith("$ "):
            came += [line + "\n", stage.play(line[2:].replace("<dir>", str(stage.directory)))]
    return said, "".join(came)


@pytest.fixture
def stage(tmp_path: Path):
    with staged(tmp_path) as both:
        yield both


def check(stage: Stage, name: str) -> None:
    said, came = replay(stage, name)
    assert came == said
    for line in came.splitlines():
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202e]*", line), line


@pytest.mark.parametrize("name", ["status", "binding", "explain", "audit", "reload", "validate", "usage"])
def test_transcript(stage: tuple[Stage, Small], name: str) -> None:
    """With a healthy daemon of one binding."""
    check(stage[0], name)


def test_unhealthy(stage: tuple[Stage, Small]) -> None:
    """With a stopped proxy, an unloadable directory and a lease that failed."""
    small = stage[1]
    hint = "free the disk under the state directory"
    health = (HealthLine("red", "the audit cannot be written, so no credential is given", hint), HealthLine("warn", "two\x1b[2J workers"))
    small.view.shown = msgspec.structs.replace(
        small.view.shown, enforcing=False, health=health, digest_disk="", counters={}, processes=(ProcessView("proxy", 0, "stopped", 0.0),)
    )
    check(stage[0], "unhealthy")


def test_reload_refused(stage: tuple[Stage, Small]) -> None:
    """With a directory that does not load."""
    stage[1].view.reload_errors = ('/etc/credwire/resources/oci.yaml:9:3: unknown key "selektors"', "second\x1b fault")
    check(stage[0], "reload-refused")


def test_empty(tmp_path: Path) -> None:
    """With a daemon that has nothing yet."""
    stage = Stage(tmp_path)
    (tmp_path / "run").mkdir()
    with running(tmp_path / "run") as small:
        small.view.bound = BindingsView((), 0)
        check(stage, "empty")


def test_trust(stage: tuple[Stage, Small]) -> None:
    """With one bundle on disk."""
    stage[0].bundle("oci-cli")
    check(stage[0], "trust")


def test_trust_several(stage: tuple[Stage, Small]) -> None:
    """With two bundles on disk."""
    stage[0].bundle("oci-cli")
    stage[0].bundle("billing")
    check(stage[0], "trust-several")


def test_dead(tmp_path: Path) -> None:
    """With no daemon, and a bundle it left."""
    stage = Stage(tmp_path)
    stage.bundle("oci-cli")
    check(stage, "dead")


@pytest.mark.parametrize(("name", "rules"), [("denied", NOBODY), ("viewer", VIEWER)])
def test_roles(tmp_path: Path, name: str, rules: object) -> None:
    """With a daemon that gives the caller less than everything."""
    stage = Stage(tmp_path)
    (tmp_path / "run").mkdir()
    with running(tmp_path / "run", rules):  # type: ignore[arg-type]
        said, came = replay(stage, name)
    assert re.sub(r"uid \d+", "uid N", came) == said


def test_every_transcript_is_played() -> None:
    """No file lies in transcripts/ unread."""
    here = Path(__file__).read_text()
    for path in TRANSCRIPTS.glob("*.txt"):
        assert f'"{path.stem}"' in here, path
