"""A worker for each test that wants one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wire.world import World, world


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A worker with agent and keys, waiting for clients."""
    with world(tmp_path) as made:
        yield made
