"""
A proxy worker that lies: speaks to agent and keys as one of ours would, with whatever it likes to claim.

In: the lines that a Hand sends, the run directory and the uid to take as arguments.  Out: what came back, as plain data.
Started with the proxy's uid in the daemon's cgroup, which is all that a compromised worker has.
"""

import os
import select
import socket
import sys
import time
from itertools import count
from pathlib import Path

import msgspec

from control.daemon import message as m
from control.daemon.socket_io import seqpacket
from tests.e2e.lib import hand_script
from tests.e2e.lib.inside import become

_ANSWER_S = 2.0


class Liar(hand_script.Hands):
    """The connections of a Hand, and channels."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run
        self.channels: dict[int, tuple[socket.socket, str]] = {}
        self.calls = count(1)

    def accept(self, listener: int) -> int:
        """Take a connection from a listener that was handed to us."""
        with socket.socket(fileno=os.dup(listener)) as held:
            held.settimeout(hand_script.TIMEOUT_S)
            return self.keep(held.accept()[0])

    def accept_own(self, listener: int, port: int) -> "tuple[int, int]":
        """Connect to the listener ourselves; both ends."""
        near = self.connect("127.0.0.1", port)
        return near, self.accept(listener)

    def channel(self, peer: str, role: str, worker: int = 77) -> int:
        """Connect to ``agent`` or ``keys`` and greet as ``role``."""
        sock = seqpacket()
        sock.setblocking(True)
        sock.settimeout(_ANSWER_S)
        sock.connect(str(self.run / f"{peer}.sock"))
        sock.send(m.encode(m.Greeted(role, worker)))
        number = next(self.calls) + 1000
        self.channels[number] = sock, peer
        return number

    def ask(self, channel: int, kind: str, fields: "dict[str, object]", attach: "int | None" = None) -> "dict[str, object]":
        """
        Send one message and wait for its answer: its fields with ``type``, or ``type`` ``closed`` or ``silent``.

        ``attach`` is a connection whose descriptor goes along, or minus the number of a bare descriptor.
        """
        call = next(self.calls)
        message = msgspec.convert({"type": kind, "call": call, **fields}, getattr(m, kind))
        sock, _ = self.channels[channel]
        fds = [] if attach is None else [-attach if attach < 0 else self.sockets[attach].fileno()]
        try:
            socket.send_fds(sock, [m.encode(message)], fds)
        except OSError:
            return {"type": "closed"}
        return self._answer(channel, call)

    def shout(self, channel: int, data: str) -> str:
        """Send raw bytes; what becomes of the channel."""
        self.channels[channel][0].send(data.encode("latin-1"))
        return str(self._answer(channel, -1)["type"])

    def state(self, channel: int) -> str:
        """What a channel does when nothing is said: ``closed`` or ``silent``."""
        return str(self._answer(channel, -1)["type"])

    def _answer(self, channel: int, call: int) -> "dict[str, object]":
        sock, peer = self.channels[channel]
        until = time.monotonic() + _ANSWER_S
        while (left := until - time.monotonic()) > 0:
            if not select.select([sock], [], [], left)[0]:
                break
            try:
                raw = sock.recv(m.MAX_MESSAGE)
            except OSError:
                raw = b""
            if not raw:
                return {"type": "closed"}
            answer = m.decode(peer, "proxy", raw)
            if getattr(answer, "call", None) == call:
                told: dict[str, object] = msgspec.to_builtins(answer)
                return told
        return {"type": "silent"}


if __name__ == "__main__":
    become(int(sys.argv[2]), int(sys.argv[2]))  # after the imports: a checkout below /root is out of the worker's reach
    hand_script.serve(Liar(Path(sys.argv[1])))
