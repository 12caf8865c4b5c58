"""The keys process with an agent, a proxy and an exchange that the test plays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from select import select
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from control.daemon import message as m
from control.secret import Secret
from tests.unit.keys import play


class Stage:
    """Everything around one keys process."""

    def __init__(self, directory: Path, **setup: Any) -> None:
        self.directory = directory
        self.path = directory / "keys.sock"
        self.state = directory / "keys"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.listener = play.own_listener(self.path)
        self.setup = {"stale_s": 3600.0, **setup}
        self.start()

    def start(self) -> None:
        number = self.listener.fileno()
        self.keys = play.Process("keys", "KeysSetup", {"keys_listener": number, "keys_dir": str(self.state), **self.setup}, (number,))

    def peer(self, role: str, greets: str | None = None) -> play.Peer:
        return play.Peer.connected(self.path, own=role, peer="keys", greets=greets)

    def played(self) -> "Stage":
        """Bring in agent, proxy and exchange, and tell the rules and one grant."""
        self.agent, self.exchange, self.proxy = self.peer("agent"), self.peer("exchange"), self.peer("proxy")
        for one in (self.agent, self.exchange, self.proxy):
            one.heard(m.Greeted)
        self.agent.send(m.Beat(), *play.policy(play.source()), play.grant())
        self.agent.heard(m.GrantTaken)
        return self

    def either(self, kind: type[Any]) -> Any:
        """Hear what comes first: ``kind`` from keys to the agent, or any answer to the proxy."""
        while True:
            ready, _, _ = select([self.proxy.sock, self.agent.sock], [], [], play.DEADLINE_S)
            if self.proxy.sock in ready:
                return self.proxy.heard(m.Message)
            if not ready:
                raise TimeoutError("nothing was heard")
            message = self.agent.heard(m.Message)
            if isinstance(message, kind):
                return message

    def exchanged(self, principal: str = "svc-oci-cli") -> tuple[m.ExchangeWanted, rsa.RSAPublicKey]:
        """Play a good exchange: answer the next ExchangeWanted."""
        asked = self.exchange.heard(m.ExchangeWanted)
        public = load_der_public_key(asked.public_key_der)
        assert isinstance(public, rsa.RSAPublicKey)
        self.exchange.send(m.Exchanged(asked.call, Secret("aaa.bbb.ccc"), 4102444800.0, principal))
        return asked, public


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(**setup: Any) -> Stage:
        stages.append(Stage(tmp_path, **setup))
        return stages[-1]

    yield make
    for stage in stages:
        stage.keys.stop()
        stage.listener.close()


@pytest.fixture
def stage(staged: Callable[..., Stage]) -> Stage:
    return staged().played()
