"""
Only files named ``*_io.py`` touch the world: sockets, files, clocks, randomness, other processes, the event loop.

A breach prints as ``file:line: what is used: why it is the world``.  Everything else gets time, bytes and tables as arguments.
"""

import ast
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from tests.repo.house import modules, name, report, tree

WORLD = {
    "asyncio": "an event loop is the world",
    "bcc": "loads programs into the kernel",
    "ctypes": "calls whatever it likes",
    "fcntl": "changes descriptors",
    "glob": "reads directories",
    "grpc": "is a network",
    "http.client": "is a network",
    "logging": "writes; events are told by *_io files",
    "mmap": "maps files and devices",
    "multiprocessing": "starts processes",
    "psutil": "reads /proc",
    "pyroute2": "is netlink",
    "random": "is randomness; take it as an argument",
    "requests": "is a network",
    "resource": "changes the process",
    "secrets": "is randomness; take it as an argument",
    "select": "waits",
    "selectors": "waits",
    "shutil": "changes files",
    "signal": "is the process's own",
    "subprocess": "starts processes",
    "tempfile": "makes files",
    "threading": "starts threads",
    "concurrent.futures": "starts threads",
    "time": "is a clock; take the time as an argument",
    "urllib.request": "is a network",
    "uvloop": "an event loop is the world",
}
"""Module to what it touches: none of it may be imported."""


def _socket_is_pure(attribute: str) -> bool:
    return attribute.isupper() or attribute in {"inet_ntop", "inet_pton", "htons", "ntohs"}


def _os_is_pure(attribute: str) -> bool:
    return attribute in {"fsencode", "fsdecode", "fspath", "PathLike", "strerror"} or attribute.isupper()


PARTLY: dict[str, tuple[Callable[[str], bool], str]] = {
    "os": (_os_is_pure, "reaches the system"),
    "socket": (_socket_is_pure, "is a network; its constants are fine"),
}
"""Module to (which of its names are pure, what the others touch)."""

CALLS = {
    "open": "opens a file",
    "input": "reads from a person",
    "print": "writes; events are told by *_io files",
    "breakpoint": "is for the desk",
    "datetime.now": "is a clock; take the time as an argument",
    "datetime.utcnow": "is a clock; take the time as an argument",
    "datetime.datetime.now": "is a clock; take the time as an argument",
    "date.today": "is a clock; take the time as an argument",
    "uuid.uuid1": "is a clock and randomness",
    "uuid.uuid4": "is randomness; take it as an argument",
    "*.generate_private_key": "is randomness; keys are made in *_io files",
    "*.random_serial_number": "is randomness; take it as an argument",
    "ssl.create_default_context": "reads trust roots",
    "*.load_cert_chain": "reads files",
    "*.load_verify_locations": "reads files",
    "*.load_default_certs": "reads files",
}
"""Call, as written, to what it touches; ``*`` is any owner."""

PATH_METHODS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "iterdir", "rglob", "exists", "is_file", "is_dir",
    "is_symlink", "stat", "lstat", "chmod", "touch", "rename", "resolve", "symlink_to", "hardlink_to", "open", "readlink", "cwd", "home",
    "expanduser",
}  # fmt: skip
"""Of pathlib, in files that import it."""

ALLOWED = {
    ("control/daemon/main.py", "import control.daemon.start_io"): "the entry point hands its arguments over",
    ("control/daemon/main.py", "import control.daemon.background_io"): "the entry point hands its arguments over",
    ("control/cli/main.py", "*"): "the entry point wires the command line to its *_io files",
}
"""(file or glob, what) to the reason for the exception."""


def _imported(syntax: ast.Module) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name or None) of each import outside of ``if TYPE_CHECKING``."""
    for_types = {
        id(inner)
        for node in ast.walk(syntax)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(syntax):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def _world_module(module: str) -> str | None:
    words = module.split(".")
    return next((".".join(words[:n]) for n in range(len(words), 0, -1) if ".".join(words[:n]) in WORLD), None)


def uses(syntax: ast.Module) -> list[tuple[int, str, str]]:
    """(line, what, why) of everything in a file that touches the world."""
    found = []
    partly, has_paths = set(), False
    for line, module, imported in _imported(syntax):
        world = _world_module(module) or (_world_module(f"{module}.{imported}") if imported else None)
        if world:
            found.append((line, f"import {world}", WORLD[world]))
        if module in PARTLY:
            if imported is None:
                partly.add(module)
            elif not PARTLY[module][0](imported):
                found.append((line, f"{module}.{imported}", PARTLY[module][1]))
        has_paths |= module == "pathlib"
        if (imported and imported.endswith("_io")) or module.endswith("_io"):
            found.append((line, f"import {module}", "a file that uses an *_io file touches the world through it"))
    for node in ast.walk(syntax):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in partly:
            pure, why = PARTLY[node.value.id]
            if not pure(node.attr) and node.attr != "path":
                found.append((node.lineno, f"{node.value.id}.{node.attr}", why))
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        for pattern, why in CALLS.items():
            if fnmatchcase(called, pattern):
                found.append((node.lineno, f"{called}()", why))
        if has_paths and isinstance(node.func, ast.Attribute) and node.func.attr in PATH_METHODS:
            found.append((node.lineno, f".{node.func.attr}()", "reads or changes the file system"))
    return found


def _is_allowed(shown: str, what: str) -> bool:
    return any(fnmatchcase(shown, file) and fnmatchcase(what, thing) for file, thing in ALLOWED)


def test_only_io_files_touch_the_world() -> None:
    """No other file opens, connects, loads, sleeps, draws lots or reads a clock."""
    found = []
    for path in modules():
        if path.stem.endswith("_io"):
            continue
        shown = name(path)
        found += [f"{shown}:{line}: {what}: {why}" for line, what, why in uses(tree(path)) if not _is_allowed(shown, what)]
    report(found)


def test_a_file_that_touches_the_world_is_found() -> None:
    """The check itself: modules, partly pure modules, calls and methods of paths, each with its line."""
    text = (
        "import time, socket, os\n"
        "from pathlib import Path\n"
        "from os import environ\n"
        "from control.binding.read_io import read\n"
        "def f(key):\n"
        "    socket.create_connection(('h', 1))\n"
        "    os.environ.get('x')\n"
        "    Path('x').read_text()\n"
        "    open('x')\n"
        "    rsa.generate_private_key(65537, 2048)\n"
    )
    assert [line for line, _, _ in sorted(uses(ast.parse(text)))] == [1, 3, 4, 6, 7, 8, 9, 10]


def test_constants_and_types_are_no_world() -> None:
    """Names of address families, errno texts, types for the checker and pure paths are fine."""
    text = (
        "import os, socket\nfrom pathlib import PurePosixPath\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import asyncio\n"
        "x = socket.AF_INET, os.strerror(1), PurePosixPath('/a').parent\n"
    )
    assert uses(ast.parse(text)) == []


def test_each_exception_names_a_file() -> None:
    """An exception for a file that is gone goes too."""
    there = {name(path) for path in modules()}
    gone = [file for file, _ in ALLOWED if not any(fnmatchcase(path, file) for path in there)]
    report([f"tests/repo/test_io_suffix.py: {file} is not there any more" for file in gone])
