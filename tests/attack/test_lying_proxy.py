"""
A compromised worker: the proxy's uid, the daemon's cgroup, and any word it likes.  It gets nothing that no kernel record stands behind.

The control for each refusal is the genuine case: a redirected connection's descriptor, its grant, its host.  Needs root.
"""

import base64
import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.daemon.config import Uids
from control.reason import Reason
from tests.e2e.lib.hand import Hand, HandError
from tests.e2e.lib.net import REPOSITORY
from tests.e2e.lib.scene import IDENTITY, STORAGE, USERS, Scene
from tests.e2e.lib.stage import STRANGER_UID

UIDS = Uids()
_PIDFD_GETFD = 438
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
OTHER_HOST = "identity.test-1.cloud.test"


def _listener(scene: Scene) -> int:
    """A copy of the IPv4 listener, as a worker has it: root takes it from credwired."""
    setup = json.loads(Path(f"/proc/{scene.stage.pid('proxy-0')}/cmdline").read_bytes().split(b"\0")[-2])
    pidfd = os.pidfd_open(scene.stage.pid("credwired"))
    try:
        fd: int = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, setup["listeners"][0], 0)
    finally:
        os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    os.set_inheritable(fd, True)
    return fd


def _start(scene: Scene, listener: int, uid: int = UIDS.proxy) -> Hand:
    argv = [sys.executable, "-P", "-m", "tests.e2e.lib.liar", scene.stage.run, str(uid)]
    return Hand(scene.stage, argv, uid=0, env=_ENVIRONMENT, cgroup=scene.stage.kennel.cgroup / "daemon", fds=[listener])


@contextmanager
def _workers_held(scene: Scene) -> Iterator[None]:
    """Hold the genuine workers still, so that what arrives is the liar's to accept."""
    workers = [pid for name, pid in scene.workers().items() if name.startswith("proxy")]
    with scene.stage.without_supervision():
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def listener(scene: Scene) -> Iterator[int]:
    """The listener that workers accept from."""
    fd = _listener(scene)
    yield fd
    os.close(fd)


@pytest.fixture
def liar(scene: Scene, listener: int) -> Iterator[Hand]:
    """A lying worker; afterwards the daemon has the same processes, and does its work."""
    before = scene.workers()
    with _start(scene, listener) as made:
        yield made
    assert scene.workers() == before
    with scene.hand() as hand:
        scene.stage.wait_until(lambda: hand.request(IDENTITY, "GET", USERS).status == 200, 5, "the main job")


def _asks(liar: Hand, channel: int, kind: str, attach: int | None = None, **fields: Any) -> dict[str, Any]:
    told: dict[str, Any] = liar.do("ask", channel=channel, kind=kind, fields=fields, attach=attach)
    return told


def _wanted(grant: str, *, binding: str = "main", host: str = IDENTITY, path: str = USERS, method: str = "GET") -> dict[str, Any]:
    asked = {"host": host, "port": 443, "method": method, "path": path}
    return {"grant": grant, "binding": binding, "asked": asked, "target": path, "headers": [("host", host)]}


def _leaf(grant: str, *, binding: str = "main", name: str = IDENTITY) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {"grant": grant, "binding": binding, "name": name, "public_key_der": base64.b64encode(der).decode()}


# -- without a record


def test_without_a_descriptor_there_is_no_answer(liar: Hand) -> None:
    """The question alone says nothing: no grant, no word."""
    agent = liar.do("channel", peer="agent", role="proxy")
    assert _asks(liar, agent, "ConnectionAccepted")["type"] == "silent"


def test_a_socket_of_ones_own_has_no_record(scene: Scene, liar: Hand, listener: int) -> None:
    """Either end of a connection that the liar made to the listener, or to the cloud: NO_RECORD, and the audit has it."""
    agent = liar.do("channel", peer="agent", role="proxy")
    with _workers_held(scene):
        near, far = liar.do("accept_own", listener=listener, port=scene.stage.listen_port)
    elsewhere = liar.connect()
    with scene.watch() as seen:
        for number in (near, far, elsewhere):
            told = _asks(liar, agent, "ConnectionAccepted", attach=number)
            assert (told["type"], told["reason"]) == ("Refused", Reason.NO_RECORD)
            seen.audit(id=told["id"], reason=Reason.NO_RECORD)


