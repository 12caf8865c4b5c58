"""
Walk the checkout for the tests of the house rules.

In: the checkout's files.  Out: paths, syntax trees, and findings that print as ``file:line: what, and why``.
"""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("control", "bpf", "sysfs_fallback")
SKIPPED = {".git", ".venv", "build", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")
"""Written by protoc; test_generated.py holds them to their source."""


def files(*suffixes: str, under: Sequence[str] = (".",)) -> Iterator[Path]:
    """Every file of ours with one of these suffixes (all files when none is given), sorted."""
    for part in under:
        for path in sorted((REPO / part).rglob("*")):
            wanted = path.is_file() and (not suffixes or path.suffix in suffixes)
            if wanted and not SKIPPED.intersection(path.relative_to(REPO).parts) and not is_egg(path):
                yield path


def is_egg(path: Path) -> bool:
    """Whether ``path`` lies in metadata that pip wrote beside the sources."""
    return any(part.endswith(".egg-info") for part in path.parts)


def modules(*packages: str) -> Iterator[Path]:
    """Every Python file of the packages that a person wrote."""
    return (path for path in files(".py", under=packages or PACKAGES) if not path.name.endswith(GENERATED))


@cache
def tree(path: Path) -> ast.Module:
    """Parse ``path``."""
    return ast.parse(path.read_text(), filename=str(path))


def name(path: Path) -> str:
    """Path within the checkout."""
    return str(path.relative_to(REPO))


def dotted(path: Path) -> str:
    """Module name of a Python file of the checkout."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def report(findings: list[str]) -> None:
    """Fail with every finding on a line of its own, or pass."""
    assert not findings, "\n" + "\n".join(findings)
