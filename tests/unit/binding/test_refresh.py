"""Fresh digests in the text of a file: the digest changes, and nothing else does."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.binding.refresh import Spot, refreshed
from control.binding.refresh_io import changes, write
from control.errors import ResourceError
from control.reason import Reason

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
TEXT = f"""\
# before
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity   # of the tool
metadata: {{name: tool}}
spec:
  workloadID: ops/tool
  owner: "ö@example.org"   # é
  environment: prod
  selectors:
    - unix:exe:path: /usr/bin/tool
      unix:exe:sha256: {A}   # 8.5.0: {A}
    - {{"script:sha256": ['{A}', "{B.upper()}"], script:path: /opt/s, "unix:uid": 1}}
---
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata:
  name: other
spec:
  workloadID: ops/other
  owner: x@example.org
  environment: prod
  selectors:
    - unix:exe:path: /usr/bin/tool
      unix:exe:sha256:
        - {A}
"""
EXE, SCRIPT = Spot("tool", 0, "unix:exe:sha256"), Spot("tool", 1, "script:sha256")


def test_exactly_the_pinned_digest_changes() -> None:
    """Not the one in the comment, not that of another object or identity."""
    assert refreshed("f", TEXT, {EXE: {A: C}}) == TEXT.replace(f"sha256: {A}   #", f"sha256: {C}   #")
    assert refreshed("f", TEXT, {Spot("other", 0, "unix:exe:sha256"): {A: C}}) == TEXT.replace(f"- {A}\n", f"- {C}\n")
    assert refreshed("f", TEXT, {}) == TEXT


def test_quotes_flow_and_upper_case_are_minded() -> None:
    """Several in one line; quotes stay, digests become lower case."""
    assert refreshed("f", TEXT, {SCRIPT: {A: B[::-1][:63] + "0", B: C}}) == TEXT.replace(
        f"['{A}', \"{B.upper()}\"]", f"['{'b' * 63}0', \"{C}\"]"
    )


@given(st.sampled_from(("\n", "\r\n")), st.lists(st.sampled_from(("# c", "", "# ünï 𝔘", "#")), max_size=6))
def test_what_stands_around_stays(end: str, lines: list[str]) -> None:
    """Line ends of either sort, comments of any length and alphabet in front."""
    text = end.join([*lines, *TEXT.split("\n")])
    assert refreshed("f", text, {EXE: {A: C}}) == text.replace(f"sha256: {A}   #", f"sha256: {C}   #")


def test_a_digest_in_an_odd_form_is_left_to_people() -> None:
    """A block scalar or an escape is not on one line as it is: an error with its place, and nothing changed."""
    for odd in (f">-\n        {A}", '"\\x61' + "a" * 63 + '"'):
        text = TEXT.replace(f"{A}   #", f"{odd}\n      #")
        with pytest.raises(ResourceError, match="not written on one line") as caught:
            refreshed("f", text, {EXE: {A: C}})
        assert caught.value.place is not None
        assert caught.value.place.line == 11


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Resources with a pinned tool that was upgraded since."""
    tool = tmp_path / "tool"
    tool.write_bytes(b"one")
    resources = tmp_path / "resources"
    resources.mkdir()
    digest = hashlib.sha256(b"one").hexdigest()
    for name in ("tool", "other"):
        (resources / f"{name}.yaml").write_text(
            f"""\
apiVersion: credwire/v1alpha1
kind: WorkloadIdentity
metadata: {{name: {name}}}
spec:
  workloadID: ops/{name}
  owner: x@example.org
  environment: prod
  selectors:
    - unix:exe:path: {tool}
      unix:exe:sha256: {digest}   # of one
"""
        )
    tool.write_bytes(b"two")
    return resources


def test_a_directory_is_refreshed_identity_by_identity(directory: Path) -> None:
    """Nothing is written until somebody says so; then owner and mode stay, and nothing is left to do."""
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    (made,) = changes(directory, "t.example", "tool", guarded=False)
    assert made.file == str(directory / "tool.yaml")
    assert made.before == (directory / "tool.yaml").read_text()
    assert made.after == made.before.replace(one, two)
    assert len(changes(directory, "t.example", guarded=False)) == 2
    (directory / "tool.yaml").chmod(0o640)
    write(made)
    assert (directory / "tool.yaml").read_text() == made.after
    assert (directory / "tool.yaml").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in directory.iterdir()) == ["other.yaml", "tool.yaml"]
    assert changes(directory, "t.example", "tool", guarded=False) == ()


def test_a_file_that_changed_meanwhile_is_not_overwritten(directory: Path) -> None:
    """Somebody's edit counts more."""
    (made,) = changes(directory, "t.example", "tool", guarded=False)
    (directory / "tool.yaml").write_text(made.before + "# edited\n")
    with pytest.raises(ResourceError, match="changed meanwhile"):
        write(made)
    assert (directory / "tool.yaml").read_text().endswith("# edited\n")


def test_what_cannot_be_refreshed_is_said(directory: Path) -> None:
    """A name that nobody has, with those that there are; a directory with an error."""
    with pytest.raises(ResourceError) as caught:
        changes(directory, "t.example", "tol", guarded=False)
    assert caught.value.reason is Reason.RESOURCE_DANGLING
    assert "other, tool" in caught.value.hint
    (directory / "other.yaml").write_text("kind: [\n")
    with pytest.raises(ResourceError):
        changes(directory, "t.example", "tool", guarded=False)
