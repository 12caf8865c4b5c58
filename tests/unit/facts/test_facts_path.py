"""Walking a path: who could have put the file there.  Runs as anybody: the files are owned by whoever runs the tests."""

import os
from pathlib import Path

import pytest

from control.facts.path_io import file_id, look, served_by

ME = os.geteuid()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that nobody else may write; /tmp above it is sticky."""
    tmp_path.chmod(0o755)
    (tmp_path / "bin").mkdir(mode=0o755)
    tool = tmp_path / "bin" / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    return tmp_path


def mine(path: Path) -> tuple[bool, str]:
    """Judge as if we were root."""
    fact = look(str(path), owner=ME, sticky_ok=True)
    return fact.root_owned, fact.fault


def test_a_file_of_roots_in_directories_of_roots_is_trusted() -> None:
    """/usr/bin/env is root's all the way."""
    fact = look("/usr/bin/env")
    assert fact.root_owned
    assert fact.fault == ""
    assert fact.file == file_id(Path("/usr/bin/env").stat())


def test_own_file_is_trusted_with_its_owner_and_refused_without(tree: Path) -> None:
    """The same walk with and without that owner, as an ordinary user; as root the owner is root."""
    assert mine(tree / "bin" / "tool") == (True, "")
    if ME != 0:
        fact = look(str(tree / "bin" / "tool"), sticky_ok=True)
        assert not fact.root_owned
        assert f"owned by uid {ME}" in fact.fault


def test_a_sticky_directory_does_not_help(tree: Path) -> None:
    """Anybody may add to a sticky directory, so a path through it can be another file tomorrow."""
    tree.chmod(0o1777)
    fact = look(str(tree / "bin" / "tool"), owner=ME)
    assert not fact.root_owned
    assert "writable by group or others" in fact.fault


@pytest.mark.parametrize(("part", "mode"), [("bin", 0o775), ("bin", 0o757), ("bin/tool", 0o775), ("bin/tool", 0o722), (".", 0o777)])
def test_one_writable_component_is_enough_to_refuse(tree: Path, part: str, mode: int) -> None:
    """Group or others, directory or file: the fault names the component."""
    (tree / part).chmod(mode)
    trusted, fault = mine(tree / "bin" / "tool")
    assert not trusted
    assert str(tree / part).removesuffix("/.") in fault


def test_a_link_is_followed_and_every_directory_behind_it_counts(tree: Path) -> None:
    """A link in a good directory to a file in a writable one is refused; to a good one, trusted, and says where it leads."""
    (tree / "open").mkdir()
    (tree / "open").chmod(0o777)
    (tree / "open" / "tool").write_text("x")
    (tree / "open" / "tool").chmod(0o755)
    (tree / "bad").symlink_to("open/tool")
    (tree / "good").symlink_to(tree / "bin" / "tool")
    trusted, fault = mine(tree / "bad")
    assert not trusted
    assert f"{tree}/open is writable" in fault
    fact = look(str(tree / "good"), owner=ME, sticky_ok=True)
    assert fact.root_owned
    assert fact.real == str(tree / "bin" / "tool")
    assert fact.file == file_id((tree / "bin" / "tool").stat())


def test_a_relative_link_with_dots_leads_where_the_kernel_says(tree: Path) -> None:
    """``..`` in a link's target goes one directory up, also through a linked directory."""
    (tree / "lib").symlink_to("bin")
    (tree / "bin" / "up").symlink_to("../lib/./tool")
    fact = look(str(tree / "lib" / "up"), owner=ME, sticky_ok=True)
    assert fact.file == file_id(Path(tree / "lib" / "up").stat())
    assert fact.root_owned


def test_a_link_out_of_a_writable_directory_is_refused(tree: Path) -> None:
    """Whoever writes the link's directory chooses where it leads."""
    (tree / "open").mkdir()
    (tree / "open").chmod(0o777)
    (tree / "open" / "link").symlink_to(tree / "bin" / "tool")
    assert mine(tree / "open" / "link")[0] is False


def test_links_in_a_circle_end(tree: Path) -> None:
    """A walk gives up after as many links as the kernel does."""
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("a")
    trusted, fault = mine(tree / "a")
    assert not trusted
    assert "too many" in fault


@pytest.mark.parametrize("path", ["bin/tool", "", "/usr//bin/env", "/usr/./bin/env", "/usr/bin/../bin/env", "/usr/bin/env/", "/x\0y"])
def test_a_path_that_is_not_in_its_one_spelling_is_refused(path: str) -> None:
    """Relative paths, empty and dot components, trailing slashes."""
    assert look(path).root_owned is False
    assert look(path).file is None


def test_what_is_no_file_is_refused(tree: Path) -> None:
    """Missing, a directory, a fifo, a file used as a directory."""
    os.mkfifo(tree / "fifo")
    for path in (tree / "none", tree / "bin", tree / "fifo", tree / "bin" / "tool" / "x"):
        fact = look(str(path), owner=ME, sticky_ok=True)
        assert fact.file is None
        assert not fact.root_owned
        assert fact.fault


def test_a_fault_never_holds_what_a_terminal_must_not_see(tree: Path) -> None:
    """A link's target may hold any bytes."""
    (tree / "open\x1b[31m\udcff").mkdir()
    (tree / "open\x1b[31m\udcff").chmod(0o777)
    (tree / "open\x1b[31m\udcff" / "x").write_text("x")
    (tree / "link").symlink_to("open\x1b[31m\udcff/x")
    (tree / "none").symlink_to("open\x1b[31m\udcff/none")
    for name in ("link", "none"):
        trusted, fault = mine(tree / name)
        assert not trusted
        assert fault.isprintable()
        assert fault.encode()


def test_a_local_file_system_is_not_taken_for_a_served_one(tree: Path) -> None:
    """statfs(2) is read through ctypes: the answer for what is local, and an error for no descriptor."""
    fd = os.open(tree, os.O_PATH)
    assert served_by(fd) == ""
    os.close(fd)
    with pytest.raises(OSError, match="descriptor"):
        served_by(fd)


def test_no_descriptor_is_left_open(tree: Path) -> None:
    """Walks that fail close what they opened."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in (tree / "bin" / "tool", tree / "none" / "x", tree / "bin" / "tool" / "x"):
        look(str(path))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
