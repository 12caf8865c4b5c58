"""
The off switch, from outside: works with every process of the daemon dead, stopped or hung.

In: the configuration, root, how long, who.  Out: the kernel lets everything pass, for connections that are open too; what was done is
remembered for the next start and for the audit.
The order is: the kernel first, because that is what people wait for; then ``<state>/off.json``, so that a reboot or new programs stay off
until the time is over; then a note for the audit, which a living agent takes within a beat.  The agent takes it only when it has withdrawn
every grant and the proxies have read so: a note that lies on says that somebody hangs, and then whoever holds connections is killed, which
resets them.  Clients connect again and go direct.
"""

import json
import os
import pwd
import secrets
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from bpf import switch_io
from bpf.errors import KernelError
from control.daemon.config import Config
from control.daemon.config_io import cgroup_paths
from control.errors import SetupError
from control.facts.proc import MalformedProcError, parse_stat, parse_status
from control.reason import Reason
from control.whole_io import write_whole

TAKEN_S = 0.6
"""Longest wait for the agent: a beat of 0.2 s, the withdrawal, and what a busy machine adds.  The whole switch takes less than a second."""
_POLL_S = 0.01
_NOTES_MOST = 1000
"""Notes that may wait for an agent: who switches in a loop while it is dead writes no more than these."""
_NO_LOGIN = 0xFFFFFFFF
"""loginuid of who did not log in: a service (proc_pid_loginuid)."""


class Off(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is switched off."""

    until: float = 0.0
    """Seconds since 1970-01-01 UTC; 0: until somebody switches it on."""
    by: str = ""
    at: float = 0.0

    def over(self, now: float) -> bool:
        """Whether its time is over."""
        return self.until != 0.0 and self.until <= now


class Note(msgspec.Struct, frozen=True):
    """What a tool did while perhaps nobody wrote the audit."""

    event: str
    """``switched-off``, ``switched-on``"""
    at: float
    by: str
    until: float = 0.0
    pid: int = 0
    uid: int = -1


class SwitchOutcome(NamedTuple):
    """What came of it."""

    attached: bool
    """There were kernel programs to switch; without them traffic is direct anyway."""
    until: float
    """When it comes on by itself, seconds since 1970-01-01 UTC; 0: never."""
    noticed: bool
    """A living agent took notice and cut the connections that bore credentials."""
    killed: tuple[str, ...] = ()
    """Processes of the daemon that hung with connections in their hands, for people: ``credwire-proxy 1234``."""
    faults: tuple[str, ...] = ()
    """What could not be done beside it, for people: the switch itself was thrown."""


def off(config: Config, for_s: float | None, by: str) -> SwitchOutcome:
    """
    Let everything pass: for so many seconds, or (None) until it is switched on.

    Raises SetupError when the kernel switch cannot be thrown.
    """
    now = time.time()
    until = now + for_s if for_s is not None else 0.0
    attached = _throw(config, for_s)
    faults = []
    try:
        remember(Path(config.paths.state), Off(until, by, now))
    except OSError as error:
        faults.append(f"it is not remembered for the next start: {error.strerror or error}")
    note = _leave(config, Note("switched-off", now, by, until, os.getpid(), os.getuid()), faults)
    ours = _processes(config)
    noticed = note is not None and _agent_lives(ours) and _taken(note)
    killed = () if noticed else _cut(config, ours)
    return SwitchOutcome(attached, until, noticed, killed, tuple(faults))


def on(config: Config, by: str) -> SwitchOutcome:
    """Hold bound processes again.  Raises SetupError when the kernel switch cannot be thrown."""
    faults: list[str] = []
    try:
        forget(Path(config.paths.state))
    except OSError as error:
        faults.append(f"the next start would be off again: {error.strerror or error}")
    try:
        attached = switch_io.turn_on(Path(config.paths.pins))
    except (KernelError, OSError) as error:
        raise _unthrown(error) from error
    note = _leave(config, Note("switched-on", time.time(), by, 0.0, os.getpid(), os.getuid()), faults)
    noticed = note is not None and _agent_lives(_processes(config)) and _taken(note)
    return SwitchOutcome(attached, 0.0, noticed, (), tuple(faults))


def who() -> str:
    """Say who runs us, as well as the machine knows: user, the user they logged in as, terminal, and who sudo ran for."""
    words = [f"uid {os.getuid()} ({_user(os.getuid())})"]
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text())
        if login not in (_NO_LOGIN, os.getuid()):
            words.append(f"logged in as {_user(login)}")
    if sudo := os.environ.get("SUDO_USER", ""):
        words.append(f"by sudo for {_word(sudo)}")
    for fd in (0, 1, 2):
        with suppress(OSError):
            words.append(f"at {os.ttyname(fd)}")
            break
    return ", ".join([*words, f"pid {os.getpid()}"])


# ---- what is remembered --------------------------------------------------------------------------------------------------------------


def remembered(state: Path) -> Off | None:
    """Read whether everything is to be off; None when not, or when the time is over."""
    try:
        found = msgspec.json.decode((state / "off.json").read_bytes(), type=Off)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError):
        return Off(by="somebody: off.json cannot be read")  # off is what somebody wanted, and a credential is what nobody may guess
    return None if found.over(time.time()) else found


def remember(state: Path, switched: Off) -> None:
    """Write it for the next start.  Raises OSError."""
    write_whole(state / "off.json", msgspec.json.encode(switched))


def forget(state: Path) -> None:
    """The next start is to be on.  Raises OSError."""
    (state / "off.json").unlink(missing_ok=True)


# ---- notes for the audit -------------------------------------------------------------------------------------------------------------


def spool(state: Path) -> Path:
    """Where notes wait for the agent: a directory of root's alone."""
    return state / "audit" / "spool"


def notes(state: Path) -> list[tuple[Path, Note | None]]:
    """Give the notes that wait, oldest first; None in the place of one that cannot be read."""
    found: list[tuple[Path, Note | None]] = []
    try:
        names = sorted(os.listdir(spool(state)))  # noqa: PTH208  # asked five times a second
    except OSError:
        return []
    for name in names:
        if name.startswith("."):
            continue  # being written
        path = spool(state) / name
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Note)))
        except OSError:
            continue  # somebody else took it
        except msgspec.DecodeError:
            found.append((path, None))
    return found


