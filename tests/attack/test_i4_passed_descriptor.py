"""I4: a connected socket handed to another process (SCM_RIGHTS, pidfd_getfd).  Whoever writes is judged, not whoever connected."""

import pytest

from tests.attack.held import SEND, hold
from tests.e2e.lib.scene import Scene
from tests.e2e.lib.stage import STRANGER_UID

_GIVE = """
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("\\0" + name)
    listener.listen(1)
    listener.settimeout(10)
    there, _ = listener.accept()
    socket.send_fds(there, [b"x"], [fd])
result = 0
"""
_TAKE = """
until = time.time() + 10
while True:
    with socket.socket(socket.AF_UNIX) as here:
        try:
            here.connect("\\0" + name)
        except ConnectionRefusedError:
            if time.time() > until:
                raise
            continue
        result = socket.recv_fds(here, 1, 1)[1][0]
        break
"""
_GRAB = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall(438, os.pidfd_open(pid), fd, 0)
"""


@pytest.mark.parametrize(("part", "uid"), [("stranger", None), ("other", None), ("stranger", STRANGER_UID)])
def test_a_stranger_cannot_write_on_a_connection_it_was_given(scene: Scene, part: str, uid: "int | None") -> None:
    """Same user, another identity, another user: not one byte of theirs is signed; the control is the giver's own request."""
    with scene.watch() as seen, scene.hand("main") as giver, scene.hand(part, **({} if uid is None else {"uid": uid})) as taker:
        fd, ciphertext = hold(giver)
        name = f"credwire-{giver.pid}"
        giver.tell("python", code=_GIVE, name=name, fd=fd)
        got = taker.python(_TAKE, name=name)
        giver.told()
        taker.python(SEND, fd=got, ciphertext=ciphertext)
        assert len(seen.valid()) == 1


def test_a_grabbed_connection_is_worth_nothing(scene: Scene) -> None:
    """pidfd_getfd() by the same user, where the kernel allows it at all."""
    with scene.watch() as seen, scene.hand("main") as giver, scene.hand("stranger") as taker:
        fd, ciphertext = hold(giver)
        got = taker.python(_GRAB, pid=giver.pid, fd=fd)
        if got >= 0:
            taker.python(SEND, fd=got, ciphertext=ciphertext)
        assert len(seen.valid()) == 1
