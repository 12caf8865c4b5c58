"""
The channels between our processes, over real SEQPACKET sockets.

In: a socket pair with a Channel on each side, or on one side and a stranger on the other.  Out: what arrives, and what closes a channel.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from control.daemon import channel_io
from control.daemon import message as m
from control.daemon.channel_io import Channel
from control.reason import Reason


class End:
    """One channel with everything it heard."""

    def __init__(self, sock: socket.socket, *, own: str, peer: str) -> None:
        self.heard: list[Any] = []
        self.fds: list[int] = []
        self.ended: list[str] = []
        self.changed = asyncio.Event()
        self.channel = Channel(asyncio.get_running_loop(), sock, peer=peer, own=own, on_message=self._message, on_closed=self._closed)

    def _message(self, _: Channel, message: Any, fds: list[int]) -> None:
        self.heard.append(message)
        self.fds += fds
        self.changed.set()

    def _closed(self, _: Channel, why: str) -> None:
        self.ended.append(why)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds``, looking after each change."""
        while not holds():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 5)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_a_message_arrives_with_its_descriptor() -> None:
    """The proxy's accepted descriptor reaches the agent and is the same open file."""

    async def story() -> None:
        left, right = pair()
        proxy, agent = End(left, own="proxy", peer="agent"), End(right, own="agent", peer="proxy")
        read_end, write_end = os.pipe()
        proxy.channel.send(m.ConnectionAccepted(7), [write_end])
        await agent.until(lambda: bool(agent.heard))
        assert agent.heard == [m.ConnectionAccepted(7)]
        os.write(agent.fds[0], b"x")
        assert os.read(read_end, 1) == b"x"
        for fd in (read_end, write_end, *agent.fds):
            os.close(fd)
        proxy.channel.close()
        agent.channel.close()

    play(story)


def test_an_answer_finds_its_question() -> None:
    """ask() gets the message with its own call number, whatever else arrives in between."""

    async def story() -> None:
        left, right = pair()
        agent, keys = End(left, own="agent", peer="keys"), End(right, own="keys", peer="agent")
        asked = asyncio.ensure_future(agent.channel.ask(m.IssuerWanted, 5))
        await keys.until(lambda: bool(keys.heard))
        keys.channel.send(m.Beat())
        keys.channel.send(m.IssuerShown(keys.heard[0].call, b"{}"))
        assert (await asked).jwks == b"{}"
        assert agent.heard == [m.Beat()]
        agent.channel.close()
        keys.channel.close()

    play(story)


@pytest.mark.parametrize(
    "datagram",
    [b"\xff\xff", b"hello", m.encode(m.GrantIssued("g", "i", ("b",), m.ProcessKey(1, 2, 3), 1)), b"x" * (m.MAX_MESSAGE + 1)],
    ids=["garbage", "text", "not-this-speakers", "too-large"],
)
def test_what_a_speaker_may_not_say_closes_the_channel(datagram: bytes) -> None:
    """A proxy that speaks as the agent, or nonsense, is cut off; nothing of it is heard."""

    async def story() -> None:
        left, right = pair()
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        keys = End(right, own="keys", peer="proxy")
        try:
            left.send(datagram)
        except OSError:
            pytest.skip("the kernel does not carry a datagram of that size at this user's buffer limit")
        await keys.until(lambda: bool(keys.ended))
        assert keys.heard == []
        assert len(keys.ended) == 1
        left.close()

    play(story)


def test_a_waiting_question_ends_with_its_channel() -> None:
    """A question to a process that dies fails at once instead of at its timeout."""

    async def story() -> None:
        left, right = pair()
        agent = End(left, own="agent", peer="keys")
        asked = asyncio.ensure_future(agent.channel.ask(m.IssuerWanted, 60))
        await asyncio.sleep(0)
        right.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(asked, 5)

    play(story)


def test_a_full_socket_loses_and_reorders_nothing() -> None:
    """What does not fit waits its turn, descriptors included."""

    async def story() -> None:
        left, right = pair()
        proxy = End(left, own="proxy", peer="agent")
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        null = os.open("/dev/null", os.O_RDONLY)
        for n in range(400):
            proxy.channel.send(m.ConnectionAccepted(n), [null] if n % 100 == 99 else [])
        os.close(null)
        agent = End(right, own="agent", peer="proxy")
        await agent.until(lambda: len(agent.heard) == 400)
        assert [message.call for message in agent.heard] == list(range(400))
        assert len(agent.fds) == 4
        for fd in agent.fds:
            os.close(fd)
        proxy.channel.close()
        agent.channel.close()

    play(story)


def test_a_closed_channel_swallows_what_is_sent() -> None:
    """Sending after the end neither raises nor reaches anybody; on_closed has told once."""

    async def story() -> None:
        left, right = pair()
        agent = End(left, own="agent", peer="keys")
        right.close()
        await agent.until(lambda: bool(agent.ended))
        agent.channel.send(m.GrantWithdrawn("g", Reason.REVOKED))
        agent.channel.close()
        assert len(agent.ended) == 1
        with contextlib.suppress(ConnectionResetError):
            await agent.channel.ask(m.IssuerWanted, 1)
            pytest.fail("a question to a closed channel was answered")

    play(story)


def test_a_second_greeting_closes_the_channel() -> None:
    """A worker that renames itself could leave grants behind under its former number."""

    async def story() -> None:
        left, right = pair()
        proxy, agent = End(left, own="proxy", peer="agent"), End(right, own="agent", peer="proxy")
        proxy.channel.send(m.Greeted("proxy", 1))
        proxy.channel.send(m.Greeted("proxy", 2))
        await agent.until(lambda: bool(agent.ended))
        assert agent.ended == ["proxy greeted twice"]
        assert agent.channel.worker == 1
        proxy.channel.close()

    play(story)


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a peer is bounded: it is cut off, and the memory is free again."""
    monkeypatch.setattr(channel_io, "QUEUE_MOST", 1 << 20)

    async def story() -> None:
        left, right = pair()
        keys = End(left, own="keys", peer="proxy")
        for call in range(2000):
            keys.channel.send(m.LeafMinted(call, b"x" * 8192, 0.0))
        assert keys.channel.closed
        assert "does not read" in keys.ended[0]
        right.close()

    play(story)