def _leave(config: Config, note: Note, faults: list[str]) -> Path | None:
    """Leave a note for the agent; None when it could not be written."""
    state = Path(config.paths.state)
    if len(notes(state)) >= _NOTES_MOST:
        faults.append(f"it is not in the audit: {_NOTES_MOST} notes wait for an agent already")
        return None
    target = spool(state) / f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    try:
        target.parent.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(target, msgspec.json.encode(note))
    except OSError as error:
        faults.append(f"it is not in the audit: {error.strerror or error}")
        return None
    return target


def _taken(note: Path) -> bool:
    """Wait for the agent to take a note."""
    end = time.monotonic() + TAKEN_S
    while note.exists():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


# ---- the kernel and the processes ------------------------------------------------------------------------------------------------------


def _throw(config: Config, for_s: float | None) -> bool:
    try:
        return switch_io.turn_off(Path(config.paths.pins), for_s)
    except (KernelError, OSError) as error:
        raise _unthrown(error) from error


def _unthrown(error: KernelError | OSError) -> SetupError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = getattr(error, "hint", "") or "credwired detach takes the programs out of the kernel"
    return SetupError(Reason.DAEMON_DOWN, f"the switch cannot be thrown: {said}", hint=hint)


class _Process(NamedTuple):
    """A process of the daemon."""

    pid: int
    role: str
    uid: int
    stands_still: bool
    """Stopped by a signal or a debugger."""


def _processes(config: Config) -> list[_Process]:
    """
    Find the daemon's processes: by its cgroup, which nobody else may enter, and by the supervisor's table where that is another cgroup.

    The table may be of yesterday, so each is believed only if it runs one of our modules.
    """
    pids: set[int] = set()
    with suppress(OSError, ValueError, SetupError):
        pids |= {int(line) for line in (cgroup_paths(config)[1] / "cgroup.procs").read_text().split()}
    with suppress(OSError, ValueError, LookupError, TypeError):
        pids |= {int(row["pid"]) for row in json.loads((Path(config.paths.run) / "processes.json").read_text())}
    return [found for pid in sorted(pids) if pid > 0 and (found := _look_at(pid)) is not None]


def _look_at(pid: int) -> _Process | None:
    proc = Path(f"/proc/{pid}")
    try:
        words = (proc / "cmdline").read_bytes().split(b"\0")
        module = next((word.decode() for word in words[:6] if word.startswith(b"control.daemon.")), "")
        uid = parse_status((proc / "status").read_bytes()).uids[1]
        still = parse_stat((proc / "stat").read_bytes()).state in ("T", "t")
    except (OSError, MalformedProcError):
        return None  # it ended
    role = module.removeprefix("control.daemon.").removesuffix("_io")
    return _Process(pid, role, uid, still) if role else None


def _agent_lives(ours: list[_Process]) -> bool:
    """Whether it is worth waiting for the agent."""
    return any(process.role == "agent" and not process.stands_still for process in ours)


def _cut(config: Config, ours: list[_Process]) -> tuple[str, ...]:
    """
    Kill whoever of the daemon holds connections: every proxy, and whatever else stands still.

    A supervisor that stands still holds the listeners, in whose queues connections wait for ever.
    """
    killed = []
    for process in ours:
        if not (process.stands_still or (process.role == "proxy" and process.uid == config.uids.proxy)):
            continue
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            continue
        try:
            if _look_at(process.pid) is not None:  # still one of ours, now that the descriptor holds on to it
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                killed.append(f"{process.role} {process.pid}")
        except OSError:
            continue  # it ended by itself
        finally:
            os.close(pidfd)
    return tuple(killed)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _word(text: str) -> str:
    return "".join(c for c in text[:64] if c.isprintable())
