"""
A stage on which one identity gets other selectors again and again, and any program asks the cloud.

In: selectors.  Out: what a program that was started got: signed, passed on unsigned, or refused.
The machine's users, groups and dpkg database can be replaced for this stage alone, by mounts in its private namespace.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.lib.hand import Hand
from tests.e2e.lib.net import REPOSITORY, HarnessError, launcher
from tests.e2e.lib.scene import IDENTITY, USERS
from tests.e2e.lib.stage import USER_UID, Stage

CURL = "/usr/bin/curl"
URL = f"https://{IDENTITY}{USERS}"
_SCRIPT = Path(__file__).with_name("hand_script.py")

SIGNED, PASSED, REFUSED = "signed", "passed", "refused"
"""What became of a request: the cloud served it, the cloud itself said 401, the connection was ended."""


class Bench:
    """A Stage with a daemon, and the identity ``oci-cli`` in it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.trust = stage.directory / "both.pem"
        self.passwd, self.group = stage.directory / "passwd", stage.directory / "group"

    def select(self, selectors: str) -> str:
        """Give the identity these selectors, indented as they stand in a document; gives what a reload said."""
        self.stage.write_resources(selectors=selectors)
        return self.reload()

    def reload(self) -> str:
        """Put what is on disk in force; gives what was said.  Raises HarnessError."""
        told = self.stage.credwire("reload")
        if told.returncode != 0:
            raise HarnessError(f"reload: {told.stdout}{told.stderr}")
        self.trust.write_bytes((self.stage.state / "ca" / "oci-cli.pem").read_bytes() + self.stage.cloud.ca.read_bytes())
        return told.stdout + told.stderr

    def curl(self, *, program: Sequence[str | Path] = (CURL,), uid: int = USER_UID, gid: int | None = None) -> str:
        """Ask with a curl, or with what runs one; gives SIGNED, PASSED or REFUSED."""
        before = len(self.stage.cloud.records())
        options = self.stage.options("--uid", str(uid), *(() if gid is None else ("--gid", str(gid))))
        asked = ["-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20", "--cacert", str(self.trust), URL]
        argv = [*launcher(*self.stage.kennel.options(), *options), *(str(word) for word in program), *asked]
        done = subprocess.run(argv, cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False)
        new = self.stage.cloud.records()[before:]
        given = [record for record in new if record.kind == "api" and (record.principal or record.verdict == "valid")]
        if done.stdout == "200" and given:
            return SIGNED
        if given:
            raise HarnessError(f"a credential was given, but curl got {done.stdout} {done.stderr}")
        if done.stdout == "401":
            return PASSED
        if done.stdout == "000":
            return REFUSED
        raise HarnessError(f"curl got {done.stdout} {done.stderr}")

    def hand(self, path: Path, **options: Any) -> Hand:
        """Start a copy of the hands' script."""
        return Hand(self.stage, [path], trust=[self.trust], **options)

    def reason(self, since: int) -> str:
        """Reason of the newest refusal in the audit, of the lines from ``since`` on; waits for it."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [line["reason"] for line in self.stage.audit()[since:] if line["event"] == "connection-refused"]
            return bool(found)

        self.stage.wait_until(there, 5, "a refused connection in the audit")
        return found[-1]

    # -- the machine, for this stage alone

    def mount(self, source: Path, target: Path | str) -> None:
        """Let everybody on this stage, the agent among them, see ``source`` at ``target``."""
        self._mounts("/usr/bin/mount", "--bind", str(source), str(target))

    def unmount(self, target: Path | str) -> None:
        """Undo ``mount``."""
        self._mounts("/usr/bin/umount", "--lazy", str(target))

    def _mounts(self, *argv: str) -> None:
        done = subprocess.run([*launcher(*self.stage.options()), *argv], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HarnessError(f"{argv}: {done.stderr}")

    def own_accounts(self) -> None:
        """Give this stage users and groups of its own, a copy of the machine's; ``account`` adds to them."""
        for path, real in ((self.passwd, "/etc/passwd"), (self.group, "/etc/group")):
            shutil.copyfile(real, path)
            path.chmod(0o644)
            self.mount(path, real)

    def account(self, *, users: dict[str, int] | None = None, groups: dict[str, int] | None = None) -> None:
        """Let these names stand for these numbers from now on, and no others of ours."""
        for path, real, entries in ((self.passwd, "/etc/passwd", users or {}), (self.group, "/etc/group", groups or {})):
            tail = "::/:/usr/sbin/nologin" if path == self.passwd else ""
            lines = [f"{name}:x:{number}:{number if tail else ''}{tail}\n" for name, number in entries.items()]
            path.write_text(Path(real).read_text() + "".join(lines))

    def script(self, path: Path, more: str = "") -> str:
        """Write the hands' script with ``more`` at its end; gives its digest."""
        content = _SCRIPT.read_bytes() + more.encode()
        path.write_bytes(content)
        path.chmod(0o755)
        return hashlib.sha256(content).hexdigest()

    def package(self, name: str, files: dict[str, Path]) -> Path:
        """
        Build and install a package with dpkg itself; gives the directory that its files lie in.

        dpkg's database is one of this stage, which everybody on it sees in the place of the machine's.
        """
        root, database = self.stage.directory / name, self.stage.directory / f"{name}-dpkg"
        tree = self.stage.directory / f"{name}-tree"
        inside = tree / str(root).lstrip("/") / "bin"
        inside.mkdir(parents=True)
        for file, content in files.items():
            shutil.copyfile(content, inside / file)
            (inside / file).chmod(0o755)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a program for tests\n"
        )
        sums = [f"{hashlib.md5((inside / file).read_bytes(), usedforsecurity=False).hexdigest()}  {root}/bin/{file}\n" for file in files]
        (tree / "DEBIAN" / "md5sums").write_text("".join(line.replace("  /", "  ") for line in sums))
        (database / "info").mkdir(parents=True)
        (database / "updates").mkdir()
        (database / "status").touch()
        archive = self.stage.directory / f"{name}.deb"
        for argv in (
            ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(archive)],
            ["dpkg", "--admindir", str(database), "--instdir", "/", "--log", "/dev/null", "--install", str(archive)],
        ):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise HarnessError(f"{argv}: {done.stderr}")
        self.mount(database, "/var/lib/dpkg")
        return root / "bin"


@contextmanager
def bench(name: str) -> Iterator[Bench]:
    """A bench whose daemon runs."""
    with Stage(name) as stage:
        made = Bench(stage)
        made.own_accounts()
        stage.start_daemon()
        yield made
