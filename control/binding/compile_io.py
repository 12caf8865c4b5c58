"""
Find what the kernel filters name on this machine: files, users, packages.

In: a ResourceSet.  Out: filters with (device, inode) in the place of paths, and warnings.
What is not there makes no filter: nothing can run it or under it, and once it is there a reload finds it.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from control.binding.compile import compiled
from control.binding.model import ResourceSet
from control.errors import ResourceError
from control.facts.model import FileId
from control.facts.package_io import Executables, Packages
from control.facts.path_io import look
from control.identity.account import Accounts, resolve, unnamed
from control.identity.account_io import accounts
from control.identity.match import no_program
from control.identity.model import Identity
from control.identity.selector.registry import KINDS
from control.reason import Reason

MAX_PROGRAMS = 256
"""Executables of one package that become filters; a package with more has to be named by path."""

_packages = Packages()


class LocatedFilter(NamedTuple):
    """A FilterPlan whose executable was found."""

    exe: tuple[int, int] | None
    """(device in the kernel's encoding, inode)"""
    uid: int | None
    script: str | None
    direct_when_down: bool
    observe: bool = False


def named(resources: ResourceSet, known: Callable[[], Accounts] = accounts) -> ResourceSet:
    """Look up the users and groups that selectors name; what was looked up before is looked up again."""
    if not any(KINDS[s.kind].named for i in resources.identities for group in i.selectors for s in group):
        return resources
    return msgspec.structs.replace(resources, identities=resolve(resources.identities, known()))


def plan(resources: ResourceSet, packages: Packages = _packages) -> tuple[list[LocatedFilter], list[ResourceError]]:
    """
    Look up each executable, following symbolic links to the file that the kernel will report.

    The warnings say which executables, scripts, users, groups or packages are missing, are links (their identity can never match: the
    kernel reports the file behind), or lie where others than root may change them (attestation would refuse).
    """
    if unnamed(resources.identities):
        resources = named(resources)
    warnings: dict[str, ResourceError] = {}
    bound = {binding.identity for binding in resources.bindings}
    identities = [identity for identity in resources.identities if identity.name in bound]
    _judge_names(identities, warnings)
    programs = _programs(identities, packages, warnings)
    made = compiled(identities, resources.bindings, programs)
    for fault in made.faults:
        warnings.setdefault(fault.message, fault)
    named_paths = {path for i in identities for group in i.selectors for s in group if s.kind == "unix:exe:path" for path in s.values}
    files: dict[str, FileId | None] = {}
    located: list[LocatedFilter] = []
    for wanted in made.plans:
        if wanted.script is not None and wanted.script not in files:
            files[wanted.script] = None
            _judge_script(wanted.script, warnings)
        found: FileId | None = None
        if (path := wanted.exe_path) is not None:
            key = "exe " + path
            if key not in files:
                files[key] = _judge_executable(path, warnings) if path in named_paths else look(path).file
            found = files[key]
            if found is None:
                continue
        located.append(
            LocatedFilter((found.dev, found.ino) if found else None, wanted.uid, wanted.script, wanted.direct_when_down, wanted.observe)
        )
    return located, list(warnings.values())


def _judge_names(identities: Iterable[Identity], warnings: dict[str, ResourceError]) -> None:
    for identity in identities:
        for group in identity.selectors:
            for selector in group:
                what = KINDS[selector.kind].named
                for value, number in zip(selector.values, selector.numbers or (), strict=False):
                    if number is None:
                        file = "/etc/passwd" if what == "user" else "/etc/group"
                        message = f'{what} "{value}" is not in {file}: nobody matches {selector.kind} {value} of identity "{identity.name}"'
                        hint = f"make the {what}, then credwire reload; one that LDAP or another service knows is named by its number"
                        _warn(warnings, f"{what} {value}", Reason.RESOURCE_DANGLING, message, hint)


def _programs(identities: Iterable[Identity], packages: Packages, warnings: dict[str, ResourceError]) -> dict[str, tuple[str, ...]]:
    """Give the executables of each package that identities name, and warn of what will never match."""
    found: dict[str, tuple[str, ...]] = {}
    for identity in identities:
        for group in identity.selectors:
            scripted = any(selector.kind == "script:path" for selector in group)
            for selector in group:
                if selector.kind != "unix:exe:package":
                    continue
                for name in selector.values:
                    if name not in found:
                        found[name] = _programs_of(name, packages.executables(name), warnings)
                    left_out = [path for path in found[name] if no_program(path, scripted=scripted)]
                    if left_out:
                        message = f'package "{name}": {_some(left_out)} never matches: others tell it what to do'
                        hint = "" if scripted else "name the script beside the package: script:path"
                        _warn(warnings, f"package {name} {scripted}", Reason.RESOURCE_OVERBROAD, message, hint)
    return found


def _programs_of(name: str, found: Executables, warnings: dict[str, ResourceError]) -> tuple[str, ...]:
    if found.fault:
        message = f'package "{name}": {found.fault}: nothing is filtered for it'
        _warn(warnings, f"package {name}", Reason.RESOURCE_DANGLING, message, "install it, then credwire reload")
    elif len(found.paths) > MAX_PROGRAMS:
        message = f'package "{name}" has {len(found.paths)} executables, more than {MAX_PROGRAMS}: nothing is filtered for it'
        _warn(warnings, f"package {name}", Reason.RESOURCE_OVERBROAD, message, "add unix:exe:path with the one that is meant")
    else:
        return found.paths
    return ()


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


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
