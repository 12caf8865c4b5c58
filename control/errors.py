"""
Errors say what is wrong, then what to try; the class says whose fault it is.

Raise where ignoring the result would be unsafe; return a Refusal where it is ordinary.  Pure.
"""

from dataclasses import dataclass

from control.reason import ABOUT, Reason


class CredwireError(Exception):
    """Base of all our errors: a reason, one sentence, one hint."""

    def __init__(self, reason: Reason, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint or ABOUT[reason].hint

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a document something stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ResourceError(CredwireError):
    """Our own document is wrong."""

    def __init__(self, reason: Reason, message: str, *, place: Place | None = None, hint: str = "") -> None:
        super().__init__(reason, message, hint=hint)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class FarSideError(CredwireError):
    """An issuer, a token service or an upstream answered wrongly, late or not at all."""


class SetupError(CredwireError):
    """This machine or this installation lacks something."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ordinary no: the id is what ``credwire explain`` takes."""

    reason: Reason
    detail: str = ""
    """What exactly; never holds a secret."""
    hint: str = ""

    def told(self) -> str:
        """One line for people: reason, detail, hint."""
        about = ABOUT[self.reason]
        return f"{self.detail or about.says} ({self.reason}); {self.hint or about.hint}"
