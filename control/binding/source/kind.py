"""
What every kind of source offers to its reader.

In: nothing.  Out: the type of the rows of control/binding/source/registry.py.  Pure.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from control.binding.model import OciSource, StaticSource
from control.binding.sheet import Sheet

Of = OciSource | StaticSource
Roots = Callable[[Sheet], str]
"""Read ``upstreamRoots`` of a sheet: the name of a CA file, and so its content."""


class SourceKind(NamedTuple):
    """How a source is read, what it needs beside it, and who can use what it gives."""

    read: Callable[[Sheet, Roots], Of]
    signers: tuple[str, ...]
    """Of control/binding/signer, the usual one first."""
    shape: dict[str, Any]
    """JSON Schema of its field, for editors (control/binding/schema.py)."""
    federated: bool = True
    """Whether it exchanges our tokens: then it names a Federation, otherwise it must not."""
    reviewed: bool = False
    """Whether ``reviewedAt`` and ``reviewEvery`` are mandatory."""
    private: bool = False
    """Whether a secret may stand in its field by mistake, so that no error repeats what does."""
