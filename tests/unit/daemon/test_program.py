"""What is opened when somebody asks about a program: files that may be executed, and nothing that lies in their place by then."""

import os
import stat
from pathlib import Path

import pytest

from control.api.view import Program
from control.daemon import program_io
from control.daemon.program_io import imagine
from control.errors import Refusal
from control.facts.model import Facts, PathFact
from control.facts.path_io import look

WANTED = {"unix:exe:sha256": frozenset({"0" * 64})}


def test_a_device_that_lies_there_since_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks owns the directory and swaps the file for a link between the look and the digest: opening a watchdog arms it."""
    path = tmp_path / "program"
    path.write_bytes(b"#!/bin/true\n")
    path.chmod(0o755)
    opened: list[int] = []
    real = os.open

    def swapped(name: str) -> PathFact:
        found = look(name)
        path.unlink()
        path.symlink_to("/dev/null")
        return found

    def watched(name: str, flags: int, *more: int, **others: int) -> int:
        fd = real(name, flags, *more, **others)
        if not flags & os.O_PATH:
            opened.append(os.fstat(fd).st_mode)
        return fd

    monkeypatch.setattr(program_io, "look", swapped)
    monkeypatch.setattr(os, "open", watched)
    facts = imagine(Program(str(path), "", 0, 0), WANTED)
    monkeypatch.undo()
    assert isinstance(facts, Facts)
    assert facts.exe_sha256 is None
    assert not [mode for mode in opened if stat.S_ISCHR(mode)]


def test_what_may_not_be_executed_has_no_digest(tmp_path: Path) -> None:
    """A secret that is called a program stays one; a program has its digest."""
    path = tmp_path / "file"
    path.write_bytes(b"secret")
    digests = []
    for mode in (0o600, 0o755):
        path.chmod(mode)
        facts = imagine(Program(str(path), "", 0, 0), WANTED)
        assert isinstance(facts, Facts)
        digests.append(facts.exe_sha256)
    assert digests[0] is None
    assert digests[1]


def test_who_may_not_look_hears_the_same_as_of_nothing(tmp_path: Path) -> None:
    """A directory that keeps a user out keeps its names too, also behind a link; its owner is told."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    tool = private / "tool"
    tool.write_bytes(b"#!/bin/true\n")
    tool.chmod(0o755)
    open_to_all = Path("/var/tmp") / f"credwire-link-{os.getpid()}"  # outside of the test's own directory, which keeps strangers out too
    open_to_all.symlink_to(tool)
    stranger = os.getuid() + 4711
    try:
        there, absent, linked = (
            imagine(Program(str(path), "", stranger, stranger), WANTED) for path in (tool, private / "other", open_to_all)
        )
    finally:
        open_to_all.unlink()
    assert isinstance(there, Refusal)
    assert isinstance(absent, Refusal)
    assert there.detail.replace("tool", "other") == absent.detail
    assert isinstance(linked, Refusal)
