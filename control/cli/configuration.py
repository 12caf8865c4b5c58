"""
Write a configuration as its file would have it.

In: a Config.  Out: plain values under the keys of credwired.yaml, every key present; what ``config show`` prints reads back as the same
Config.  Pure.
"""

from typing import Any

import msgspec

from control.binding.duration import spelled
from control.daemon.config import Config


def document(config: Config) -> dict[str, Any]:
    """Give keys and values in the order of the defaults."""
    known: dict[str, Any] = {}
    for field, value in msgspec.to_builtins(config).items():
        match field:
            case "stale_after_s":
                known["staleAfter"] = spelled(config.stale_after_s)
            case "seal":
                known["seal"] = {"with": config.seal.kept, **({"keyFile": config.seal.key_file} if config.seal.key_file else {})}
            case "public":
                known["public"] = _public(config)
            case _:
                known[_key(field)] = {_key(inner): item for inner, item in value.items()} if isinstance(value, dict) else value
    return known


def _public(config: Config) -> dict[str, str] | None:
    public = config.public
    if public is None:
        return None
    address = f"[{public.address}]" if ":" in public.address else public.address
    known = {"listen": f"{address}:{public.port}", "certificate": public.certificate, "key": public.key}
    return {key: value for key, value in known.items() if value}


def _key(field: str) -> str:
    first, *more = field.split("_")
    return first + "".join(word.capitalize() for word in more)
