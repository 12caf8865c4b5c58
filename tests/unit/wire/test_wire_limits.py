"""docs/limits.md and the code say the same."""

from pathlib import Path

from tests.unit.wire.limits_page import rows

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_every_limit_of_the_wire_stands_on_the_page() -> None:
    """Name, value and reason; `python -m tests.unit.wire.limits_page` prints the rows."""
    page = PAGE.read_text().splitlines()
    assert [row for row in rows() if row not in page] == []
