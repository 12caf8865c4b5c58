"""
Fixtures for tests on the real kernel: ``lab`` (clean for each test) over one load of the programs.

Skips everything where there is no root, no BTF or no bcc, and says which.
"""

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf.remove_io import remove
from tests.kernel.lab_io import Lab, start_agent
from tests.kernel.lab_io import lab as make_lab


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    if importlib.util.find_spec("bcc") is None:  # not imported: it would bring LLVM into this process
        return "needs python3-bpfcc"
    return ""


@pytest.fixture(scope="session")
def whole_lab() -> Iterator[Lab]:
    """One load of the programs for all tests."""
    if missing := _missing():
        pytest.skip(missing)
    with make_lab() as made:
        yield made


@pytest.fixture
def lab(whole_lab: Lab) -> Iterator[Lab]:
    """The lab with no rule in force and nobody connected, before and after."""
    whole_lab.calm()
    yield whole_lab
    whole_lab.calm()


@pytest.fixture
def agent(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """A process that beats, as the agent does, over a rule for the listed executable."""
    lab.rule_exe()
    process = start_agent(lab)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def second(lab: Lab, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A cgroup and pins of its own, for tests that load and remove."""
    cgroup = lab.cgroup / "second"
    cgroup.mkdir()
    pins = tmp_path / "pins"
    yield cgroup, pins
    remove(pins)
    cgroup.rmdir()
