"""
Make control/api/admin_pb2.py, its types and admin_pb2_grpc.py from admin.proto.

In: control/api/admin.proto.  Out: the three files beside it, the same bytes each time (grpcio-tools is pinned in pyproject.toml).
``python tools/proto_io.py`` writes them; with ``--check`` it writes nothing and exits 1 when what is committed differs.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]  # ships no types

ROOT = Path(__file__).resolve().parent.parent
PROTO = "control/api/admin.proto"
"""Relative to the root, so that the generated import reads ``from control.api import admin_pb2``."""
MADE = ("control/api/admin_pb2.py", "control/api/admin_pb2.pyi", "control/api/admin_pb2_grpc.py")


def generate(into: Path) -> None:
    """Run protoc.  Raises SystemExit when it refuses the file."""
    includes = resources.files("grpc_tools") / "_proto"
    code = protoc.main(
        ["protoc", f"-I{ROOT}", f"-I{includes}", f"--python_out={into}", f"--pyi_out={into}", f"--grpc_python_out={into}", PROTO]
    )
    if code:
        raise SystemExit(code)


def differing() -> list[str]:
    """Name the committed files that are not what protoc makes."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        return [name for name in MADE if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (Path(scratch) / name).read_bytes()]


def main(arguments: list[str]) -> int:
    """Write, or check."""
    if arguments == ["--check"]:
        stale = differing()
        for name in stale:
            print(f"{name} is not what protoc makes of {PROTO}: run python tools/proto_io.py", file=sys.stderr)
        return 1 if stale else 0
    if arguments:
        print("usage: proto_io.py [--check]", file=sys.stderr)
        return 2
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
