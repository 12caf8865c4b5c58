"""H1, H3, H4, H7, H8, H9: what a request may not look like.  Refused whole, never repaired; the cloud sees none of it.  Needs root."""

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import head
from tests.e2e.lib.scene import IDENTITY, STORAGE, USERS, Scene, refused
from tests.e2e.test_main_job import placeholder

_LINE = f"GET {USERS} HTTP/1.1\r\n".encode()
_HOST = f"host: {IDENTITY}\r\n".encode()


def test_only_the_name_of_the_connection_is_served(scene: Scene) -> None:
    """H1, H3: another bound host, its port, userinfo, a dot more, an absolute-form of another host; each on a connection of its own."""
    with scene.watch() as seen, scene.hand("main") as hand:
        for host in (STORAGE, f"{IDENTITY}:444", f"{STORAGE}:443", f"evil.{IDENTITY}", "127.0.0.1"):
            answer = hand.asks(hand.open(IDENTITY), head(host, "GET", USERS))
            assert (answer.status, answer.reason) == (421, Reason.HOST_MISMATCH), host
        answer = hand.asks(hand.open(IDENTITY), head(IDENTITY, "GET", f"https://{STORAGE}{USERS}"))
        assert (answer.status, answer.reason) == (421, Reason.HOST_MISMATCH)
        for host in (f"user@{IDENTITY}", "", f"{IDENTITY}, {STORAGE}"):
            answer = hand.asks(hand.open(IDENTITY), head(host, "GET", USERS))
            assert answer.reason in (Reason.REQUEST_MALFORMED, Reason.HOST_MISMATCH, Reason.DESTINATION_UNKNOWN), host
        assert seen.records() == []


def test_other_writings_of_the_same_name_are_one_name(scene: Scene) -> None:
    """H3: capitals and the default port are signed as the one canonical name, and verify."""
    with scene.watch() as seen, scene.hand("main") as hand:
        for host in (IDENTITY.upper(), f"{IDENTITY}:443"):
            assert hand.request(IDENTITY, "GET", USERS, headers=[("host", host)]).status == 200
        assert {record.host for record in seen.valid()} == {IDENTITY}


@pytest.mark.parametrize(
    "request_",
    [
        _LINE + _HOST + _HOST + b"\r\n",
        _LINE + b"\r\n",
        _LINE + _HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        _LINE + _HOST + b"content-length: 5, 5\r\n\r\nhello",
        _LINE + _HOST + b"content-length: +5\r\n\r\nhello",
        _LINE + _HOST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        _LINE + _HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        _LINE + _HOST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        _LINE + _HOST + b"x: a\r\n b\r\n\r\n",
        _LINE + _HOST + b"x : a\r\n\r\n",
        _LINE + _HOST + b"x: a\0b\r\n\r\n",
        _LINE + _HOST + b"x: a\rb\r\n\r\n",
        _LINE.replace(b"\r\n", b"\n") + _HOST.replace(b"\r\n", b"\n") + b"\n\r\n\r\n",
        _LINE + _HOST + b"connection: host\r\n\r\n",
        _LINE + _HOST + b"connection: authorization\r\n\r\n",
        _LINE + _HOST + b"max-forwards: 0\r\n\r\n",
        _LINE + _HOST + b"content_length: 5\r\n\r\n",
        _LINE.replace(b"HTTP/1.1", b"HTTP/1.9") + _HOST + b"\r\n",
        b" " + _LINE + _HOST + b"\r\n",
    ],
    ids=[
        "two hosts", "no host", "two lengths", "list length", "signed length", "length and chunked", "two codings", "unknown coding",
        "folded",
        "blank before colon", "NUL", "bare CR", "bare LF", "connection host", "connection authorization", "max-forwards", "underscore",
        "version", "leading blank",
    ],
)  # fmt: skip
def test_smuggling_is_refused(scene: Scene, request_: bytes) -> None:
    """H3, H4, H9: one reading only, and the connection ends with it."""
    with scene.watch() as seen, scene.hand("main") as hand:
        number = hand.open(IDENTITY)
        answer = hand.asks(number, request_)
        assert answer.status in (400, 501)
        assert answer.headers["connection"] == "close"
        refused(scene, seen, answer, answer.status, Reason(answer.reason))
        assert seen.records() == []


@pytest.mark.parametrize(
    "path",
    [
        "/20160918/users/../policies", "/20160918/users/%2e%2e/policies", "/20160918//users", "/20160918/users%2f..%2fpolicies",
        "/./20160918/users",
        "/20160918/users/%252e%252e/policies", "/20160918/users/..;/policies", "/20160918/users\\..\\policies", "/20160918/users/%00",
    ],
)  # fmt: skip
def test_a_path_with_two_readings_is_refused(scene: Scene, path: str) -> None:
    """H8: where the binding limits paths, what could mean another path is refused; the plain one works."""
    with scene.watch() as seen, scene.hand("main") as hand:
        number = hand.open(IDENTITY)
        answer = hand.asks(number, head(IDENTITY, "GET", path))
        assert answer.reason in (Reason.PATH_AMBIGUOUS, Reason.PATH_NOT_ALLOWED, Reason.REQUEST_MALFORMED)
        assert seen.records() == []
        assert hand.request(IDENTITY, "GET", USERS).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer stolen-token")],
        [placeholder("date (request-target) host"), ("date", "x")],
        [("opc-obo-token", "somebody-else")],
        [("x-date", "Thu, 01 Jan 1970 00:00:00 GMT")],
        [("proxy-authorization", "Basic eA==")],
    ],
    ids=["bearer", "signature", "obo", "x-date", "proxy"],
)  # fmt: skip
def test_the_clients_own_material_never_arrives(scene: Scene, headers: list[tuple[str, str]]) -> None:
    """H7: stripped before signing; the cloud verifies one signature, ours, by its own key."""
    with scene.watch() as seen, scene.hand("main") as hand:
        assert hand.request(IDENTITY, "GET", USERS, headers=headers).status == 200
        assert [(record.principal, record.key_id_kind) for record in seen.valid()] == [("svc-main", "upst")]
