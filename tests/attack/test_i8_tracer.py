"""I8: somebody holds the process by ptrace.  While he does, nothing is given.  Needs root."""

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import HandError
from tests.e2e.lib.scene import IDENTITY, USERS, Scene

_TRACER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, 0, 0)
    os.execv(sys.argv[1], [sys.argv[1]])
while True:
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) or os.WIFSIGNALED(status):
        break
    number = os.WSTOPSIG(status)
    libc.ptrace(7, pid, 0, 0 if number == signal.SIGTRAP else number)
"""


def test_a_traced_process_is_refused(scene: Scene) -> None:
    """The genuine script under a tracer of the same user: refused with the reason; without one it is served."""
    with scene.watch() as seen, scene.run(["/usr/bin/python3", "-c", _TRACER, scene.bin / "main"]) as hand:
        with pytest.raises(HandError):
            hand.open(IDENTITY)
        seen.audit(event="connection-refused", reason=Reason.PROCESS_TRACED)
        assert seen.nothing_given()
    with scene.hand("main") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