def test_what_is_no_connection_has_no_record(scene: Scene, liar: Hand) -> None:
    """/dev/null, a pipe, a Unix socket, hundreds of them: nothing is given, and the agent keeps none of the descriptors."""
    agent = liar.do("channel", peer="agent", role="proxy")
    fds = Path(f"/proc/{scene.stage.pid('agent')}/fd")
    bare = [
        liar.python("result = os.open('/dev/null', os.O_RDONLY)"),
        liar.python("result = os.pipe()[0]"),
        liar.python("result = socket.socketpair()[0].detach()"),
    ]
    before = len(list(fds.iterdir()))
    for _ in range(10):
        for fd in bare:
            told = liar.do("ask", channel=agent, kind="ConnectionAccepted", fields={}, attach=-fd)
            assert told["type"] in ("Refused", "closed"), told
            if told["type"] == "closed":
                agent = liar.do("channel", peer="agent", role="proxy")
    scene.stage.wait_until(lambda: len(list(fds.iterdir())) <= before + 1, 5, "the agent to let go of them")


def test_an_invented_grant_opens_nothing(scene: Scene, liar: Hand) -> None:
    """keys knows the agent's grants only: no leaf, no signature, whatever the id looks like."""
    keys = liar.do("channel", peer="keys", role="proxy")
    for grant in ("0" * 32, "f" * 32, "", "main", "x" * 4096):
        with scene.watch() as seen:
            for kind, fields in (("LeafWanted", _leaf(grant)), ("SignatureWanted", _wanted(grant))):
                told = _asks(liar, keys, kind, **fields)
                assert (told["type"], told["reason"]) == ("Refused", Reason.GRANT_UNKNOWN)
                seen.audit(id=told["id"], reason=Reason.GRANT_UNKNOWN)


# -- with another's name


@pytest.mark.parametrize("peer", ["agent", "keys"])
def test_another_role_needs_another_uid(liar: Hand, peer: str) -> None:
    """The proxy's uid greets as agent, keys or exchange: the socket closes; as proxy it stays."""
    for role in ("agent", "keys", "exchange", "public", "nobody"):
        assert liar.do("state", channel=liar.do("channel", peer=peer, role=role)) == "closed"
    assert liar.do("state", channel=liar.do("channel", peer=peer, role="proxy")) == "silent"


@pytest.mark.parametrize("uid", [STRANGER_UID, UIDS.keys, UIDS.exchange])
@pytest.mark.parametrize("peer", ["agent", "keys"])
def test_another_uid_is_not_heard(scene: Scene, listener: int, peer: str, uid: int) -> None:
    """A stranger, keys and exchange cannot speak as a proxy."""
    with _start(scene, listener, uid) as stranger:
        try:
            assert stranger.do("state", channel=stranger.do("channel", peer=peer, role="proxy")) == "closed"
        except HandError as met:
            assert met.kind in ("BrokenPipeError", "ConnectionResetError", "PermissionError")


@pytest.mark.parametrize("peer", ["agent", "keys"])
@pytest.mark.parametrize(
    "data",
    ["garbage", "\xc1" * 100, "\x81\xa4type\xadPolicyBegan\x01", "\xdf\xff\xff\xff\xff", "\x91" * 5000],
    ids=["text", "bytes", "role", "size", "depth"],
)
def test_garbage_closes_the_channel_and_nothing_else(liar: Hand, peer: str, data: str) -> None:
    """Not msgpack, deep nesting, a message that a proxy may not say: closed, and (see the fixture) everybody lives."""
    channel = liar.do("channel", peer=peer, role="proxy")
    assert liar.do("shout", channel=channel, data=data) == "closed"


def test_policy_is_not_a_proxys_to_tell(liar: Hand) -> None:
    """Messages that only the agent may send: the channel closes."""
    keys = liar.do("channel", peer="keys", role="proxy")
    assert _asks(liar, keys, "BundleWanted", identity="main")["type"] == "closed"
    keys = liar.do("channel", peer="keys", role="proxy")
    assert _asks(liar, keys, "IssuerWanted")["type"] == "closed"


# -- with a genuine connection


class Taken:
    """A genuine redirected connection that the liar accepted, and its grant."""

    def __init__(self, scene: Scene, liar: Hand, listener: int, hand: Hand) -> None:
        with _workers_held(scene):
            self.client = hand.connect()
            self.number = liar.do("accept", listener=listener)
        self.agent = liar.do("channel", peer="agent", role="proxy")
        self.keys = liar.do("channel", peer="keys", role="proxy")
        self.granted = _asks(liar, self.agent, "ConnectionAccepted", attach=self.number)
        assert self.granted["type"] == "ConnectionGranted", self.granted
        self.grant = self.granted["grant"]


