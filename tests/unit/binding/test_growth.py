"""
A thousand bindings load, and twice as many take about twice as long: no step compares everything with everything.

CPU time of this process is compared with itself, so that a busy machine does not matter.
"""

import time
from collections.abc import Callable

import pytest

from control.binding.load import Loaded, load
from tests.unit.binding.many import many

Make = Callable[[int], list[str]]


def loaded(texts: list[str]) -> Loaded:
    """Load each text as a file of its own."""
    return load([(f"{number:05}.yaml", text) for number, text in enumerate(texts)], lambda _: "", "corp.example")


def cost_s(texts: list[str]) -> float:
    """CPU seconds of a load."""
    before = time.process_time()
    loaded(texts)
    return time.process_time() - before


SHAPES: dict[str, Make] = {
    "files of their own": many,
    "one file": lambda count: ["---\n".join(many(count))],
    "one identity, one host, a path each": lambda count: many(count, identity="app-0", host="api.example.com", path="/v1/things/{n:05}/*"),
    "paths with several stars": lambda count: many(count, identity="app-0", host="api.example.com", path="/v1/{n:05}/*/x*"),
    "every source dangling": lambda count: many(count, source="kee-{n}"),
    "every binding at one place": lambda count: many(count, identity="app-0", host="api.example.com"),
    "every identity alike": lambda count: [
        text.replace(f"unix:uid: {10_000 + number}", "unix:uid: 1") for number, text in enumerate(many(count))
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_bindings_take_about_twice_the_time(shape: str) -> None:
    """Also where all is wrong: dangling, tying and overlapping names are told without comparing each with each."""
    few, twice = SHAPES[shape](1000), SHAPES[shape](2000)
    tries = []
    for _ in range(4):  # a neighbour's caches cost CPU time too; what compares all with all is over the bound each time
        tries.append(cost_s(twice) / cost_s(few))
        if tries[-1] < 3:
            return
    pytest.fail(f"twice as many took {', '.join(f'{ratio:.1f}' for ratio in tries)} times as long")


def test_a_thousand_bindings_are_a_set() -> None:
    """Whole, without errors and without a warning."""
    found, errors, warnings = loaded(many(1000))
    assert (errors, warnings) == ([], [])
    assert found is not None
    assert [len(part) for part in (found.identities, found.sources, found.bindings)] == [1000, 1000, 1000]


def test_what_is_told_of_a_set_that_is_all_wrong_has_an_end() -> None:
    """A bound on pairs, and a line that says there are more."""
    alike = loaded(SHAPES["every identity alike"](500)).warnings
    assert len(alike) == 257
    assert any("the rest is not listed" in warning.message for warning in alike)
    ties = loaded(SHAPES["every binding at one place"](500)).errors
    assert 1 <= len(ties) <= 1024
    dangling = loaded(SHAPES["every source dangling"](500)).errors
    assert len(dangling) == 500
