"""
Make the wire's table of docs/limits.md from control/wire/limits.py.

In: the source's own docstrings.  Out: Markdown rows.  `python -m tests.unit.wire.limits_page` prints them.
"""

import ast
import inspect
from dataclasses import fields

from control.wire import limits


def shown(name: str, value: float) -> str:
    """Give a value with its unit, which the name carries."""
    if name.endswith("_bytes") or name in ("write_high",):
        size = int(value)
        return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
    return f"{value:g} s" if name.endswith("_s") else str(value)


def rows() -> list[str]:
    """Give one row for each limit."""
    (made,) = [n for n in ast.parse(inspect.getsource(limits)).body if isinstance(n, ast.ClassDef)]
    reasons: dict[str, str] = {}
    for before, after in zip(made.body, made.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            reasons[before.target.id] = " ".join(str(after.value.value).split()).rstrip(".")
    return [f"| `{f.name}` | {shown(f.name, getattr(limits.DEFAULT, f.name))} | {reasons[f.name]} |" for f in fields(limits.Limits)]


if __name__ == "__main__":
    print("\n".join(rows()))  # the answer
