"""
One request and its answer.

In: a RequestHead and the name the connection is for.  Out: what is asked, how far it has come, and the body with its announced hash
compared before its last bytes leave.  Pure.
"""

import base64
import hashlib
import hmac
from typing import Any

from control.binding.canonical import authority
from control.binding.model import Asked, Destination
from control.errors import Refusal
from control.reason import Reason
from control.wire.framing import ChunkedBody, LengthBody, end_chunks, request_body, wrap_chunk
from control.wire.head import Fields, RequestHead
from control.wire.limits import Limits

SENT_TWICE = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods that change nothing, so that a second try on a fresh connection is safe (RFC 9110 section 9.2.1)."""


class BodyHashMismatch(Exception):
    """The body is not the one whose hash was announced."""


def host_fault(head: RequestHead, host: str, port: int) -> Refusal | None:
    """Say why the Host of a request is not the name its connection is for."""
    named = authority(head.host, default_port=443)
    if isinstance(named, Refusal):
        return named
    if (named.host, named.port) != (host, port):
        return Refusal(Reason.HOST_MISMATCH, f'Host names "{named.host}:{named.port}", the connection is for "{host}:{port}"')
    return None


class Turn:
    """One request on its way.  The client's side owns it."""

    __slots__ = (
        "answer_chunked", "answer_done", "answering", "asked", "binding", "body", "body_done", "chunked", "close", "destination",
        "expected", "fields", "gone", "hash", "head", "held", "id", "own", "passed", "retried", "sent", "signed_head", "status",
    )  # fmt: skip

    def __init__(self, turn_id: str, head: RequestHead, asked: Asked, limits: Limits) -> None:
        self.id, self.head, self.asked = turn_id, head, asked
        self.binding = ""
        self.destination: Destination | None = None
        self.fields: Fields = []
        self.gone: frozenset[str] = frozenset()
        """Names, with - for _, of what was taken out or set in the head: no trailer bears one either (H7)."""
        self.own = ""
        """The parameter of the target that holds the secret."""
        self.body: LengthBody | ChunkedBody | None = request_body(head, line_max=limits.chunk_line_bytes, trailer_max=limits.trailer_bytes)
        self.body_done = self.body is None
        self.chunked = head.chunked
        """How the body goes on; differs from head.chunked once it was buffered."""
        self.held: bytearray | None = None
        """The body so far, where all of it must be known before it can be signed."""
        self.hash: Any = None
        """SHA-256 of the body so far; None when no hash was announced."""
        self.expected = b""
        self.signed_head = b""
        """As it goes out; may hold the secret in its target, too."""
        self.passed = ""
        """Why it goes out without a credential, for the audit; empty when it bears one."""
        self.sent = False
        """The head has been written to the destination."""
        self.retried = False
        self.answering = False
        """The client has been sent the beginning of an answer."""
        self.answer_chunked = False
        self.answer_done = False
        self.close = not head.keep_alive
        self.status = 0

    def expect_hash(self, sha256_base64: str) -> None:
        """Take the hash that keys signed.  Raises ValueError when it is none."""
        digest = base64.b64decode(sha256_base64, validate=True)
        if len(digest) != 32:
            raise ValueError("not a SHA-256")
        self.expected = digest
        self.hash = hashlib.sha256()

    def check(self, payload: bytes, done: bool) -> None:
        """Hash on; at the end compare.  Raises BodyHashMismatch before the last bytes are handed out."""
        if self.hash is None:
            return
        if payload:
            self.hash.update(payload)
        if done and not hmac.compare_digest(self.hash.digest(), self.expected):
            raise BodyHashMismatch

    def frame(self, payload: bytes, done: bool) -> bytes:
        """Give the bytes of a piece of the body as they go to the destination."""
        if not self.chunked:
            return payload
        if not done:
            return wrap_chunk(payload)
        trailers = self.body.trailers if self.body is not None else []
        return wrap_chunk(payload) + end_chunks([field for field in trailers if field[0].lower().replace("_", "-") not in self.gone])

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent once more if nothing was heard."""
        return self.head.method in SENT_TWICE and not self.head.has_body and not self.retried
