"""Docs say what is there: links resolve, commands exist, nothing names somebody's machine."""

import re
from pathlib import Path

from tests.repo.house import REPO, files, name, report

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
HOME = re.compile(r"(?<![\w.])/(?:home|Users)/(?!(?:u|user|alice|bob)\b)[A-Za-z0-9_.-]+|(?<![\w./])/work/(?:main|shared)\b")
REGISTRY = re.compile(r"\b(?:pypi\.org|pythonhosted\.org|(?:deb|security|ftp)\.debian\.org|registry\.npmjs\.org|proxy\.golang\.org)\b")
TEXT = (".md", ".py", ".c", ".h", ".sh", ".toml", ".yaml", ".yml", ".proto", ".cfg", "")


def test_links_of_the_docs_resolve() -> None:
    """Every relative link of a Markdown file leads to a file of the checkout."""
    found = []
    for path in files(".md"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in LINK.finditer(line):
                target = match.group(1)
                if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                    found.append(f"{name(path)}:{number}: {target} is not there")
    report(found)


def test_files_that_the_docs_name_are_there() -> None:
    """A path in backquotes that begins with one of our folders exists."""
    ours = re.compile(r"`((?:control|bpf|sysfs_fallback|tests|docs|tools|vagrant)/[A-Za-z0-9_./-]+)`")
    found = []
    for path in files(".md"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in ours.finditer(line):
                if not (REPO / match.group(1)).exists():
                    found.append(f"{name(path)}:{number}: {match.group(1)} is not there")
    report(found)


def test_make_targets_that_the_docs_name_are_there() -> None:
    """``make X`` in code of a Markdown file is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPO / "Makefile").read_text(), re.MULTILINE))
    found = []
    for path in files(".md"):
        for code in CODE.finditer(path.read_text()):
            found += [f"{name(path)}: make {word} is no target" for word in MAKE.findall(code.group(0)) if word not in targets]
    report(found)


def test_nothing_names_a_machine_or_a_registry() -> None:
    """No file holds an absolute path of a developer's machine or the host name of a package registry."""
    found = []
    for path in files():
        if path.suffix not in TEXT or name(path) == "tests/repo/test_docs.py" or name(path).startswith(("LICENSE", "bpf/LICENSE")):
            continue
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            found += [f"{name(path)}:{number}: {match.group(0)}" for pattern in (HOME, REGISTRY) for match in pattern.finditer(line)]
    report(found)


def test_the_patterns_find_what_they_are_for() -> None:
    """The check itself: a home directory and a registry are found, an ordinary path and a product's host are not."""
    assert HOME.search("see /home/jane/src") and REGISTRY.search("https://pypi.org/simple")
    assert not HOME.search("/homework/x /etc/credwire") and not REGISTRY.search("identity.oraclecloud.com")


def test_each_test_that_the_threat_model_names_is_there() -> None:
    """The threat model links its rows to tests: file and function both exist."""
    page = REPO / "docs" / "threat-model.md"
    found = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for file, test in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", line):
            path = REPO / file
            if not path.exists():
                found.append(f"docs/threat-model.md:{number}: {file} is not there")
            elif not re.search(rf"def {test}\b", path.read_text()):
                found.append(f"docs/threat-model.md:{number}: {file} has no {test}")
    report(found)


def test_one_sentence_per_line() -> None:
    """Prose in docs/ has one sentence per line, so that a change shows as that sentence."""
    found = []
    two = re.compile(r"[a-z)`][.?!] [A-Z][a-z]")
    for path in sorted(Path(REPO / "docs").rglob("*.md")):
        fenced = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced and not line.startswith(("|", "#", "    ")) and two.search(CODE.sub("`x`", line)):
                found.append(f"{name(path)}:{number}: more than one sentence")
    report(found)
