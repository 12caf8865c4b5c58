"""
Fixtures for tests on the real kernel: ``lab`` (clean for each test) over one load of the programs.

Skips everything where there is no root, no BTF or no bcc, and says which.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab_io import Lab
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
