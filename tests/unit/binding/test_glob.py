"""Globs: a star is any run of characters, nothing else is special, and nothing takes long."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.binding.glob import ANY, compile_glob, overlap

pattern = st.text("ab*/", max_size=8)
plain = st.text("ab/", max_size=10)


@given(pattern, plain)
def test_a_glob_means_what_its_regular_expression_means(glob: str, path: str) -> None:
    """Against Python's own engine, on a small alphabet."""
    wanted = re.fullmatch(".*".join(map(re.escape, glob.split("*"))), path) is not None
    assert compile_glob(glob).matches(path) is wanted


@given(pattern, pattern, plain)
def test_globs_that_match_one_path_overlap(one: str, other: str, path: str) -> None:
    """overlap never misses a common path."""
    a, b = compile_glob(one), compile_glob(other)
    if a.matches(path) and b.matches(path):
        assert overlap(a, b)
    assert overlap(a, b) == overlap(b, a)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/a*", "/*b", True), ("/a", "/a", True), ("/a", "/b", False), ("/a*c", "/b*c", False), ("/a*b", "/a*c", False),
        ("/*", "/x/y", True), ("/a*x*", "/a*y*", True), ("/*a", "/*b", False), ("*", "", True), ("/ab", "/a*b*", True),
    ],
)  # fmt: skip
def test_overlap_is_exact(one: str, other: str, expected: bool) -> None:
    """Neither missed nor made up."""
    assert overlap(compile_glob(one), compile_glob(other)) is expected


def test_the_longer_literal_is_more_specific() -> None:
    """First what stands before the star, then exactness, then all literals; no glob at all is the least."""
    ordered = ["/*", "/a*", "/a*b", "/ab*", "/abc*", "/abc"]
    ranks = [ANY.rank] + [compile_glob(text).rank for text in ordered]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


def test_an_escaped_star_is_a_star_that_means_itself() -> None:
    """``%2A`` in a glob matches a star in a path and nothing else."""
    glob = compile_glob("/a%2Ab")
    assert glob.matches("/a*b")
    assert not glob.matches("/axb")


def test_no_glob_makes_matching_slow() -> None:
    """Where a regular expression would take the age of the universe."""
    glob = compile_glob("/" + "a*" * 30 + "b")
    start = time.perf_counter()
    assert not glob.matches("/" + "a" * 8000)
    assert time.perf_counter() - start < 1
