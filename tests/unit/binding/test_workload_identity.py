"""Selectors in documents: what is read, and what is refused where it stands; no machine is asked."""

import pytest

from control.binding.load import load
from control.errors import ResourceError
from control.identity.model import Identity, Selector
from control.reason import Reason
from tests.unit.binding.docs import GOOD

_GROUP = """\
    - unix:uid: 1001
      unix:exe:path: /usr/bin/python3.11
      script:path: /opt/oci/bin/oci
"""


def read(selectors: str, *, allow_root: bool = False) -> Identity | list[ResourceError]:
    """The identity, or the errors, of one selector object; each line is one key of it."""
    lines = selectors.strip().split("\n")
    group = "".join(("    - " if number == 0 else "      ") + line.strip() + "\n" for number, line in enumerate(lines))
    text = GOOD.replace(_GROUP, group + ("  allowRoot: true\n" if allow_root else ""))
    found, errors, _ = load([("a.yaml", text)], lambda path: path, "corp.example")
    return errors if found is None else found.identities[0]


@pytest.mark.parametrize(
    "selectors",
    [
        "unix:user: svc",
        "unix:exe:package: curl",
        "unix:exe:package: ['libx:amd64', curl]\nunix:gid: 100",
        "unix:uid: 1001\nunix:gid: [100, 101]",
        "unix:user: svc\nunix:group: [ops, dev]",
        "unix:uid: 1\nscript:path: /opt/x\nscript:sha256: " + "a" * 64,
        "unix:exe:package: python3.11-minimal\nscript:path: /opt/x",
    ],
)
def test_a_filterable_object_is_read_without_asking_the_machine(selectors: str) -> None:
    """Names and packages stay what they are written as; nobody looked them up."""
    found = read(selectors)
    assert isinstance(found, Identity), found
    assert all(selector.numbers is None for selector in found.selectors[0])
    assert [selector.kind for selector in found.selectors[0]] == [line.rsplit(": ", 1)[0] for line in selectors.split("\n")]


def test_numbers_become_text() -> None:
    """As the other stages compare them."""
    found = read("unix:exe:package: curl\nunix:gid: [100, 7]")
    assert isinstance(found, Identity)
    assert found.selectors[0][1] == Selector("unix:gid", ("100", "7"))


@pytest.mark.parametrize(
    ("selectors", "reason", "at", "says"),
    [
        ("unix:gid: 100", Reason.RESOURCE_UNCOMPILABLE, (9, 7), "unix:gid alone"),
        ("unix:group: ops\nunix:gid: 1", Reason.RESOURCE_UNCOMPILABLE, (9, 7), "unix:group and unix:gid alone"),
        ("script:path: /opt/x\nscript:sha256: " + "a" * 64, Reason.RESOURCE_UNCOMPILABLE, (9, 7), "script:path and script:sha256 alone"),
        ("unix:uid: 1\nscript:sha256: " + "a" * 64, Reason.RESOURCE_UNCOMPILABLE, (10, 22), "no script:path says"),
        ("unix:user: root", Reason.RESOURCE_OVERBROAD, (9, 18), "unix:user is root"),
        ("unix:gid: ops\nunix:uid: 1", Reason.RESOURCE_MALFORMED, (9, 17), "is no number"),
        ("unix:user: 1001", Reason.RESOURCE_MALFORMED, (9, 18), "the number 1001 instead of text"),
        ("unix:user: '1001'", Reason.RESOURCE_MALFORMED, (9, 18), "is a number"),
        ("unix:exe:package: Curl", Reason.RESOURCE_MALFORMED, (9, 25), "no name of a Debian package"),
        ("unix:exe:package: [curl, curl]", Reason.RESOURCE_DUPLICATE, (9, 25), "names a value twice"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(selectors: str, reason: Reason, at: tuple[int, int], says: str) -> None:
    """Reason, place, sentence, and something to try."""
    errors = read(selectors)
    assert isinstance(errors, list), errors
    (error,) = errors
    assert error.place is not None
    assert (error.reason, (error.place.line, error.place.column)) == (reason, at)
    assert says in error.message
    assert error.hint


def test_root_by_name_takes_the_explicit_word() -> None:
    """As uid 0 does."""
    assert isinstance(read("unix:user: root", allow_root=True), Identity)
