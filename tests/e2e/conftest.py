"""One daemon for all end-to-end tests that do not need one of their own."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.lib.scene import Scene
from tests.e2e.lib.scene import scene as make_scene


@pytest.fixture(scope="session")
def whole_scene() -> Iterator[Scene]:
    """The scene, made once; three seconds."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with make_scene("e2e") as made:
        yield made


@pytest.fixture
def scene(whole_scene: Scene) -> Iterator[Scene]:
    """The scene with a cloud that behaves."""
    whole_scene.cloud.misbehave()
    yield whole_scene
    whole_scene.cloud.misbehave()
