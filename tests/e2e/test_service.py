"""
The daemon as a service without systemd: started, found running, stopped; in the way and gone.  Needs root.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.lib.net import REPOSITORY, launcher
from tests.e2e.lib.stage import CREDWIRED, Stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A stage without a daemon."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with Stage("service") as made:
        yield made


def _credwired(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*launcher(*stage.kennel.options(), *stage.options()), *CREDWIRED, *words, "--config", str(stage.config)]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=90, check=False)


def test_start_waits_until_it_enforces_and_stop_until_it_has_ended(stage: Stage) -> None:
    """Start says the pid once status would say that it enforces; a second one changes nothing; stop leaves no process of it."""
    log = str(stage.directory / "service.log")
    try:
        started = _credwired(stage, "start", "--log", log)
        assert started.returncode == 0, started.stderr
        assert "enforces after" in started.stderr
        pids = {row["pid"] for row in stage.processes()}
        again = _credwired(stage, "start", "--log", log)
        assert again.returncode == 0
        assert "runs already" in again.stderr
        assert {row["pid"] for row in stage.processes()} == pids
    finally:
        stopped = _credwired(stage, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "has stopped" in stopped.stderr
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")]  # noqa: PTH110  # a pid that another user reused has none for us
    once_more = _credwired(stage, "stop")
    assert (once_more.returncode, "does not run" in once_more.stderr) == (0, True)
    assert "links/connect4" in _credwired(stage, "detach").stdout


def test_a_start_that_fails_says_why(stage: Stage) -> None:
    """A configuration that is wrong is said with its place, before anything starts."""
    text = stage.config.read_text()
    stage.config.write_text(text.replace(f"listenPort: {stage.listen_port}", "listenPort: 1024\nstaleAfter: 99s"))
    try:
        done = _credwired(stage, "start", "--log", str(stage.directory / "service.log"))
    finally:
        stage.config.write_text(text)
    assert done.returncode == 2
    assert "staleAfter" in done.stderr
