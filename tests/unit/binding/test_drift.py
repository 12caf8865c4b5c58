"""Pinned digests: what is on disk now, and which pin makes room for which file."""

import hashlib
from pathlib import Path

import pytest

from control.binding.drift import Drift, Pin, drifts, pins, renewal
from control.binding.drift_io import drifted
from control.binding.model import ResourceSet
from control.errors import ResourceError
from control.units import Revision
from tests.unit.binding.test_compile import identity

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
PIN = Pin("i", 0, "unix:exe:sha256", ("/x", "/y"), (A, B))


def resources(*groups: dict[str, tuple[str, ...]]) -> ResourceSet:
    """A set with one identity."""
    return ResourceSet(Revision(1), "", (identity("i", *groups),), (), (), {})


def test_a_digest_is_a_pin_only_beside_a_path() -> None:
    """Executables and scripts, each object for itself."""
    found = pins(
        resources(
            {"unix:exe:sha256": (A,), "unix:uid": ("1",)},
            {"unix:exe:sha256": (A,), "unix:exe:path": ("/x",), "script:sha256": (B,), "script:path": ("/s",)},
        ).identities
    )
    assert found == [Pin("i", 1, "unix:exe:sha256", ("/x",), (A,)), Pin("i", 1, "script:sha256", ("/s",), (B,))]


def test_a_file_drifts_when_it_has_none_of_the_digests() -> None:
    """Any of them will do; a file that cannot be read is none of ours to judge."""
    assert drifts(PIN, {"/x": B, "/y": A}) == []
    assert drifts(PIN, {"/x": C}) == [Drift("i", "/x", (A, B), C)]
    assert str(drifts(PIN, {"/x": C})[0]) == (
        'identity "i": /x has SHA-256 cccccccccccc…, unix:exe:sha256 pins aaaaaaaaaaaa… or bbbbbbbbbbbb…'
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"/x": A, "/y": B}, {}),
        ({"/x": A, "/y": C}, {B: C}),
        ({"/x": C, "/y": D}, {A: C, B: D}),
        ({"/x": C, "/y": C}, {A: C}),
        ({}, {}),
    ],
)
def test_a_digest_that_no_file_has_makes_room(found: dict[str, str], expected: dict[str, str]) -> None:
    """One that some file still has stays."""
    assert renewal(PIN, found) == expected


@pytest.mark.parametrize(
    ("pin", "found"), [(PIN, {"/x": C}), (PIN._replace(digests=(A,)), {"/x": C, "/y": D}), (PIN._replace(digests=(A,)), {"/x": A, "/y": D})]
)
def test_where_it_cannot_be_told_nobody_guesses(pin: Pin, found: dict[str, str]) -> None:
    """A file that is missing may be the one whose digest would go; one digest cannot become two."""
    with pytest.raises(ResourceError, match="cannot be told") as caught:
        renewal(pin, found)
    assert C in caught.value.hint or D in caught.value.hint


def test_the_disk_is_looked_at(tmp_path: Path) -> None:
    """Before and after an upgrade; a missing file and a directory are no drift."""
    tool = tmp_path / "tool"
    tool.write_bytes(b"one")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    asked = resources({"unix:exe:path": (str(tool), str(tmp_path / "none"), str(tmp_path)), "unix:exe:sha256": (one,)})
    assert drifted(asked) == ()
    tool.write_bytes(b"two")
    assert drifted(asked) == (Drift("i", str(tool), (one,), two),)
    by_script = resources({"unix:uid": ("1",), "script:path": (str(tool),), "script:sha256": (one,)})
    assert drifted(by_script) == (Drift("i", str(tool), (one,), two, "script:sha256"),)
