"""
What can go wrong at the kernel boundary.

Messages are lower case, say what is wrong, and carry a hint.  Pure.
"""


class KernelError(Exception):
    """This machine, its kernel or its mounts do not give what the programs need."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NoRecord(Exception):
    """The kernel did not redirect this connection: nobody's, to be closed."""