def test_a_genuine_grant_is_worth_its_binding_and_no_more(scene: Scene, liar: Hand, listener: int) -> None:
    """The worker was compromised while it served ``main``: it gets what main may have, and nothing of another binding, host, path, name."""
    with scene.hand("main") as hand:
        taken = Taken(scene, liar, listener, hand)
        assert taken.granted["identity"] == "main"
        assert _asks(liar, taken.keys, "SignatureWanted", **_wanted(taken.grant))["type"] == "RequestSigned"
        assert _asks(liar, taken.keys, "LeafWanted", **_leaf(taken.grant))["type"] == "LeafMinted"
        for changed, reason in (
            ({"binding": "other"}, Reason.GRANT_UNKNOWN),
            ({"host": OTHER_HOST}, Reason.DESTINATION_UNKNOWN),
            ({"binding": "other", "host": OTHER_HOST}, Reason.GRANT_UNKNOWN),
            ({"path": "/20160918/policies"}, Reason.PATH_NOT_ALLOWED),
            ({"path": "/20160918/users/../policies"}, Reason.PATH_AMBIGUOUS),
            ({"method": "DELETE"}, Reason.METHOD_NOT_ALLOWED),
            ({"method": "TRACE"}, Reason.METHOD_FORBIDDEN),
        ):
            told = _asks(liar, taken.keys, "SignatureWanted", **_wanted(taken.grant, **changed))  # type: ignore[arg-type]
            assert (told["type"], told["reason"]) == ("Refused", reason), (changed, told)
        for name, binding in (
            (OTHER_HOST, "main"),
            ("www.example.com", "main"),
            (f"x.{IDENTITY}", "main"),
            (OTHER_HOST, "other"),
            ("*", "main"),
        ):
            told = _asks(liar, taken.keys, "LeafWanted", **_leaf(taken.grant, name=name, binding=binding))
            assert told["type"] == "Refused", (name, told)


def test_what_is_decided_and_what_is_signed_cannot_differ(scene: Scene, liar: Hand, listener: int) -> None:
    """An allowed question around another target, another Host, two Hosts or a smuggled line: refused."""
    with scene.hand("main") as hand:
        taken = Taken(scene, liar, listener, hand)
        good = _wanted(taken.grant)
        for changed in (
            {"target": "/20160918/policies"},
            {"headers": [("host", STORAGE)]},
            {"headers": [("host", IDENTITY), ("host", STORAGE)]},
            {"headers": []},
            {"headers": [("host", IDENTITY), ("x-a", "b\r\nhost: evil")]},
            {"headers": [("host", IDENTITY), ("x-a\nb", "c")]},
            {"target": f"{USERS}?a b"},
            {"target": f"{USERS}\r\nhost: evil"},
        ):
            told = _asks(liar, taken.keys, "SignatureWanted", **{**good, **changed})
            assert told["type"] == "Refused", (changed, told)
        assert _asks(liar, taken.keys, "SignatureWanted", **good)["type"] == "RequestSigned"


@pytest.mark.parametrize("how", ["exit", "exec", "close"])
def test_a_genuine_grant_ends_with_its_process(scene: Scene, liar: Hand, listener: int, how: str) -> None:
    """The client exits, execs, or the worker gives the connection back: the same grant is worth nothing at once."""
    with scene.hand("main") as hand:
        taken = Taken(scene, liar, listener, hand)
        assert _asks(liar, taken.keys, "SignatureWanted", **_wanted(taken.grant))["type"] == "RequestSigned"
        if how == "exit":
            hand.stop()
        elif how == "exec":
            hand.tell("python", code="os.execv('/bin/sleep', ['sleep', '60'])")
        else:
            liar.stop()
    with _start(scene, listener) as again:
        keys = again.do("channel", peer="keys", role="proxy")
        reasons = []

        def refused() -> bool:
            told = _asks(again, keys, "SignatureWanted", **_wanted(taken.grant))
            reasons.append(told.get("reason"))
            return told["type"] == "Refused"

        scene.stage.wait_until(refused, 1.0, "the grant to end")
        assert reasons[-1] in (Reason.PROCESS_CHANGED, Reason.GRANT_UNKNOWN, Reason.REVOKED)


def test_a_worker_cannot_close_or_blame_anothers_grant(scene: Scene, liar: Hand) -> None:
    """It knows no id of others; one it guesses from the audit (cut to 8 letters there) names nothing."""
    with scene.watch() as seen, scene.hand("main") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
        shown = seen.audit(event="request-signed")["grant"]
        assert len(shown) == 8
        keys = liar.do("channel", peer="keys", role="proxy")
        told = _asks(liar, keys, "SignatureWanted", **_wanted(shown))
        assert told["reason"] == Reason.GRANT_UNKNOWN
