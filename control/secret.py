"""
Hold a secret so that it cannot be printed by accident.

In: bytes.  Out: the same bytes, from reveal() only; one search for "reveal(" finds every place that sees them.
Python cannot promise to overwrite memory; what remains is said in docs/threat-model.md.  Pure.
"""

import hmac
from typing import NoReturn


class Secret:
    """Bytes that print as ``<secret 40 bytes>`` and refuse to be pickled, formatted or hashed."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """Give the bytes to the one call that needs them; never keep them in a name that outlives it."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a table

    def __repr__(self) -> str:
        return f"<secret {len(self._value)} bytes>"

    __str__ = __repr__

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a secret cannot be formatted")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
