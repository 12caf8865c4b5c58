"""
A network and a mount view that vanish with their processes.

In: programs to run.  Out: the program in its own network namespace behind a veth pair, or in a cgroup that a watchdog ends when we die.
No namespace has a name, nothing is written to /etc: the kernel takes everything back when the last process ends.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pyroute2 import IPRoute

from tests.e2e.lib.inside import end_cgroup, populated

REPOSITORY = Path(__file__).resolve().parents[3]
_IFA_F_NODAD = 0x02
_LINK_INSIDE = "eth0"


class HarnessError(Exception):
    """The machine would not give what the test needs; says what."""


def launcher(*options: str) -> list[str]:
    """The command line of ``inside`` with ``options``; append the program."""
    return [sys.executable, "-m", "tests.e2e.lib.inside", *options, "--"]


def cgroup2_root() -> Path:
    """Where the unified hierarchy is mounted: /sys/fs/cgroup, or below it on hybrid machines.  Raises HarnessError."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise HarnessError("no cgroup v2 hierarchy is mounted")


@dataclass(frozen=True, slots=True)
class Subnet:
    """10.77.N.0/24 and fd77:c1d:N::/64: .1 is this side, .2 the far one."""

    number: int

    @property
    def here4(self) -> str:
        return f"10.77.{self.number}.1"

    @property
    def there4(self) -> str:
        return f"10.77.{self.number}.2"

    @property
    def here6(self) -> str:
        return f"fd77:c1d:{self.number:x}::1"

    @property
    def there6(self) -> str:
        return f"fd77:c1d:{self.number:x}::2"


def free_subnet() -> Subnet:
    """The first subnet of ours that no interface here uses.  Raises HarnessError."""
    with IPRoute() as route:
        held = {message.get_attr("IFA_ADDRESS") for message in route.get_addr()}
    for number in range(256):
        if Subnet(number).here4 not in held:
            return Subnet(number)
    raise HarnessError("all 256 test networks 10.77.0.0/16 are in use")


def write_hosts(path: Path, names: Sequence[str], addresses: Sequence[str]) -> Path:
    """Write a hosts file that knows this machine and sends ``names`` to ``addresses``."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    lines += [f"{address} {' '.join(names)}" for address in addresses]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o644)
    return path


class FarSide:
    """A program in a network namespace of its own, reached over a veth pair; both end with it."""

    def __init__(
        self, argv: Sequence[str], subnet: Subnet, *, environment: Mapping[str, str], stderr: IO[bytes] | int | None = None
    ) -> None:
        """
        Start it; returns when the link is up.

        It dies with the *thread* that calls this (PR_SET_PDEATHSIG).  Raises HarnessError.
        """
        self.subnet = subnet
        self.link = f"cw{os.getpid() % 10**7}n{subnet.number}"
        ready_read, ready_write = os.pipe()
        go_read, go_write = os.pipe()
        options = ["--parent", str(os.getpid()), "--link", _LINK_INSIDE, "--ready-fd", str(ready_write), "--go-fd", str(go_read)]
        options += ["--address", f"{subnet.there4}/24", "--address", f"{subnet.there6}/64"]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*launcher(*options), *argv],
            cwd=REPOSITORY,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=(ready_write, go_read),
        )
        os.close(ready_write)
        os.close(go_read)
        try:
            self._connect(os.read(ready_read, 1))
            os.write(go_write, b"g")
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(ready_read)
            os.close(go_write)

    def _connect(self, told: bytes) -> None:
        if told != b"n":
            raise HarnessError("the far side did not get a network namespace; see its stderr")
        with IPRoute() as route:
            route.link("add", ifname=self.link, kind="veth", peer={"ifname": _LINK_INSIDE, "net_ns_pid": self.process.pid})
            (index,) = route.link_lookup(ifname=self.link)
            route.addr("add", index=index, address=self.subnet.here4, prefixlen=24)
            route.addr("add", index=index, address=self.subnet.here6, prefixlen=64, flags=_IFA_F_NODAD)
            route.link("set", index=index, state="up")

    def stop(self) -> None:
        """End the program; the link goes too, before this returns."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        with IPRoute() as route:
            for index in route.link_lookup(ifname=self.link):
                route.link("del", index=index)  # the kernel would do it too, a little later


class Kennel:
    """A cgroup that ends, with all processes in it, when this process ends in any way, kill -9 included."""

    def __init__(self, name: str, *, remove: Sequence[Path] = ()) -> None:
        """``name`` of the cgroup below the root; ``remove``: directories to delete at the end."""
        self.cgroup = cgroup2_root() / name
        self._remove = tuple(remove)
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.cgroup.mkdir()
        options = ["--watch", str(self.cgroup)]
        for directory in self._remove:
            options += ["--remove", str(directory)]
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.lib.inside", *options],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # ^C in the terminal is not for it
        )
        assert self._watchdog.stdout is not None
        if self._watchdog.stdout.readline() != b"watching\n":
            end_cgroup(self.cgroup)
            raise HarnessError("the watchdog did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        watchdog = self._watchdog
        assert watchdog is not None
        assert watchdog.stdin is not None
        assert watchdog.stdout is not None
        watchdog.stdin.close()
        status = watchdog.wait()
        watchdog.stdout.close()
        if status != 0:
            raise HarnessError(f"processes in {self.cgroup} did not die")

    def options(self) -> list[str]:
        """The launcher options that put a program in here."""
        return ["--cgroup", str(self.cgroup)]

    def start(self, argv: Sequence[str], *options: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start ``argv`` in here; ``options`` are further ones of ``inside``, ``popen`` those of subprocess."""
        popen.setdefault("cwd", REPOSITORY)
        process = subprocess.Popen([*launcher(*self.options(), *options), *argv], **popen)
        try:
            (self.cgroup / "cgroup.procs").write_text(str(process.pid))  # it joins by itself, but perhaps after we ask who is in here
        except ProcessLookupError:
            pass  # it ended already
        return process

    def populated(self) -> bool:
        """Tell whether anybody lives in here."""
        return populated(self.cgroup)
