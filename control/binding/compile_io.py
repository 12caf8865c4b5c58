"""
Find the files that the kernel filters name.

In: a ResourceSet.  Out: filters with (device, inode) in the place of paths, and warnings.
An executable that is not there makes no filter: nothing can run it, and once it is installed a reload finds it.
"""

from typing import NamedTuple

from control.binding.compile import filters
from control.binding.model import ResourceSet
from control.errors import ResourceError
from control.facts.model import FileId
from control.facts.path_io import look
from control.reason import Reason


class LocatedFilter(NamedTuple):
    """A FilterPlan whose executable was found."""

    exe: tuple[int, int] | None
    """(device in the kernel's encoding, inode)"""
    uid: int | None
    script: str | None
    direct_when_down: bool


def plan(resources: ResourceSet) -> tuple[list[LocatedFilter], list[ResourceError]]:
    """
    Look up each executable, following symbolic links to the file that the kernel will report.

    The warnings say which executables or scripts are missing, are links (their identity can never match: the kernel reports the file
    behind), or lie where others than root may change them (attestation would refuse).
    """
    located: list[LocatedFilter] = []
    warnings: dict[str, ResourceError] = {}
    for wanted in filters(resources.identities, resources.bindings):
        if wanted.script is not None:
            _judge_script(wanted.script, warnings)
        found: FileId | None = None
        if wanted.exe_path is not None:
            found = _judge_executable(wanted.exe_path, warnings)
            if found is None:
                continue
        located.append(LocatedFilter((found.dev, found.ino) if found else None, wanted.uid, wanted.script, wanted.direct_when_down))
    return located, list(warnings.values())


def _judge_executable(path: str, warnings: dict[str, ResourceError]) -> FileId | None:
    fact = look(path)
    if fact.file is None:
        _warn(warnings, path, Reason.EXE_PATH_UNTRUSTED, f'executable "{path}" is not there ({fact.fault}): nothing is filtered for it',
              "install it, then credwire reload")  # fmt: skip
    elif fact.real != path:
        _warn(warnings, path, Reason.EXE_PATH_UNTRUSTED, f'executable "{path}" is a link to {fact.real}: no process will ever match it',
              f"write unix:exe:path: {fact.real}")  # fmt: skip
    elif not fact.root_owned:
        _warn(warnings, path, Reason.EXE_PATH_UNTRUSTED, f'executable "{path}" will be refused: {fact.fault}', "")
    return fact.file


def _judge_script(path: str, warnings: dict[str, ResourceError]) -> None:
    fact = look(path)
    if fact.file is None:
        _warn(warnings, path, Reason.SCRIPT_PATH_UNTRUSTED, f'script "{path}" is not there ({fact.fault})', "install it")
    elif not fact.root_owned:
        _warn(warnings, path, Reason.SCRIPT_PATH_UNTRUSTED, f'script "{path}" will be refused: {fact.fault}', "")


def _warn(warnings: dict[str, ResourceError], path: str, reason: Reason, message: str, hint: str) -> None:
    warnings.setdefault(path, ResourceError(reason, message, hint=hint))
