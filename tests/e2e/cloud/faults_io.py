"""
Make the cloud misbehave, while it runs, from another process.

In: a file with one JSON object, read at each request; absent or empty means "behave".  Out: the Faults in force.
"""

from pathlib import Path
from typing import Literal

import msgspec


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Each switch is off by default."""

    exchange: Literal["", "slow", "html", "error", "garbage", "huge", "no-token", "reset", "foreign-key", "foreign-principal"] = ""
    """``foreign-key``: the token is bound to a key that is not the caller's; ``foreign-principal``: it is another user's."""
    api: Literal["", "slow", "html", "error", "garbage", "reset", "cut"] = ""
    """``garbage``: bytes that are no HTTP; ``cut``: a body shorter than its content-length, then a reset."""
    delay_s: float = 30.0
    """How long ``slow`` waits before it answers properly."""
    instance_life_s: int = 1200
    """Life of new tokens of instances."""
    token_life_s: int = 0
    """Life of new UPSTs; 0 means what the configuration says."""


def read_faults(path: Path | None) -> Faults:
    """Read what is in force now."""
    if path is None:
        return Faults()
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Faults()
    return msgspec.json.decode(text, type=Faults) if text.strip() else Faults()


def write_faults(path: Path, faults: Faults) -> None:
    """Put ``faults`` in force for every request from now on; ``write_faults(path, Faults())`` ends them."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(msgspec.json.encode(faults))
    fresh.replace(path)
