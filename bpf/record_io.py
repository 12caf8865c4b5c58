"""
Ask the kernel whose an accepted connection is.

In: a socket accepted from our listener.  Out: Answer (record and live verdict).  One system call, no privilege: works for any process in
the daemon's cgroup.
"""

import socket

from bpf.abi import ANSWER_BYTES, Answer
from bpf.errors import NoRecord

__all__ = ["Answer", "NoRecord", "read_answer"]

_SOL_IP = 0
_SOL_IPV6 = 41
_RECORD = 80
"""SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST"""
_INET6 = int(socket.AF_INET6)


def read_answer(sock: socket.socket) -> Answer:
    """Read the record and the owner's standing now; raises NoRecord when the kernel did not redirect this connection."""
    try:
        raw = sock.getsockopt(_SOL_IPV6 if sock.family == _INET6 else _SOL_IP, _RECORD, ANSWER_BYTES)
    except OSError as error:
        raise NoRecord(f"the kernel has no record of this connection: {error.strerror}") from None
    if len(raw) != ANSWER_BYTES:  # netfilter answers this option too, with a sockaddr
        raise NoRecord("the kernel has no record of this connection")
    return Answer.unpack(raw)
