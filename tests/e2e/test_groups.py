"""
The two sockets for people: who may change, who may look, who may neither.  Needs root.

In: groups that every Debian has, named in the configuration; users that are numbers.  Out: what each hears from the real daemon.
"""

import grp
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.lib.net import REPOSITORY
from tests.e2e.lib.stage import Stage

ADMINS, VIEWERS = "operator", "src"
USER = 72460

_ASK = """
import json, os, sys
from pathlib import Path
from control.api.ask import AskError
from control.api.client_io import Admin
from control.api.view import Program
os.setgroups(json.loads(sys.argv[2])); os.setgid(72460); os.setuid(72460)
told = {}
try:
    with Admin(Path(sys.argv[1])) as admin:
        told["revision"] = admin.status().revision
        told["uid"] = admin.explain_program(Program("/usr/bin/true", uid=0, gid=0)).facts["uid"]
        told["identities"] = [row.name for row in admin.identities().identities]
        told["changes"] = len(admin.diff().changes)
        told["swapped"] = admin.reload().swapped
        told["off"] = admin.switch("oci-cli-demo", off=True, for_s=60).off.bindings
        told["on"] = admin.switch("oci-cli-demo", off=False).off.bindings
except AskError as error:
    told["error"], told["hint"], told["fault"] = error.message, error.hint, error.fault
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A daemon whose groups are of this machine."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with Stage("groups") as made:
        with made.config.open("a") as config:
            config.write(f"groups: {{admin: {ADMINS}, view: {VIEWERS}}}\n")
        made.start_daemon()
        yield made


def ask(stage: Stage, *groups: str, socket: str = "admin.sock") -> dict[str, object]:
    """What a user of these supplementary groups hears."""
    gids = [grp.getgrnam(name).gr_gid for name in groups]
    argv = [sys.executable, "-P", "-c", _ASK, str(stage.run / socket), json.dumps(gids)]
    told: dict[str, object] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout)
    return told


def test_the_sockets_are_their_groups(stage: Stage) -> None:
    """Mode 0660, root and the group; nobody else can fill their queues."""
    for name, group in (("admin.sock", ADMINS), ("view.sock", VIEWERS)):
        found = (stage.run / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, grp.getgrnam(group).gr_gid)


def test_an_admin_may_look_and_change(stage: Stage) -> None:
    """By a supplementary group; also ask for another user's program."""
    told = ask(stage, ADMINS)
    assert "error" not in told, told
    assert told["identities"] == ["oci-cli"]
    assert told["uid"] == "0"
    assert told["swapped"]
    assert list(told["off"]) == ["oci-cli-demo"]  # type: ignore[call-overload]  # of JSON
    assert told["on"] == {}


def test_a_viewer_may_look_by_the_other_socket_and_change_nothing(stage: Stage) -> None:
    """The client finds view.sock by itself; programs are its own whatever it says; the refusal names who may, and is in the audit."""
    told = ask(stage, VIEWERS)
    assert told["identities"] == ["oci-cli"]
    assert told["uid"] == str(USER)
    assert told["error"] == f"uid {USER} may not call Reload"
    assert ADMINS in str(told["hint"])
    assert "swapped" not in told
    lines = [line for line in stage.audit() if line["event"] == "caller-refused"]
    assert lines[-1]["uid"] == USER


def test_an_admin_is_a_viewer_on_the_view_socket(stage: Stage) -> None:
    """The socket caps the role: a member of both groups changes nothing there."""
    told = ask(stage, ADMINS, VIEWERS, socket="view.sock")
    assert told["error"] == f"uid {USER} may not call Reload"


def test_a_stranger_may_neither(stage: Stage) -> None:
    """The file's mode already says no."""
    told = ask(stage)
    assert told["fault"] == "not-allowed"
    assert "admin.sock may not be opened" in str(told["error"])


def test_groups_that_do_not_exist_leave_the_sockets_to_root_and_status_says_so(stage: Stage) -> None:
    """Once, and not in red."""
    stage.stop_daemon()
    stage.config.write_text(stage.config.read_text().replace(f"{{admin: {ADMINS}, view: {VIEWERS}}}", "{view: credwire-nobody-has-it}"))
    stage.start_daemon()
    assert stat.S_IMODE((stage.run / "view.sock").stat().st_mode) == 0o600
    lines = [line for line in stage.status()["health"] if "credwire-nobody-has-it" in line["says"]]
    assert [line["level"] for line in lines] == ["ok"]
    assert "groupadd" in lines[0]["hint"]
