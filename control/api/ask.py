"""
Why there is no answer from the daemon.

In: nothing.  Out: AskError and the kinds of it; apart from client_io.py so that catching it costs no import of gRPC.  Pure.
"""

from enum import StrEnum


class Fault(StrEnum):
    """Whose fault it is that there is no answer."""

    UNREACHABLE = "unreachable"
    """Nobody listens, or nobody answers in time."""
    NOT_ALLOWED = "not-allowed"
    """The caller may not ask this."""
    REFUSED = "refused"
    """The daemon heard the question and said no."""


class AskError(Exception):
    """There is no answer; the sentence and the hint are for people."""

    def __init__(self, fault: Fault, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.fault, self.message, self.hint, self.reason = fault, message, hint, reason
