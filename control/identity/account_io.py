"""
Read the local database of users and groups.

In: /etc/passwd and /etc/group.  Out: Accounts.
Read as files and not through nsswitch.conf(5), which may load code into the agent and ask the network.
"""

from pathlib import Path

from control.facts.path_io import look
from control.identity.account import Accounts, numbers

PASSWD = Path("/etc/passwd")
GROUP = Path("/etc/group")
MAX_BYTES = 16 << 20
"""Of one of the files: a hundred thousand accounts have a third of it."""


def accounts(passwd: Path = PASSWD, group: Path = GROUP) -> Accounts:
    """Read both; a file that cannot be read, or that others than root may change, names nobody."""
    users, no_users = _read(passwd)
    groups, no_groups = _read(group)
    return Accounts(users, groups, "; ".join(fault for fault in (no_users, no_groups) if fault))


def _read(path: Path) -> tuple[dict[str, int], str]:
    fact = look(str(path), sticky_ok=True)
    if not fact.root_owned:
        return {}, f"{path} is not root's alone: {fact.fault}"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        return {}, f"{path}: {(error.strerror or 'cannot be read').lower()}"
    if len(raw) > MAX_BYTES:
        return {}, f"{path} is larger than {MAX_BYTES} bytes"
    return numbers(raw.decode("utf-8", "replace")), ""
