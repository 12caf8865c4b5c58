"""What keeps two selector objects apart."""

from control.identity.model import Selector
from control.identity.overlap import exclusive


def test_a_package_is_itself_in_every_architecture() -> None:
    """``curl`` and ``curl:amd64`` can be one process; numbers and paths are what they are."""
    group = (Selector("unix:exe:package", ("curl:amd64", "wget")), Selector("unix:uid", ("1", "2")), Selector("unix:exe:path", ("/a:b",)))
    assert exclusive(group) == {"unix:exe:package": {"curl", "wget"}, "unix:uid": {"1", "2"}, "unix:exe:path": {"/a:b"}}
