"""
One direction: facts → identity → binding → credential → signer → wire; the daemon alone knows every stage.

A breach prints as ``file:line: part "x" imports part "y" (module): reason``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.repo.house import REPO, dotted, modules, name, report, tree

STAGES = ("facts", "identity", "binding", "credential", "signer", "wire")
SHARED = tuple(path.stem for path in sorted((REPO / "control").glob("*.py")) if path.stem != "__init__")
"""Single files beside the stages are for everybody."""
OUTSIDE = frozenset({"control.cli", "control.daemon", "bpf", "sysfs_fallback", "tests"})


class Rule(NamedTuple):
    """What one part may import of ours, and why no more."""

    may: frozenset[str]
    because: str


def _rules() -> dict[str, Rule]:
    shared = frozenset(f"control.{word}" for word in SHARED)
    found: dict[str, Rule] = {f"control.{word}": Rule(shared, "what everybody shares knows nobody") for word in SHARED}
    for at, stage in enumerate(STAGES):
        left = frozenset(f"control.{word}" for word in STAGES[: at + 1])
        found[f"control.{stage}"] = Rule(shared | left, "a stage imports itself and what stands to its left")
    models = frozenset({"control.facts", "control.identity", "control.binding"})
    found["control.audit"] = Rule(shared | {"control.audit"}, "the audit writes what it is told and knows no stage")
    found["control.health"] = Rule(shared | {"control.health"}, "health shows what it is told and knows no stage")
    found["control.api"] = Rule(shared | models | {"control.api", "control.audit"}, "the API carries words between people and the daemon")
    found["control.cli"] = Rule(
        shared | models | {"control.cli", "control.api"}, "the command line talks to the daemon only; resources alone are read without it"
    )
    stages = frozenset(f"control.{word}" for word in STAGES)
    found["control.daemon"] = Rule(
        shared | stages | {"control.daemon", "control.audit", "control.health", "control.api", "bpf", "sysfs_fallback"},
        "the daemon does the wiring of everything but the command line",
    )
    found["bpf"] = Rule(frozenset({"bpf"}), "the kernel side imports nothing from control")
    found["sysfs_fallback"] = Rule(shared | models | {"sysfs_fallback"}, "the file tree knows control's models; the daemon alone knows it")
    found["control"] = Rule(frozenset(), "the package itself is empty")
    return found


RULES = _rules()

ALSO: dict[tuple[str, str], str] = {
    ("control.cli", "control.daemon.config"): "the command line reads the configuration to find the socket and the resources",
    ("control.cli", "control.daemon.config_io"): "the command line reads the configuration to find the socket and the resources",
    ("control.cli", "control.daemon.switch_io"): "the off switch works with every process of the daemon dead: the command throws it itself",
    ("control.cli", "control.daemon.seal_io"): "a secret is sealed where it is typed: it lies on no disk and crosses no socket unsealed",
}
"""(part, module) to the reason why that one module may be imported all the same."""


class Import(NamedTuple):
    """One import of ours."""

    line: int
    module: str


def part_of(module: str) -> str:
    """``control.wire.head`` belongs to ``control.wire``; ``bpf.abi`` to ``bpf``."""
    words = module.split(".")
    return ".".join(words[:2]) if words[0] == "control" and len(words) > 1 else words[0]


def imports(syntax: ast.Module, here: str) -> Iterator[Import]:
    """Every import of one of our packages, wherever in the file, by statement or by import_module("…")."""
    package = here.split(".")
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: -node.level], node.module or ""]).strip(".") if node.level else (node.module or "")
            for alias in node.names:
                deeper = base in ("control", "")  # "from control import wire" imports the part
                yield Import(node.lineno, f"{base}.{alias.name}".strip(".") if deeper else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            texts = (given.value for given in node.args if isinstance(given, ast.Constant))
            yield from (Import(node.lineno, text) for text in texts if isinstance(text, str))


def breaches(syntax: ast.Module, here: str, shown: str) -> list[str]:
    """Every import of ``here`` that its part may not have."""
    part = part_of(here)
    rule = RULES[part]
    found = []
    for line, module in imports(syntax, here):
        other = part_of(module)
        if other not in RULES and other not in OUTSIDE:
            continue
        if other in rule.may or (part, module) in ALSO:
            continue
        found.append(f'{shown}:{line}: part "{part}" imports part "{other}" ({module}): {rule.because}')
    return found


def test_every_import_goes_one_way() -> None:
    """No file imports what stands to its right, and every part has a rule."""
    found = []
    for path in modules():
        here = dotted(path)
        assert part_of(here) in RULES, f"{name(path)}: part {part_of(here)} has no rule in tests/repo/test_layers.py"
        found += breaches(tree(path), here, name(path))
    report(found)


def test_an_import_to_the_right_is_found() -> None:
    """The check itself: plain, from, relative, nested and by name, each with its line, both parts and the reason."""
    text = (
        "import control.wire.head\n"
        "from control import wire\n"
        "from ..wire import head\n"
        "def late():\n"
        "    from control.daemon.message import Beat\n"
        'importlib.import_module("bpf.abi")\n'
    )
    found = breaches(ast.parse(text), "control.binding.decide", "control/binding/decide.py")
    assert [line.split(":")[1] for line in found] == ["1", "2", "3", "5", "6"]
    assert found[0] == (
        'control/binding/decide.py:1: part "control.binding" imports part "control.wire" (control.wire.head): '
        "a stage imports itself and what stands to its left"
    )


def test_an_import_to_the_left_is_fine() -> None:
    """The wire may know every stage before it, and what all share."""
    text = "from control.facts.model import Facts\nfrom control.reason import Reason\nfrom control.signer.oci import sign\nimport ssl\n"
    assert breaches(ast.parse(text), "control.wire.ask", "x") == []


def test_each_exception_is_still_needed() -> None:
    """An exception that no file uses any more is taken out of the table."""
    used = {(part_of(dotted(path)), found.module) for path in modules() for found in imports(tree(path), dotted(path))}
    report([f"tests/repo/test_layers.py: {part} does not import {module} any more" for part, module in ALSO if (part, module) not in used])


def test_paths_of_findings_are_inside_the_checkout() -> None:
    """A finding can be clicked: its path is relative to the checkout."""
    assert not any(Path(name(path)).is_absolute() for path in modules())
