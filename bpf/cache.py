"""
Compiled programs as a file: what they are keyed by, and their form.

In: sources, BTF, versions; bytecode.  Out: a key; bytes.  The key covers everything the bytecode depends on, so a file is either the
right one or not looked at.  Pure.
"""

import hashlib
import json

from bpf.errors import KernelError

INSTRUCTION_BYTES = 8


def key_of(sources: dict[str, bytes], btf: bytes, flags: list[str]) -> bytes:
    """Digest everything that bytecode depends on."""
    digest = hashlib.sha256(hashlib.sha256(btf).digest())
    for name in sorted(sources):
        digest.update(f"\0{name}\0{len(sources[name])}\0".encode())
        digest.update(sources[name])
    digest.update(repr(flags).encode())
    return digest.digest()


def encode(key: bytes, programs: dict[str, bytes]) -> bytes:
    """Write programs as one JSON document."""
    return json.dumps({"key": key.hex(), "programs": {name: code.hex() for name, code in programs.items()}}).encode()


def decode(raw: bytes, key: bytes, names: list[str]) -> dict[str, bytes]:
    """Read programs; raises KernelError unless the document is the one of ``key`` and holds every program of ``names``."""
    try:
        document = json.loads(raw)
        if document["key"] != key.hex():
            raise KernelError("the compiled programs are of another build")
        programs = {name: bytes.fromhex(document["programs"][name]) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KernelError("the compiled programs cannot be read") from None
    for name, code in programs.items():
        if not code or len(code) % INSTRUCTION_BYTES:
            raise KernelError(f'the compiled program "{name}" is cut off')
    return programs
