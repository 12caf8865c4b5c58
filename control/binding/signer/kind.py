"""
What every way to put a credential on a request offers to its reader.

In: nothing.  Out: the type that control/binding/signer/<kind>.py fills and control/binding/signer/registry.py lists.  Pure.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from control.binding.model import WireSigner
from control.binding.sheet import Sheet


class SignerKind(NamedTuple):
    """One signer: a file of its own and a row of the registry."""

    name: str
    """The word of ``delivery.wire.signer``; also of control/signer, where it is carried out."""
    read: Callable[[Sheet], WireSigner | None]
    """Read its options from the ``wire`` mapping; None after an error."""
    shape: dict[str, Any]
    """JSON Schema of its options, for editors (control/binding/schema.py)."""
    needed: tuple[str, ...] = ()
    """Options without a default."""
