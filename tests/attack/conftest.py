"""One daemon for all rows that need a whole one."""

from tests.e2e.conftest import scene, whole_scene

__all__ = ["scene", "whole_scene"]
