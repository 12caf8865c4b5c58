"""What is installed is said exactly, and what is generated is what its source generates."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.repo.house import REPO, report

PIN = re.compile(r'^\s*"([A-Za-z0-9._-]+)==([^"]+)",\s*(#.*)?$')
NEEDS_NO_REASON = {"pytest", "ruff", "mypy"}
"""Their names say it."""


def test_every_dependency_is_pinned_exactly() -> None:
    """Each dependency has one exact version."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += [line for group in project["project"]["optional-dependencies"].values() for line in group]
    report(
        [
            f"pyproject.toml: {line} is not pinned with =="
            for line in wanted
            if not re.fullmatch(r"[A-Za-z0-9._\[\]-]+==[A-Za-z0-9.]+", line)
        ]
    )


def test_every_dependency_says_what_it_is_for() -> None:
    """Beside each pin stands what it is for; type stubs and the best-known tools excepted."""
    found = []
    for number, line in enumerate((REPO / "pyproject.toml").read_text().splitlines(), 1):
        match = PIN.match(line)
        if match and not match.group(3) and match.group(1) not in NEEDS_NO_REASON and not match.group(1).startswith("types-"):
            found.append(f"pyproject.toml:{number}: {match.group(1)} does not say what it is for")
    report(found)


def test_the_commands_lead_somewhere() -> None:
    """Each console command names a module with that function."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    found = []
    for command, target in project["project"]["scripts"].items():
        module, function = target.split(":")
        path = REPO / Path(*module.split(".")).with_suffix(".py")
        if not path.exists() or not re.search(rf"^(async )?def {function}\b|^{function} = ", path.read_text(), re.MULTILINE):
            found.append(f"pyproject.toml: {command} leads to {target}, which is not there")
    report(found)


def test_generated_protobuf_is_up_to_date(tmp_path: Path) -> None:
    """Running protoc again gives the committed files, byte for byte."""
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    sources = sorted((REPO / "control" / "api").glob("*.proto"))
    if not sources:
        pytest.skip("control/api has no .proto")
    flags = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    names = [str(path.relative_to(REPO)) for path in sources]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{REPO}", *flags, *names], check=True, cwd=REPO)
    made = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert made
    report(
        [
            f"{path.relative_to(tmp_path)}: differs from what protoc writes; generate it again"
            for path in made
            if not (REPO / path.relative_to(tmp_path)).exists() or (REPO / path.relative_to(tmp_path)).read_bytes() != path.read_bytes()
        ]
    )


def test_the_licences_are_there_in_full() -> None:
    """Apache-2.0 for everything, GPL-2.0 beside it for what the kernel loads."""
    apache, gpl = (REPO / "LICENSE").read_text(), (REPO / "bpf" / "LICENSE.GPL-2.0").read_text()
    assert "Apache License" in apache and "END OF TERMS AND CONDITIONS" in apache
    assert "GNU GENERAL PUBLIC LICENSE" in gpl and "Version 2, June 1991" in gpl and "END OF TERMS AND CONDITIONS" in gpl
