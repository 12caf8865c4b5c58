"""
Write docs/reasons.md from control/reason.py and bpf/abi.h.

In: the two files.  Out: the page; ``python -m tests.repo.reasons_page`` puts it in place, test_reasons.py compares it.
"""

import re

from control.reason import ABOUT, Kind, Reason
from tests.repo.house import REPO

PAGE = REPO / "docs" / "reasons.md"
HEADER = REPO / "bpf" / "abi.h"

HEAD = """# Reasons

One code per refusal, the same word in the kernel's counters, the log field, the audit, the answer to the client and the CLI.
`credwire explain ID` shows the whole story of one refusal; this page says what each code means and what to try.
A kind decides how the refusal looks: *policy* is EPERM in the kernel and 403 on the wire, *unavailable* is ECONNREFUSED and 503
(502 or 504 where the far side failed), *client* is 400, 405, 413, 421 or 431 because the client's bytes are wrong.
The last column is the number in `bpf/abi.h` of the codes that the kernel itself gives.

Written by `python -m tests.repo.reasons_page` from `control/reason.py`; change the words there.

| reason | kind | what it means | what to try | kernel |
|---|---|---|---|---|
"""


def kernel_numbers() -> dict[str, int]:
    """``daemon-down`` to 1, and so on: enum kernel_reason of bpf/abi.h."""
    body = re.search(r"enum kernel_reason \{(.*?)\};", HEADER.read_text(), re.DOTALL)
    found = re.findall(r"REASON_([A-Z0-9_]+)\s*=\s*(\d+)", body.group(1)) if body else []
    return {word.lower().replace("_", "-"): int(number) for word, number in found}


def page() -> str:
    """The whole page."""
    numbers = kernel_numbers()
    kinds = {Kind.POLICY: "policy", Kind.UNAVAILABLE: "unavailable", Kind.CLIENT: "client"}
    rows = []
    for reason in Reason:
        about = ABOUT[reason]
        cells = (f"`{reason}`", kinds[about.kind], about.says, about.hint, str(numbers.get(reason.value, "")))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
