"""
Drive a process on the stage that has an identity (or has none), byte for byte.

In: a Stage, the path of a copy of hand_script there, a uid.  Out: a Hand, whose calls are done by that process.
A call takes 0.1 ms instead of the second that the real CLI needs, so that each refusal can be a test of its own.
"""

import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.lib.net import REPOSITORY, HarnessError, launcher
from tests.e2e.lib.stage import USER_UID, Stage

_ANSWER_WITHIN_S = 60


class HandError(Exception):
    """What the process met instead of an answer; ``kind`` is the exception's class over there."""

    def __init__(self, kind: str, errno: int, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.errno, self.text = kind, errno, text


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Id of a refusal of ours; empty when the far side answered."""
        return self.headers.get("x-credwire-id", "")

    @property
    def reason(self) -> str:
        """Reason of a refusal of ours."""
        return self.headers.get("x-credwire-reason", "")

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Hand:
    """A context manager; ends the process."""

    def __init__(
        self,
        stage: Stage,
        argv: Sequence[str | Path],
        *,
        uid: int = USER_UID,
        trust: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        cgroup: Path | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        """Start ``argv`` as ``uid``; it will trust the CA files of ``trust``.  ``cgroup`` instead of the clients', ``fds`` to inherit."""
        self.stage, self.trust = stage, [str(path) for path in trust]
        options = stage.options("--cgroup", str(cgroup or stage.kennel.cgroup), "--uid", str(uid))
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*launcher(*options), *(str(word) for word in argv)],
            cwd=REPOSITORY,
            env=dict(env or {"PATH": "/usr/bin:/bin"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=tuple(fds),
        )
        try:
            self.pid = int(self._line()["ok"])
        except BaseException:
            self.stop()
            raise

    def _line(self, within_s: float = _ANSWER_WITHIN_S) -> dict[str, Any]:
        stdout = self.process.stdout
        assert stdout is not None
        line = stdout.readline() if select.select([stdout], [], [], within_s)[0] else b""
        if not line:
            raise HarnessError(f"the hand gave no answer (exit {self.process.poll()})")
        told: dict[str, Any] = json.loads(line)
        return told

    def do(self, what: str, **arguments: Any) -> Any:
        """Let the process do ``what``.  Raises HandError with what it met."""
        self.tell(what, **arguments)
        return self.told()

    def tell(self, what: str, **arguments: Any) -> None:
        """Ask without waiting; ``told`` gives the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def told(self) -> Any:
        """Wait for the next answer.  Raises HandError."""
        line = self._line()
        if "error" in line:
            raise HandError(line["error"], line["errno"], line["text"])
        return line["ok"]

    # -- connections

    def connect(self, address: str = "", port: int = 443) -> int:
        """Open a TCP connection, to the cloud unless told otherwise."""
        return int(self.do("connect", address=address or self.stage.subnet.there4, port=port))

    def open(self, name: str, *, address: str = "", port: int = 443) -> int:
        """Open a TLS connection to ``name``."""
        return int(self.do("open", name=name, address=address or self.stage.subnet.there4, port=port, trust=self.trust))

    def tls(self, number: int, name: str) -> dict[str, Any]:
        """Shake hands on an open connection; gives issuer, names, version."""
        told: dict[str, Any] = self.do("tls", number=number, name=name, trust=self.trust)
        return told

    def send(self, number: int, data: bytes) -> None:
        """Send exactly these bytes."""
        self.do("send", number=number, data=data.decode("latin-1"))

    def answer(self, number: int, method: str = "GET") -> Answer:
        """Read one HTTP answer."""
        told = self.do("answer", number=number, method=method)
        return Answer(told["status"], told["headers"], told["body"].encode("latin-1"))

    def asks(self, number: int, data: bytes, method: str = "GET") -> Answer:
        """Send these bytes and read one answer."""
        self.send(number, data)
        return self.answer(number, method)

    def close(self, *numbers: int) -> None:
        """Close connections."""
        for number in numbers:
            self.do("close", number=number)

    def request(
        self, name: str, method: str, target: str, *, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", address: str = ""
    ) -> Answer:
        """One request on a connection of its own."""
        number = self.open(name, address=address)
        try:
            return self.asks(number, head(name, method, target, headers, body), method)
        finally:
            self.close(number)

    def python(self, code: str, **given: Any) -> Any:
        """Run ``code`` over there; what it leaves in ``result`` is the answer."""
        return self.do("python", code=code, **given)

    # -- the end

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def head(name: str, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """A whole request; ``headers`` may repeat anything, a Host among them replaces ours."""
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(field.lower() == "host" for field, _ in headers):
        lines.append(f"host: {name}")
    if body and not any(field.lower() in ("content-length", "transfer-encoding") for field, _ in headers):
        lines.append(f"content-length: {len(body)}")
    lines += [f"{field}: {value}" for field, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
