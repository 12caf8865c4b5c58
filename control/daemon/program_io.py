"""
Say what the facts of a program would be if somebody started it now.

In: paths and a user, as whoever is about to start it knows them.  Out: Facts, or a Refusal when the paths lead nowhere.
For people's questions only: nothing is ever given for facts that the kernel did not report.
Only what may be executed is ever read, so that nobody learns the digest of a secret by calling it a program.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from control.api.view import Program
from control.errors import Refusal
from control.facts.digest_io import Digests
from control.facts.model import Facts, PathFact, ProcessKey
from control.facts.package_io import Packages
from control.facts.path_io import file_id, look
from control.reason import Reason
from control.units import ExecId, Gid, Pid, StartNs, Uid

_sha256, _md5, _packages = Digests(), Digests(algorithm="md5"), Packages()


def imagine(program: Program, wanted: dict[str, frozenset[str]]) -> Facts | Refusal:
    """Look at the files of ``program``; ``wanted`` names the selectors in use, by kind.  Blocking."""
    exe = look(program.exe)
    if exe.file is None or not _reaches(program, exe):
        said = f"there is no executable {program.exe} that uid {program.uid} can reach"
        return Refusal(Reason.PROCESS_GONE, said, "give the path of the program")
    if exe.real != exe.path:  # execve follows links, and the kernel reports the file behind them
        exe = look(exe.real)
    script = look(program.script) if program.script else None
    if script is not None and (script.file is None or not _reaches(program, script)):
        said = f"there is no script {program.script} that uid {program.uid} can reach"
        return Refusal(Reason.PROCESS_GONE, said, "give the path of the script")
    packages = _packages.owners(exe.path, wanted["unix:exe:package"]) if "unix:exe:package" in wanted else ()
    return Facts(
        key=ProcessKey(Pid(0), StartNs(0), ExecId(0)),
        uid=Uid(program.uid),
        gid=Gid(program.gid),
        exe=exe,
        exe_sha256=_digest(exe, _sha256) if "unix:exe:sha256" in wanted else None,
        script=script,
        traced=False,
        exe_md5=_digest(exe, _md5) if packages else None,
        packages=packages,
        script_sha256=_digest(script, _sha256) if script is not None and script.root_owned and "script:sha256" in wanted else None,
    )


def _reaches(program: Program, fact: PathFact) -> bool:
    """
    Whether every directory on the way lets the program's user through, by owner, group and mode.

    We look as root and answer whoever may ask: where they could not look themselves, they hear the same as of a file that is not there.
    """
    if program.uid == 0:
        return True
    ways = {parent for path in (fact.path, fact.real or fact.path) for parent in Path(path).parents}
    try:
        return all(_passes(way.stat(), program) for way in ways)
    except OSError:
        return False


def _passes(way: os.stat_result, program: Program) -> bool:
    bit = stat.S_IXUSR if way.st_uid == program.uid else stat.S_IXGRP if way.st_gid == program.gid else stat.S_IXOTH
    return bool(way.st_mode & bit)


def _digest(fact: PathFact, digests: Digests) -> str | None:
    place = fd = -1
    try:
        place = os.open(fact.real or fact.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(place)
        if file_id(found) != fact.file or not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            return None  # whoever asks may have put a device there since: opening one can do what only root may
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        return digests.of(fd)
    except OSError:
        return None
    finally:
        for held in (place, fd):
            with suppress(OSError):
                os.close(held)
