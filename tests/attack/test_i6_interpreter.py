"""I6: the interpreter is everybody.  Only the file that the kernel exec'd by its #! is a script.  Needs root."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.lib.scene import IDENTITY, USERS, Scene


def _symlink(scene: Scene) -> list[str | Path]:
    link = scene.stage.directory / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(scene.bin / "main")
    return [link]


def _from_stdin_of_shell(scene: Scene) -> list[str | Path]:
    return ["/bin/sh", "-c", f"exec /usr/bin/python3 {scene.bin / 'main'}"]


def _module_path(scene: Scene) -> list[str | Path]:
    return ["/usr/bin/python3", "-c", f"import runpy; runpy.run_path('{scene.bin / 'main'}', run_name='__main__')"]


def _argv_zero(scene: Scene) -> list[str | Path]:
    return ["/bin/bash", "-c", f"exec -a {scene.bin / 'main'} /usr/bin/python3 {scene.bin / 'stranger'}"]


def _env(scene: Scene) -> list[str | Path]:
    return ["/usr/bin/env", "python3", scene.bin / "main"]


@pytest.mark.parametrize("argv", [_symlink, _from_stdin_of_shell, _module_path, _argv_zero, _env])
def test_what_runs_the_script_another_way_is_not_the_script(scene: Scene, argv: Callable[[Scene], list[str | Path]]) -> None:
    """By a link of another name, by argument, by runpy, by argv[0], by env: unsigned."""
    with scene.watch() as seen, scene.run(argv(scene)) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 401
        assert seen.nothing_given()


def test_a_shell_that_execs_the_script_itself_is_the_script(scene: Scene) -> None:
    """The control: what the kernel execs counts, whoever asked for it."""
    with scene.watch() as seen, scene.run(["/bin/sh", "-c", f"exec {scene.bin / 'main'}"]) as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        assert len(seen.valid()) == 1
