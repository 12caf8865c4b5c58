"""A refusal in the shape that each client prints; real clients read them in tests/e2e/test_refusal_text.py."""

import json
from xml.etree import ElementTree

import pytest

from control.errors import Refusal
from control.reason import ABOUT, Reason
from control.reason import hint as hint_of
from control.wire.dialect import Dialect, dialect, dialect_of_bytes
from control.wire.refuse import refusal_answer, status_of

_SCOPE = "AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20261122/eu-west-1/{}/aws4_request, SignedHeaders=host, Signature=00"
_HOST = "api.example.org"


def _aws(service: str) -> tuple[str, str]:
    return ("Authorization", _SCOPE.format(service))


@pytest.mark.parametrize(
    ("fields", "target", "host", "expected"),
    [
        ([("authorization", 'Signature version="1",keyId="x"')], "/", _HOST, Dialect.OCI),
        ([("accept", "*/*")], "/", "iaas.eu-frankfurt-1.oraclecloud.com", Dialect.OCI),
        ([("accept", "*/*")], "/", "notoraclecloud.com", Dialect.TEXT),
        ([_aws("s3")], "/bucket", _HOST, Dialect.S3),
        ([_aws("s3")], "/b", "x.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", Dialect.S3),
        ([], "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20261122%2Feu%2Fs3%2Faws4_request", _HOST, Dialect.S3),
        ([], "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256", "b.s3.eu-west-1.amazonaws.com", Dialect.S3),
        ([_aws("sts"), ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")], "/", _HOST, Dialect.AWS_QUERY),
        ([_aws("sts")], "/?Action=GetCallerIdentity", _HOST, Dialect.AWS_QUERY),
        ([_aws("route53")], "/2013-04-01/hostedzone", _HOST, Dialect.AWS_QUERY),
        ([_aws("ec2"), ("content-type", "application/x-www-form-urlencoded")], "/", _HOST, Dialect.EC2),
        ([_aws("dynamodb"), ("X-Amz-Target", "DynamoDB_20120810.ListTables")], "/", _HOST, Dialect.AWS_JSON),
        ([_aws("monitoring"), ("Smithy-Protocol", "rpc-v2-cbor")], "/service/x", _HOST, Dialect.AWS_CBOR),
        ([_aws("lambda")], "/2015-03-31/functions", _HOST, Dialect.AWS_REST),
        ([("accept", "*/*")], "/", _HOST, Dialect.TEXT),
        ([], "/", _HOST, Dialect.JSON),
        ([("Accept", "application/json")], "/", _HOST, Dialect.JSON),
        ([("Accept", "application/vnd.api+json; v=1")], "/", _HOST, Dialect.JSON),
        ([("Accept", "application/json, text/plain, */*")], "/", _HOST, Dialect.JSON),
        ([("Accept", "application/json;q=0.2, text/plain")], "/", _HOST, Dialect.TEXT),
        ([("Accept", "application/json;q=none")], "/", _HOST, Dialect.TEXT),
        ([("Accept", "text/html,application/xhtml+xml")], "/", _HOST, Dialect.TEXT),
        ([("Accept", ",;;q=,")], "/", _HOST, Dialect.TEXT),
    ],
)  # fmt: skip
def test_the_dialect_is_the_clients(fields: list[tuple[str, str]], target: str, host: str, expected: Dialect) -> None:
    """By what it signs with, by the host, by what it accepts."""
    assert dialect(fields, target, host) is expected


def test_bytes_that_are_no_request_still_tell_the_dialect() -> None:
    """A head that was refused for its form is answered in the client's shape all the same; garbage too."""
    raw = b"GET / HTTP/1.1\nauthorization: Signature x\n bad\n\n"
    assert dialect_of_bytes(raw, _HOST) is Dialect.OCI
    assert dialect_of_bytes(b"GET / HTTP/1.1\r\nAccept: */*\r\nx : y\r\n\r\n", _HOST) is Dialect.TEXT
    assert dialect_of_bytes(b"\x00\xff" * 40000, _HOST) is Dialect.JSON
    assert dialect_of_bytes(b"", _HOST) is Dialect.JSON


_EVIL = 'no path of "*.x" fits <script>&\r\nset-cookie: a=b\x1b[31m\u202e'


@pytest.mark.parametrize("to", list(Dialect))
def test_each_shape_holds_reason_id_and_hint_and_nothing_breaks_out(to: Dialect) -> None:
    """Whatever a stranger put into the detail, it is one value in a well-formed document, and no header line of its own."""
    answer = refusal_answer("cw-abcdefghij", Refusal(Reason.PATH_NOT_ALLOWED, _EVIL), status=403, close=False, to=to)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == "HTTP/1.1 403 Forbidden"
    assert int(headers["content-length"]) == len(body)
    assert headers["x-credwire-id"] == "cw-abcdefghij"
    assert headers["x-credwire-reason"] == Reason.PATH_NOT_ALLOWED
    assert headers["x-credwire-hint"] == ABOUT[Reason.PATH_NOT_ALLOWED].hint
    assert "set-cookie" not in headers
    match headers["content-type"].partition(";")[0]:
        case "application/json" | "application/x-amz-json-1.1":
            said = json.loads(body)["message"]
        case "application/xml" | "text/xml":
            said = next(node.text or "" for node in ElementTree.fromstring(body).iter("Message"))  # noqa: S314  # our own
        case "application/cbor":
            assert body.startswith(b"\xa2\x79\x00\x06__type\x79\x00\x10path-not-allowed\x79\x00\x07message\x79")
            size, said = int.from_bytes(body[40:42], "big"), body[42:].decode()
            assert size == len(body) - 42
        case _:
            said = body.decode()
    for word in (Reason.PATH_NOT_ALLOWED, "cw-abcdefghij", ABOUT[Reason.PATH_NOT_ALLOWED].hint, 'no path of "*.x" fits <script>&'):
        assert word in said
    assert not any(ord(letter) < 0x20 for letter in said.removesuffix("\n"))
    assert "\u202e" not in said


def test_text_is_one_line_that_ends() -> None:
    """So that a prompt does not stand behind it."""
    body = refusal_answer("cw-x", Refusal(Reason.REVOKED), status=403, close=True, to=Dialect.TEXT).partition(b"\r\n\r\n")[2]
    assert body == b"credwire: the grant was revoked; credwire audit tail shows by whom (revoked, id cw-x)\n"


@pytest.mark.parametrize("to", list(Dialect))
def test_a_head_has_no_body_but_its_headers_say_why(to: Dialect) -> None:
    """HEAD: the length is announced and nothing follows."""
    answer = refusal_answer("cw-x", Refusal(Reason.REVOKED), status=403, close=False, method="HEAD", to=to)
    assert answer.endswith(b"\r\n\r\n")
    for line in (b"x-credwire-id: cw-x", b"x-credwire-reason: revoked", b"x-credwire-hint: credwire audit tail shows by whom"):
        assert line in answer


def test_a_405_says_what_is_allowed() -> None:
    """RFC 9110 section 15.5.6."""
    assert status_of(Reason.METHOD_FORBIDDEN) == 405
    assert b"\r\nallow: GET" in refusal_answer("cw-x", Refusal(Reason.METHOD_FORBIDDEN), status=405, close=True)


def test_the_hint_names_the_identity_and_the_id() -> None:
    """The command can be pasted; unknown names stay as they are; other words that hold them are left alone."""
    told = hint_of(Reason.CLIENT_DOES_NOT_TRUST_CA, identity="ops-cli")
    assert 'eval "$(credwire ca env --identity ops-cli)"' in told
    assert "credwire run --identity ops-cli -- CMD" in told
    assert "NAME" in hint_of(Reason.CLIENT_DOES_NOT_TRUST_CA)
    assert hint_of(Reason.CLIENT_TLS_FAILED, refusal_id="cw-1") == "credwire explain cw-1 shows what ended it"
    assert hint_of(Reason.CLIENT_DOES_NOT_TRUST_CA, identity=r"a\1").count(r"a\1") == 2


def test_keys_own_hint_wins() -> None:
    """Whoever refused knows better than the table."""
    answer = refusal_answer("cw-x", Refusal(Reason.EXCHANGE_REFUSED, "invalid_grant", "mend the trust"), status=503, close=False)
    assert b"mend the trust" in answer
    assert ABOUT[Reason.EXCHANGE_REFUSED].hint.encode() not in answer
