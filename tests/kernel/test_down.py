"""What a bound process may while the agent is dead or hung: what the strictest of its filters says."""

import errno
import signal

import pytest

from bpf.abi import KernelFilter
from tests.kernel.lab_io import STALE_NS, Lab, silence, start_agent

REFUSE: dict[str, bool] = {}
DIRECT = {"direct_when_down": True}
OBSERVE = {"observe": True}
BOTH = {**DIRECT, **OBSERVE}


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize(
    ("said", "counted"),
    [
        pytest.param((REFUSE,), "daemon-down", id="refuse"),
        pytest.param((DIRECT,), "direct", id="direct"),
        pytest.param((OBSERVE,), "observed", id="observe"),
        pytest.param((DIRECT, DIRECT), "direct", id="direct twice"),
        pytest.param((DIRECT, REFUSE), "daemon-down", id="direct and refuse"),
        pytest.param((REFUSE, DIRECT), "daemon-down", id="refuse and direct"),
        pytest.param((OBSERVE, REFUSE), "daemon-down", id="observe and refuse"),
        pytest.param((OBSERVE, DIRECT), "daemon-down", id="observe and direct"),
        pytest.param((BOTH, DIRECT), "direct", id="both and direct"),
    ],
)
def test_the_strict_filter_counts_while_the_agent_is(
    lab: Lab, how: signal.Signals, said: tuple[dict[str, bool], ...], counted: str
) -> None:
    """Redirected while it lives; then refused or direct, by either family, counted under its own name; a stranger passes throughout."""
    exe = lab.exe(lab.bound)
    lab.rule(*(KernelFilter(exe=exe, uid=0 if number else None, script=None, **flags) for number, flags in enumerate(said)))
    agent = start_agent(lab, STALE_NS)
    try:
        client, stranger = lab.client(), lab.client(lab.other)
        assert client.connect("127.0.0.1", lab.service) == 0
        lab.answer()
        silence(lab, agent, how)
        before = lab.kernel.counters()
        wanted = errno.ECONNREFUSED if counted == "daemon-down" else 0
        for host, server in (("127.0.0.1", lab.straight4), ("::1", lab.straight6)):
            assert client.connect(host, lab.service) == wanted
            assert stranger.connect(host, lab.service) == 0
            for _ in range(1 if wanted else 2):
                server.accept()[0].close()
        assert lab.nobody_came()
        after = lab.kernel.counters()
        assert {name: after[name] - before[name] for name in ("daemon-down", "direct", "observed")} == {
            **{"daemon-down": 0, "direct": 0, "observed": 0},
            counted: 2,
        }
    finally:
        agent.kill()
        agent.wait()
