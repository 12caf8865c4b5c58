"""Every file says where you are: Python opens with its docstring, C and shell with their licence and purpose."""

import ast
import re

from tests.repo.house import PACKAGES, files, modules, name, report, tree

LICENCE = re.compile(r"SPDX-License-Identifier: \S")
"""bpf/ is Apache-2.0 OR GPL-2.0; outside text keeps its own."""
ENTRY = re.compile(r"\bIn: "), re.compile(r"\bOut: ")
WORDS_ONLY = {"control/errors.py": "names of errors", "control/units.py": "names of numbers", "bpf/errors.py": "names of errors"}
"""Files of mere names: nothing goes in, nothing comes out."""


def test_every_module_says_what_goes_in_and_out() -> None:
    """A module of ours opens with what it is for, then In: and Out:; a package's __init__ may be empty."""
    found = []
    for path in modules():
        if path.name == "__init__.py" and not path.read_text().strip():
            continue
        text = ast.get_docstring(tree(path)) or ""
        if not text:
            found.append(f"{name(path)}:1: no docstring: say what it is for, what goes in, what comes out")
        elif path.name != "__init__.py" and name(path) not in WORDS_ONLY and not all(word.search(text) for word in ENTRY):
            found.append(f'{name(path)}:1: the docstring has no "In:" and "Out:"')
        elif not text.splitlines()[0].rstrip().endswith((".", ":", "?", ";", ",")):
            found.append(f"{name(path)}:1: the docstring's first line is no sentence")
    report(found)


def test_every_test_says_its_sentence() -> None:
    """A test file has a docstring, and so has each test: the name is the claim, the docstring the sentence."""
    found = []
    for path in files(".py", under=("tests",)):
        if path.name in ("__init__.py", "conftest.py") and not path.read_text().strip():
            continue
        if not ast.get_docstring(tree(path)):
            found.append(f"{name(path)}:1: no docstring")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node):
                found.append(f"{name(path)}:{node.lineno}: {node.name} has no docstring")
    report(found)


def test_every_c_file_says_its_licence() -> None:
    """The kernel takes GPL-compatible programs only, so bpf/ is under both licences, said in the first line."""
    found = []
    for path in files(".c", ".h", under=("bpf",)):
        first = (path.read_text().splitlines() or [""])[0]
        if not first and "stub" in path.parts:
            continue  # there only so that an #include finds it
        if not LICENCE.search(first):
            found.append(f"{name(path)}:1: the first line is to be // SPDX-License-Identifier: Apache-2.0 OR GPL-2.0")
    report(found)


def test_no_file_is_empty_ahead_of_need() -> None:
    """Only package markers may be empty."""
    report(
        [
            f"{name(path)}: is empty"
            for path in files(under=(*PACKAGES, "tests", "docs", "tools"))
            if path.name not in ("__init__.py", "py.typed") and "stub" not in path.parts and not path.read_bytes().strip()
        ]
    )


def test_nothing_is_left_for_later() -> None:
    """No file says TODO, FIXME or XXX, and none raises NotImplementedError but where a protocol of a library asks for it."""
    word = re.compile(r"\b(TODO|FIXME|XXX)\b")
    found = []
    for path in files(".py", ".c", ".h", ".sh", ".md", ".toml", ".yaml"):
        if name(path) == "tests/repo/test_headers.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if word.search(line):
                found.append(f"{name(path)}:{number}: {line.strip()}")
    report(found)
