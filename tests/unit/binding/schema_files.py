"""
Write docs/reference/schema from control/binding/schema.py.

In: SCHEMAS.  Out: the files; ``python -m tests.unit.binding.schema_files`` puts them in place, test_schema.py compares them.
"""

import json
from pathlib import Path

from control.binding.schema import SCHEMAS

DIRECTORY = Path(__file__).parents[3] / "docs" / "reference" / "schema"


def files() -> dict[Path, str]:
    """Path and content of each."""
    return {DIRECTORY / name: json.dumps(shape, indent=2, ensure_ascii=False) + "\n" for name, shape in SCHEMAS.items()}


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for path, content in files().items():
        path.write_text(content)
