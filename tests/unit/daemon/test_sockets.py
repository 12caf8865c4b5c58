"""
The listeners at which our processes find each other.

In: a real socket in a directory of the test.  Out: what callers get.
"""

import asyncio
import os
import stat
import struct
from pathlib import Path

import pytest

from control.daemon.channel_io import connect
from control.daemon.socket_io import listen, listen_stream

CALLER = 64001


def test_only_the_named_uids_and_the_owner_may_connect(tmp_path: Path) -> None:
    """A stranger must not stand in the queue of agent or keys: its access list names who may, and everybody else has nothing."""
    sock, closed = listen(tmp_path / "agent.sock", callers=(CALLER,))
    with sock:
        if not closed:
            pytest.skip("this file system has no access lists")
        assert not stat.S_IMODE((tmp_path / "agent.sock").stat().st_mode) & 0o007
        raw = os.getxattr(tmp_path / "agent.sock", "system.posix_acl_access")
        rows = {(tag, uid): rights for tag, rights, uid in struct.iter_unpack("<HHI", raw[4:])}
        assert rows[0x02, CALLER] == 6
        assert rows[0x20, 0xFFFFFFFF] == 0
        assert rows[0x04, 0xFFFFFFFF] == 0
        assert len([tag for tag, _ in rows if tag == 0x02]) == 1


def test_a_full_queue_is_an_error_and_not_a_connection(tmp_path: Path) -> None:
    """Whoever floods the queue makes us try again; a loop's sock_connect() would hand out a socket that leads nowhere."""

    async def story() -> None:
        listener, _ = listen(tmp_path / "keys.sock", callers=())
        opened = []
        with listener:
            with pytest.raises(BlockingIOError):
                for _ in range(1000):
                    opened.append(await connect(tmp_path / "keys.sock"))
            assert opened  # the same call connects while there is room
            for sock in opened:
                sock.close()

    asyncio.run(story())


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a socket to a group needs root")
@pytest.mark.parametrize(("gid", "mode"), [(64003, 0o660), (-1, 0o600)])
def test_a_socket_for_people_is_its_groups_or_roots_alone(tmp_path: Path, gid: int, mode: int) -> None:
    """Where the group does not exist nobody else can as much as connect."""
    with listen_stream(tmp_path / "admin.sock", gid):
        found = (tmp_path / "admin.sock").stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert (found.st_uid, found.st_gid) == (0, max(gid, 0))
