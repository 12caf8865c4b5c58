"""
Reach the daemon, or say why it cannot be reached.

In: the path of the admin socket.  Out: an Admin to ask, or an AskError that tells dead from hung from the wrong socket, each with what to
try.  What needs no gRPC is found out before gRPC is imported, which takes 80 ms.
"""

import errno
import json
import socket as sockets
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from control.api.ask import AskError, Fault
from control.cli.settings_io import admin_socket

if TYPE_CHECKING:
    from control.api.client_io import Admin

_START: Final = "credwired start; another socket is named by --socket or CREDWIRE_SOCKET"
_OTHER: Final = "--socket or CREDWIRE_SOCKET names the right one; the usual is /run/credwire/admin.sock"
_HUNG: Final = "credwired stop, then credwired start; until then credwire off lets connections go direct"
PROBE_S: Final = 1.0
_COMPLETE_S: Final = 0.4
"""A shell waits no longer for names."""

_CLIENT_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What any HTTP/2 server answers with a SETTINGS frame (RFC 9113 section 3.4)."""
_SETTINGS: Final = 4


@contextmanager
def daemon(socket: Path | None, *, answer_s: float | None = None, long: bool = False) -> Iterator["Admin"]:
    """
    Ask the daemon at ``socket``, or at the configured one.  Raises AskError.

    ``long`` is for questions whose answer takes long: a daemon that is hung is found out before it is waited for.
    """
    path = socket or admin_socket()
    look_at(path)
    if long:
        asked = explained(path, None)
        if asked is not None:
            raise asked
    from control.api.client_io import Admin  # noqa: PLC0415  # imports gRPC

    try:
        with Admin(path) if answer_s is None else Admin(path, answer_s=answer_s) as admin:
            yield admin
    except AskError as error:
        if error.fault is Fault.UNREACHABLE:
            raise explained(path, error) or error from None
        raise


def look_at(path: Path) -> None:
    """Say what is wrong with the socket as far as the file system and connect() know.  Raises AskError (UNREACHABLE)."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise AskError(Fault.UNREACHABLE, f"{path} does not exist: credwired is not running", hint=_START) from None
    except OSError:
        return  # a directory that may not be searched: who tries to open the socket says so
    if not stat.S_ISSOCK(kind):
        what = "a directory" if stat.S_ISDIR(kind) else "a file"
        raise AskError(Fault.UNREACHABLE, f"{path} is {what} and no socket", hint=_OTHER)
    with sockets.socket(sockets.AF_UNIX) as sock:
        sock.settimeout(PROBE_S)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            raise AskError(Fault.UNREACHABLE, f"nobody listens at {path}: credwired has ended", hint=_START) from None
        except BlockingIOError:  # AF_UNIX: its queue is full, so whoever listens does not accept
            raise _hung(path, _listener(sock)) from None
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # of datagrams or packets
                raise AskError(Fault.UNREACHABLE, f"{path} is a socket of another kind", hint=_OTHER) from None


def explained(path: Path, error: AskError | None) -> AskError | None:
    """
    Tell a hung daemon from another program's socket, by speaking to whoever listens as any HTTP/2 client does.

    Gives ``error`` back where that is all that can be said.
    """
    with sockets.socket(sockets.AF_UNIX) as sock:
        sock.settimeout(PROBE_S)
        try:
            sock.connect(str(path))
            listener = _listener(sock)
            sock.sendall(_CLIENT_PREFACE)
            said = sock.recv(9)
        except TimeoutError:
            return _hung(path, _listener(sock))
        except PermissionError:
            return error
        except OSError:
            said, listener = b"", _listener(sock)
    if len(said) >= 4 and said[3] == _SETTINGS:
        return error if error is None or "closed" in error.message else _hung(path, listener)
    if said:
        return AskError(Fault.UNREACHABLE, f"{path} belongs to another program{_named(listener)}: it does not speak gRPC", hint=_OTHER)
    hint = f"look at that process; {_OTHER}" if listener else _START
    return AskError(Fault.UNREACHABLE, f"{path}: whoever listens{_named(listener)} closes every connection", hint=hint)


def _hung(path: Path, listener: int) -> AskError:
    told = _stopped(path)
    why = f": {told}" if told else _named(listener)
    return AskError(Fault.UNREACHABLE, f"credwired does not answer at {path}{why}", hint=_HUNG)


def _stopped(path: Path) -> str:
    """Name the processes of the daemon that stand still, by the table that credwired keeps beside the socket."""
    try:
        rows = json.loads((path.parent / "processes.json").read_text())
        still = [f"{row['role']} (pid {row['pid']})" for row in rows if row["pid"] and _state(int(row["pid"])) in ("T", "t")]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return f"{', '.join(still)} stopped by a signal" if still else ""


def _state(pid: int) -> str:
    """Give the state letter of proc_pid_stat(5); empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _listener(sock: sockets.socket) -> int:
    """Give the pid that made the far end listen (unix(7), SO_PEERCRED); 0 when the kernel does not say."""
    try:
        return int(struct.unpack("iII", sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12))[0])
    except OSError:
        return 0


def _named(pid: int) -> str:
    if not pid:
        return ""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return f" (pid {pid})"
    return f" (pid {pid}, {name})"


# ---- names for the shell ---------------------------------------------------------------------------------------------------------------


def binding_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a binding; nothing where the daemon does not answer quickly."""
    del param
    return _names(ctx, lambda admin: [row.name for row in admin.bindings().bindings], incomplete)


def identity_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an identity; nothing where the daemon does not answer quickly."""
    del param
    return _names(ctx, lambda admin: [row.name for row in admin.identities().identities], incomplete)


def _names(ctx: click.Context, ask: Callable[["Admin"], list[str]], incomplete: str) -> list[str]:
    given: Any = ctx.params.get("socket")
    try:
        path = Path(given) if given else admin_socket(ctx)
        look_at(path)
        from control.api.client_io import Admin  # noqa: PLC0415  # imports gRPC

        with Admin(path, answer_s=_COMPLETE_S) as admin:
            return [name for name in ask(admin) if name.startswith(incomplete)]
    except Exception:  # a shell that completes wants names or nothing
        return []
