"""Twenty thousand requests through one worker leave nothing behind: no object of ours, no memory; the long run is `make soak`'s."""

import gc
import threading
from collections import Counter

import msgspec
import psutil
import pytest

from control.daemon import message as m
from control.reason import Reason
from tests.unit.wire.world import Peer, World, answer, get, post

REQUESTS = 20_000
_BATCH = 50
_PER_CONNECTION = 500
_MODULES = ("control.", "bpf.")


def _ours() -> Counter[str]:
    """Count what is alive of our classes."""
    gc.collect()
    kinds: Counter[str] = Counter()
    for found in gc.get_objects():
        name = f"{type(found).__module__}.{type(found).__qualname__}"
        if name.startswith(_MODULES):
            kinds[name] += 1
    return kinds


def _resident_kb() -> int:
    return int(psutil.Process().memory_info().rss) >> 10


def _serve(peer: Peer) -> None:
    while True:
        request = peer.message()
        peer.send(answer(request.body))


def _batch(here: World, client: Peer) -> None:
    """Most are signed, some have a body, one is refused, one is passed: each way through ends."""
    kinds = [get("/things", port=here.port)] * (_BATCH - 3)
    kinds += [post(b"x" * 2000, port=here.port), get("/passed", port=here.port), get("/elsewhere", port=here.port)]
    client.send(b"".join(kinds))
    statuses: Counter[int] = Counter()
    for _ in kinds:
        statuses[client.message().status] += 1
    assert statuses == {200: _BATCH - 1, 403: 1}


def _run(here: World, requests: int) -> None:
    for _ in range(requests // _PER_CONNECTION):
        client = here.tls()
        for _ in range(_PER_CONNECTION // _BATCH):
            _batch(here, client)
        client.sock.close()
    here.until(lambda: len(here.closed) == len(here.grants))
    here.do(lambda: None)
    for kept in (here.notes, here.wanted, here.closed, here.grants, here.leaves):
        kept.clear()  # the test's own memory
    here._clients.clear()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_twenty_thousand_requests_leave_nothing_behind(here: World) -> None:
    """After a first tenth, neither the number of our objects nor the process grows with the number of requests."""

    def sign(wanted: m.SignatureWanted) -> m.Message:
        return m.RequestSigned(wanted.call, (), (), passed=True) if wanted.asked.path == "/passed" else here.signed(wanted)

    here.sign = sign
    here.destination = msgspec.structs.replace(here.destination, paths=("/things*", "/passed"))
    far = here.far(_serve)
    _run(here, REQUESTS // 10)
    objects, resident, threads = _ours(), _resident_kb(), threading.active_count()
    _run(here, REQUESTS)
    grown = {name: count - objects[name] for name, count in _ours().items() if count - objects[name] > 5}
    assert grown == {}
    assert _resident_kb() - resident < 8 << 10, "more than 400 bytes for each request"
    assert threading.active_count() <= threads + 2
    assert here.proxy._open == 0
    assert not here.proxy._grants
    assert not here.proxy._keys_calls._waiting
    assert far.connections < 10
    assert here.proxy.may_inject() is Reason.GRANTED
