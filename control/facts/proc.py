"""
Read what /proc says of a process.

In: bytes of /proc/<pid>/stat and /proc/<pid>/status.  Out: the few fields that attestation needs.
Both hold the command name, which the process chooses: it may hold blanks, brackets, line breaks and bytes that look like other fields.
Source: proc_pid_stat(5), proc_pid_status(5); fs/proc/array.c.  Pure.
"""

from typing import NamedTuple


class MalformedProcError(ValueError):
    """A field is missing or no number: not what the kernel writes."""


class Stat(NamedTuple):
    """Of /proc/<pid>/stat."""

    pid: int
    comm: bytes
    """Chosen by the process: for people's eyes."""
    state: str
    """``R``, ``S``, ``Z`` …"""
    start_ticks: int
    """Clock ticks after boot; field 22.  Tells a reused pid from its former owner."""


class Status(NamedTuple):
    """Of /proc/<pid>/task/<tid>/status."""

    tgid: int
    tracer_pid: int
    """0 when no debugger is attached."""
    uids: tuple[int, int, int, int]
    """Real, effective, saved, file system; as the reader's user namespace sees them."""
    gids: tuple[int, int, int, int]


def parse_stat(raw: bytes) -> Stat:
    """
    Read the one line of /proc/<pid>/stat.

    The command name is neither quoted nor escaped here: it lies between the first ``(`` and the *last* ``)``, as no later field can
    hold one.
    Raises MalformedProcError with the field's name.
    """
    opening, closing = raw.find(b"("), raw.rfind(b")")
    if opening < 0 or closing < opening:
        raise MalformedProcError("stat has no command name in brackets")
    rest = raw[closing + 1 :].split()
    if len(rest) < 20:
        raise MalformedProcError("stat ends before field 22, start time")
    comm = raw[opening + 1 : closing]
    return Stat(_number(raw[:opening], "pid"), comm, rest[0].decode("ascii", "replace"), _number(rest[19], "start time"))


def parse_status(raw: bytes) -> Status:
    """
    Read /proc/<pid>/status.

    The first line is the name, in which the kernel escapes line breaks and backslashes; so each line is one field, and a field is taken
    where its own name begins the line, once.
    Raises MalformedProcError with the field's name.
    """
    fields: dict[bytes, bytes] = {}
    for line in raw.split(b"\n")[1:]:  # [1:]: the name is the process's own mouth
        key, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(key, value)
    return Status(
        _number(_field(fields, b"Tgid"), "Tgid"),
        _number(_field(fields, b"TracerPid"), "TracerPid"),
        _four(fields, b"Uid"),
        _four(fields, b"Gid"),
    )


def _field(fields: dict[bytes, bytes], name: bytes) -> bytes:
    if name not in fields:
        raise MalformedProcError(f"status has no field {name.decode()}")
    return fields[name]


def _four(fields: dict[bytes, bytes], name: bytes) -> tuple[int, int, int, int]:
    parts = _field(fields, name).split()
    if len(parts) != 4:
        raise MalformedProcError(f"status field {name.decode()} has {len(parts)} numbers instead of 4")
    real, effective, saved, files = (_number(part, name.decode()) for part in parts)
    return real, effective, saved, files


def _number(raw: bytes, name: str) -> int:
    text = raw.strip()
    if not text.isdigit():
        raise MalformedProcError(f"{name} is no number")
    return int(text)


def printable(text: str) -> str:
    """
    Escape what a terminal or a log must not see.

    Names of files and processes may hold any bytes; those that are not UTF-8 arrive as lone surrogates, which no encoder takes.
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
