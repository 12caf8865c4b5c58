"""
Match paths against globs in which ``*`` is any run of characters and nothing else is special.

In: a glob as written in a resource, a path's meaning.  Out: whether it matches, how specific it is, whether two globs can match one path.
Linear in the path whatever the glob: no regular expression, so nobody can make one run long.  Pure.
"""

from typing import NamedTuple

from control.binding.canonical import path_meaning


class Rank(NamedTuple):
    """How specific a glob is; the greater one wins."""

    prefix: int
    """Literal characters before the first ``*``."""
    exact: bool
    """Without any ``*``."""
    literal: int
    """Literal characters in all."""


class Glob(NamedTuple):
    """A glob, cut at its stars."""

    text: str
    pieces: tuple[str, ...]
    rank: Rank

    def matches(self, path: str) -> bool:
        """Say whether the whole of ``path`` fits.  Leftmost fits of the middle pieces suffice, as stars take any run."""
        pieces = self.pieces
        first, last = pieces[0], pieces[-1]
        if len(pieces) == 1:
            return path == first
        if not path.startswith(first) or not path.endswith(last) or len(path) < len(first) + len(last):
            return False
        at, end = len(first), len(path) - len(last)
        for piece in pieces[1:-1]:
            at = path.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


ANY = Glob("", ("", ""), Rank(-1, False, 0))
"""Stands for no ``paths`` at all, and is less specific than every glob."""


def compile_glob(text: str) -> Glob:
    """Cut ``text`` at its stars; escapes of the literal pieces are undone, so ``%2A`` is a star that means itself."""
    pieces = tuple(path_meaning(piece) for piece in text.split("*"))
    return Glob(text, pieces, Rank(len(pieces[0]), len(pieces) == 1, sum(map(len, pieces))))


def overlap(one: Glob, other: Glob) -> bool:
    """Say whether some path matches both: walk both globs side by side, a star may take any number of the other's characters."""
    left, right = _tokens(one), _tokens(other)
    reachable = {(0, 0)}
    todo = [(0, 0)]
    while todo:
        i, j = todo.pop()
        if i == len(left) and j == len(right):
            return True
        steps: list[tuple[int, int]] = []
        a = left[i] if i < len(left) else None
        b = right[j] if j < len(right) else None
        if a == "":
            steps.append((i + 1, j))
            if b:
                steps.append((i, j + 1))
        if b == "":
            steps.append((i, j + 1))
            if a:
                steps.append((i + 1, j))
        if a and a == b:
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in reachable:
                reachable.add(step)
                todo.append(step)
    return False


def _tokens(glob: Glob) -> list[str]:
    """Characters, with the empty string for a star."""
    tokens: list[str] = []
    for number, piece in enumerate(glob.pieces):
        if number:
            tokens.append("")
        tokens += piece
    return tokens
