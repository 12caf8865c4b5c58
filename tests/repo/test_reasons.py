"""One reason code per refusal, the same word in Python, in C, in C's Python twin and in the docs."""

import importlib
import re

import pytest

from control.reason import ABOUT, Reason
from tests.repo.house import REPO, files, name, report
from tests.repo.reasons_page import HEADER, PAGE, kernel_numbers, page

TWIN = REPO / "bpf" / "abi.py"


def test_every_reason_has_its_words() -> None:
    """Each code has a clause and a hint, lower case and without a full stop, and its member's name is the code."""
    found = []
    for reason in Reason:
        about = ABOUT.get(reason)
        if about is None:
            found.append(f"control/reason.py: {reason} has no words in ABOUT")
            continue
        if reason.name != reason.value.upper().replace("-", "_"):
            found.append(f"control/reason.py: {reason.name} is not the name of {reason.value}")
        for text in (about.says, about.hint):
            if not text or text.endswith(".") or (text[0].isupper() and not text.split()[0].isupper()):
                found.append(f'control/reason.py: {reason}: "{text}" is to be lower case without a full stop')
    report(found)


def test_the_kernel_has_no_word_of_its_own() -> None:
    """Every code of enum kernel_reason is a Reason, numbered from 0 without a gap; 0 is granted."""
    if not HEADER.exists():
        pytest.skip("bpf/abi.h is not there")
    numbers = kernel_numbers()
    words = {reason.value for reason in Reason}
    report([f"bpf/abi.h: {word} is no reason of control/reason.py" for word in numbers if word not in words])
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert numbers["granted"] == 0


def test_the_twin_has_the_same_numbers() -> None:
    """bpf/abi.py knows every kernel reason under the same name and number as bpf/abi.h, and no other."""
    if not TWIN.exists():
        pytest.skip("bpf/abi.py is not there")
    abi = importlib.import_module("bpf.abi")

    members = {member.name.lower().replace("_", "-"): int(member) for member in abi.KernelReason}
    assert members == kernel_numbers()


def test_the_page_is_up_to_date() -> None:
    """docs/reasons.md says what control/reason.py says; ``python -m tests.repo.reasons_page`` writes it."""
    assert PAGE.exists(), "docs/reasons.md is not there; run python -m tests.repo.reasons_page"
    ours, theirs = page().splitlines(), PAGE.read_text().splitlines()
    report([f"docs/reasons.md: {line}" for line in {*ours} ^ {*theirs}])


def test_no_code_is_written_as_a_word_of_its_own() -> None:
    """Code names a reason by its member: a string that equals a code, compared or passed, is a second place to keep right."""
    words = {reason.value for reason in Reason if "-" in reason.value}
    pattern = re.compile(rf"""(?<![\w-])["']({"|".join(sorted(words))})["']""")
    found = []
    for path in files(".py", under=("control", "bpf")):
        if name(path) in ("control/reason.py", "bpf/abi.py"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in pattern.finditer(line):
                found.append(f"{name(path)}:{number}: {match.group(1)} is written as a string; use control.reason.Reason")
    report(found)
