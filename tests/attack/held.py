"""
A TLS session in the hands of a test: what a process would send next is known before another process sends it.

In: a Hand with an identity.  Out: an open connection over which one request was served, and the ciphertext of a second request, unsent.
So a stranger who gets the connection (by exec, fork or SCM_RIGHTS) needs no TLS keys to try what only the genuine process may do.
"""

from tests.e2e.lib.hand import Hand, head
from tests.e2e.lib.scene import IDENTITY, USERS

_OPEN = """
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
for path in trust:
    context.load_verify_locations(path)
sock = socket.create_connection((address, 443), 10)
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname=name)

def step(do, *words):
    while True:
        try:
            done = do(*words)
        except ssl.SSLWantReadError:
            done = None
        if data := outgoing.read():
            sock.sendall(data)
        if done is not None:
            return done
        if not (data := sock.recv(65536)):
            raise EOFError
        incoming.write(data)

step(lambda: tls.do_handshake() or True)
step(tls.write, request.encode())
answer = step(tls.read, 65536)
while b"]" not in answer.partition(b"\\r\\n\\r\\n")[2]:
    answer += step(tls.read, 65536)
tls.write(request.encode())
hands.held = sock, tls, incoming, outgoing, step
hands.next = outgoing.read()
os.set_inheritable(sock.fileno(), True)
result = answer[:12].decode(), sock.fileno(), hands.next.hex()
"""


def hold(hand: Hand) -> tuple[int, str]:
    """Open and use a connection; gives its descriptor over there and the ciphertext of the next request, in hex."""
    told, fd, ciphertext = hand.python(
        _OPEN, trust=hand.trust, address=hand.stage.subnet.there4, name=IDENTITY, request=head(IDENTITY, "GET", USERS).decode()
    )
    assert told == "HTTP/1.1 200"
    return int(fd), str(ciphertext)


SEND = """
import select
sock = socket.socket(fileno=os.dup(fd))
sock.settimeout(3)
try:
    sock.sendall(bytes.fromhex(ciphertext))
    result = "answered" if sock.recv(65536) else "closed"
except OSError as error:
    result = type(error).__name__
"""
"""Sends the held request; what came of it.  An answer may be a TLS alert: the cloud says whether it was served."""
