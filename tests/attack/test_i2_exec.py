"""I2: an attested process execs other code with its connection open.  The connection is never signed for again.  Needs root."""

import pytest

from tests.attack.held import SEND, hold
from tests.e2e.lib.scene import IDENTITY, USERS, Scene


@pytest.mark.parametrize("program", ["stranger", "main"])
def test_a_connection_does_not_survive_exec(scene: Scene, program: str) -> None:
    """
    The same pid, the same descriptor, a request that was encrypted before: refused, also when the same program runs anew.

    The control: that program's own connection is judged by what it is, signed for ``main`` and not for the stranger.
    """
    with scene.watch() as seen, scene.hand("main") as hand:
        fd, ciphertext = hold(hand)
        assert len(seen.valid()) == 1
        pid = hand.pid
        hand.tell("python", code=f"os.execv('{scene.bin / program}', ['x'])")
        assert hand.told() == pid
        hand.python(SEND, fd=fd, ciphertext=ciphertext)
        assert len(seen.valid()) == 1
        assert hand.request(IDENTITY, "GET", USERS).status == (200 if program == "main" else 401)
        assert len(seen.valid()) == (2 if program == "main" else 1)


def test_an_exec_is_seen_before_the_new_program_runs(scene: Scene) -> None:
    """Twenty times exec and send at once: not one request is signed for the new image."""
    with scene.watch() as seen:
        for _ in range(20):
            with scene.hand("main") as hand:
                fd, ciphertext = hold(hand)
                code = f"import socket; s = socket.socket(fileno={fd}); s.send(bytes.fromhex({ciphertext!r})); s.settimeout(1); s.recv(1)"
                hand.tell("python", code="os.execv('/usr/bin/python3', ['python3', '-S', '-c', given])", given=code)
                hand.process.wait(10)
        assert len(seen.valid()) == 20
