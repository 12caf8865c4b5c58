"""I3: a forked child writes on the parent's connection.  One that is still the same program may, one that became another may not."""

from tests.attack.held import hold
from tests.e2e.lib.scene import Scene

_CHILD = """
pid = os.fork()
if pid == 0:
    try:
        sock, tls, incoming, outgoing, step = hands.held
        sock.sendall(hands.next)
        incoming.write(sock.recv(65536))
        os._exit(0 if step(tls.read, 12).startswith(b"HTTP/1.1 200") else 1)
    except OSError as error:
        os._exit(error.errno)
result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

_CHILD_EXEC = """
code = f'''
import socket, sys
sock = socket.socket(fileno={fd})
sock.settimeout(3)
try:
    sock.sendall(bytes.fromhex("{ciphertext}"))
    sys.exit(200 if sock.recv(1) else 0)
except OSError as error:
    sys.exit(error.errno or 110)
'''
pid = os.fork()
if pid == 0:
    os.execv("/usr/bin/python3", ["python3", "-S", "-c", code])
result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_child_that_is_the_same_program_may_use_the_connection(scene: Scene) -> None:
    """A pre-forking client: the child's request is signed."""
    with scene.watch() as seen, scene.hand("main") as hand:
        hold(hand)
        assert hand.python(_CHILD) == 0
        assert [record.principal for record in seen.valid()] == ["svc-main"] * 2


def test_a_child_that_became_another_program_may_not(scene: Scene) -> None:
    """fork, exec of something unbound, write: the kernel refuses the write, the cloud sees nothing."""
    with scene.watch() as seen, scene.hand("main") as hand:
        fd, ciphertext = hold(hand)
        assert hand.python(_CHILD_EXEC, fd=fd, ciphertext=ciphertext) != 200
        assert len(seen.valid()) == 1
