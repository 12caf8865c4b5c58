"""A credential in the request target, and requests that go out without any: what the far side gets, and what nobody else may see."""

import base64
import hashlib
import io
import json
import logging
from collections.abc import Callable

import pytest

from control.binding.model import Asked
from control.daemon import message as m
from control.reason import Reason
from control.wire.ask import Signed
from control.wire.head import read_request
from control.wire.limits import DEFAULT
from control.wire.rewrite import BadSignature, sent_target
from control.wire.turn import Turn
from tests.unit.wire.world import BINDING, HOST, Message, Peer, World, answer, get, post

SECRET = "s3cr3t-that-stays-on-the-wire"  # made up


def _in_target(here: World, target: str) -> None:
    here.sign = lambda wanted: m.RequestSigned(wanted.call, (), (), target=target)


def test_the_target_of_keys_goes_out_and_is_seen_nowhere_else(here: World, capfd: pytest.CaptureFixture[str]) -> None:
    """The far side gets the secret in its query; notes, answers, the log and what is printed do not."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger().addHandler(handler)
    try:
        here.sign = lambda wanted: m.RequestSigned(wanted.call, (), (), target=f"{wanted.target}&key={SECRET}")
        far = here.echo()
        client = here.tls()
        got = client.send(get("/things?limit=1", port=here.port)).message()
        assert got.one("x-first") == f"GET /things?limit=1&key={SECRET} HTTP/1.1"
        far.close()  # the next one fails at the destination, with the secret in its head
        failed = client.send(post(b"x", path="/things?limit=1", port=here.port)).message()
        assert failed.status == 502
        assert SECRET not in str(failed)
        here.do(lambda: here.loop.call_exception_handler({"message": "x", "exception": RuntimeError("x"), "clients": here.proxy._clients}))
    finally:
        logging.getLogger().removeHandler(handler)
    note = here.noted("request-answered")
    assert (note.path, note.binding) == ("/things", BINDING)
    printed = capfd.readouterr()
    for told in (repr(here.notes), heard.getvalue(), printed.out, printed.err):
        assert SECRET not in told


@pytest.mark.parametrize(
    "target",
    [
        f"/other?key={SECRET}", f"/things/?key={SECRET}", f"things?key={SECRET}", f"https://evil.example/things?key={SECRET}",
        f"/things#{SECRET}", f"/things?key={SECRET} HTTP/1.1\r\nx: y", f"/things?key={SECRET}\u00e9",
        f"/things?key=\t{SECRET}", f"//things?key={SECRET}",
    ],
)  # fmt: skip
def test_a_target_that_is_not_the_path_decided_on_is_refused(here: World, target: str) -> None:
    """Fail closed: 503, nothing leaves, and the refusal does not say what the target was."""
    _in_target(here, target)
    far = here.echo()
    client = here.tls()
    got = client.send(get("/things", port=here.port)).message()
    assert (got.status, got.one("x-credwire-reason")) == (503, Reason.KEYS_UNAVAILABLE)
    assert SECRET not in str(got)
    assert SECRET not in repr(here.notes)
    assert far.connections == 0


def test_nothing_that_is_printed_by_itself_shows_the_credential() -> None:
    """What a traceback, a log or an assertion shows of the objects that hold it."""
    head = read_request(b"GET /a?b=c HTTP/1.1\r\nhost: h\r\n\r\n", max_fields=10, max_target=100)
    signed = Signed((), (("x-api-key", SECRET),), target=f"/a?b=c&key={SECRET}")
    assert sent_target(head, signed) == f"/a?b=c&key={SECRET}"
    turn = Turn("cw-x", head, Asked("h", 443, "GET", "/a"), DEFAULT)
    turn.signed_head = SECRET.encode()
    for shown in (repr(signed), str(signed), f"{signed}", repr(turn), repr([signed, turn])):
        assert SECRET not in shown
    with pytest.raises(BadSignature) as met:
        sent_target(head, Signed((), (), target=f"/b?key={SECRET}"))
    assert SECRET not in repr(met.value)


def test_a_message_of_keys_does_not_show_its_credential() -> None:
    """Channels and tests print messages: the answer of keys holds headers and target that are secret."""
    signed = m.RequestSigned(1, (), (("x-api-key", SECRET),), target=f"/a?key={SECRET}")
    assert SECRET not in repr(signed)
    assert SECRET not in f"{signed}"


# ---- without a credential ------------------------------------------------------------------------------------------------------------


def _passing(here: World, when: object = None) -> None:
    def sign(wanted: m.SignatureWanted) -> m.Message:
        if when is None or when(wanted):
            return m.RequestSigned(wanted.call, (), (), passed=True)
        return here.signed(wanted)

    here.sign = sign


def test_a_passed_request_goes_out_as_the_client_made_it(here: World) -> None:
    """Its own placeholder, its own Host, its own order; noted as answered, with the reason why it bore nothing."""
    _passing(here)
    here.echo()
    host = f"{HOST.upper()}:{here.port}"
    raw = (
        f"GET /a?b=c HTTP/1.1\r\nX-First: 1\r\nHost: {host}\r\nAuthorization: Signature own\r\nConnection: keep-alive\r\nX-Last: 2\r\n\r\n"
    )
    got = here.tls().send(raw.encode()).message()
    arrived = [(name.lower().removeprefix("x-got-"), value) for name, value in got.fields if name.lower().startswith("x-got-")]
    assert arrived == [("x-first", "1"), ("host", host), ("authorization", "Signature own"), ("x-last", "2")]
    assert got.one("x-first") == "GET /a?b=c HTTP/1.1"
    note = here.noted("request-answered")
    assert (note.binding, note.status, note.path) == (BINDING, 200, "/a")
    assert "passthrough" in note.detail


def test_passed_and_signed_requests_share_no_connection(here: World) -> None:
    """H6: a server that lets a connection in by its first request must not take one for the other."""
    _passing(here, lambda wanted: wanted.asked.path == "/passed")
    far = here.echo()
    client = here.tls()
    told = [
        client.send(get(path, "Authorization: own", port=here.port)).message().one("x-got-authorization")
        for path in ("/signed", "/passed", "/signed", "/passed")
    ]
    assert told == ["Signed 1", "own", "Signed 3", "own"]
    assert far.connections == 2


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_was_held_for_its_hash_is_passed_as_it_came(here: World, chunked: bool) -> None:
    """The credential was lost between the two questions: no trace of the hash that was added for it."""
    asked: list[m.SignatureWanted] = []

    def sign(wanted: m.SignatureWanted) -> m.Message:
        asked.append(wanted)
        if len(asked) == 1:
            return m.Refused(wanted.call, "cw-x", Reason.SIGNATURE_UNREADABLE, "body-hash-wanted")
        return m.RequestSigned(wanted.call, (), (), passed=True)

    here.sign = sign
    here.echo()
    client = here.tls()
    if chunked:
        client.send(f"POST /c HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
        client.send(b"3\r\ndef\r\n0\r\nx-sum: 1\r\n\r\n")
    else:
        client.send(post(b"abcdef", "Expect: 100-continue", path="/c", port=here.port))
    got = client.message()
    assert got.body == b"abcdef"
    assert not got.all("x-got-x-content-sha256")
    assert got.all("x-got-transfer-encoding") == (["chunked"] if chunked else [])
    assert got.all("x-got-content-length") == ([] if chunked else ["6"])
    assert not got.all("x-got-expect")
    digest = base64.b64encode(hashlib.sha256(b"abcdef").digest()).decode()
    assert ("x-content-sha256", digest) in asked[1].headers


@pytest.mark.parametrize(
    "more", [{"target": f"/things?{SECRET}"}, {"body_sha256": "x"}, {"set": (("authorization", SECRET),)}, {"remove": ("authorization",)}]
)
def test_an_answer_that_is_both_is_refused(here: World, more: dict[str, object]) -> None:
    """Passed and signed at once can only be a fault: nothing leaves."""
    here.sign = lambda wanted: m.RequestSigned(**{"call": wanted.call, "remove": (), "set": (), "passed": True, **more})
    far = here.echo()
    got = here.tls().send(get(port=here.port)).message()
    assert (got.status, json.loads(got.body)["reason"]) == (503, Reason.KEYS_UNAVAILABLE)
    assert SECRET not in str(got)
    assert far.connections == 0


def test_a_passed_request_is_still_the_right_processs(here: World) -> None:
    """No credential is no reason to be lax: the process changed while keys was asked, and nothing is sent."""

    def sign(wanted: m.SignatureWanted) -> m.Message:
        here.verdict = lambda: Reason.PROCESS_CHANGED
        return m.RequestSigned(wanted.call, (), (), passed=True)

    here.sign = sign
    here.echo()
    got = here.tls().send(get(port=here.port)).message()
    assert (got.status, got.one("x-credwire-reason")) == (403, Reason.PROCESS_CHANGED)


def _answering(data: bytes, seen: list[Message]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        seen.append(peer.message())
        peer.send(data)

    return script


@pytest.mark.parametrize("field", ["location", "Link", "content-location", "refresh"])
def test_a_redirect_does_not_bring_the_secret_back(here: World, field: str) -> None:
    """H9: servers make addresses of the target that they got; the parameter comes back as a placeholder, replaced in the next request."""
    here.sign = lambda wanted: m.RequestSigned(wanted.call, (), (), target=f"{wanted.target}?a=1&key={SECRET}")
    here.far(_answering(answer(b"", "301 Moved", f"{field}: https://{HOST}/things/?a=1&key={SECRET}"), []))
    got = here.tls().send(get("/things", port=here.port)).message()
    assert got.one(field.lower()) == f"https://{HOST}/things/?a=1&key=placeholder"


def test_a_trailer_brings_no_credential_of_the_clients_own(here: World) -> None:
    """H7: some servers read trailers as headers; what was stripped from the head is stripped there, in both spellings; others pass."""
    here.sign = lambda wanted: m.RequestSigned(wanted.call, ("x-api-key",), (("x-api-key", SECRET),))
    seen: list[Message] = []
    here.far(_answering(answer(), seen))
    head = f"POST /things HTTP/1.1\r\nHost: {HOST}:{here.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    here.tls().send(f"{head}2\r\nhi\r\n0\r\nX-Api-Key: mine\r\nx_api_key: mine\r\nx-checksum: 1\r\n\r\n".encode()).message()
    assert seen[0].trailers == [("x-checksum", "1")]


def test_a_far_side_cannot_speak_for_us(here: World) -> None:
    """Headers that say who refused are ours alone."""
    here.far(_answering(answer(b"", "403 No", "x-credwire-reason: revoked", "X-Credwire-Hint: run this"), []))
    got = here.tls().send(get(port=here.port)).message()
    assert not [name for name, _ in got.fields if name.lower().startswith("x-credwire")]
