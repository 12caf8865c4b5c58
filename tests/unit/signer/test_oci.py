"""
The OCI signer: checked against two verifiers that we did not write, against vectors, and against requests made to trick it.

httpsig (PyPI) and http-signature (npm) look at the signature only: coverage, freshness and the body's hash are checked here.
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpsig
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from control.binding.model import OciSigner
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.secret import Secret
from control.signer.model import BODY_HASH_WANTED, Request, Signed
from control.signer.oci import EMPTY_SHA256, sign, signing_string
from tests.e2e.lib.http_signature import Verifier, VerifierMissing

NOW = 1_800_000_000.0
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
ISSUE = Issue(1, Secret("aaa.bbb.ccc"), KEY, 0.0, 3600.0, "svc", NOW + 3600)
PLACEHOLDER = 'Signature version="1",keyId="ocid1.tenancy/ocid1.user/20:3b",algorithm="rsa-sha256",headers="{}",signature="AAAA"'
GET_LIST = "date (request-target) host"
POST_LIST = "date (request-target) host content-length content-type x-content-sha256"
BODY = b'{"name":"x"}'
HASH = base64.b64encode(hashlib.sha256(BODY).digest()).decode()


def as_sent(request: Request, signed: Signed) -> dict[str, str]:
    """What the far side receives after the changes are made."""
    kept = {k.lower(): v for k, v in request.headers if k.lower() not in signed.remove}
    return kept | dict(signed.set)


def verifies(request: Request, headers: dict[str, str], required: str) -> bool:
    """Whether httpsig, which we did not write, accepts the request as sent."""
    return bool(
        httpsig.HeaderVerifier(headers, PUBLIC_PEM, required_headers=required.split(), method=request.method, path=request.target).verify()
    )


@pytest.fixture(scope="module")
def second() -> Iterator[Verifier]:
    """npm's http-signature; a run without it says so."""
    try:
        made = Verifier()
    except VerifierMissing as missing:
        pytest.skip(f"the second verifier is not here: {missing}")
    with made:
        yield made


def fresh_and_whole(headers: dict[str, str], names: list[str], body: bytes | None) -> None:
    """What neither verifier looks at."""
    assert {"(request-target)", "host"} <= set(names)
    dated = "x-date" if "x-date" in names else "date"
    assert abs(parsedate_to_datetime(headers[dated]).timestamp() - NOW) <= 1
    assert not ("x-date" in headers and dated == "date")
    if "x-content-sha256" in names:
        assert body is not None
        assert headers["x-content-sha256"] == base64.b64encode(hashlib.sha256(body).digest()).decode()
        assert headers["content-length"] == str(len(body))


def get(*more: tuple[str, str], target: str = "/20160918/users?limit=5&page=a%2Fb", method: str = "GET") -> Request:
    return Request(method, target, (("Host", "identity.test-1.cloud.test"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), *more))


def signed_of(request: Request) -> Signed:
    result = sign(request, ISSUE, NOW, OciSigner())
    assert isinstance(result, Signed), result
    return result


def refusal_of(request: Request) -> Refusal:
    result = sign(request, ISSUE, NOW, OciSigner())
    assert isinstance(result, Refusal), "it was signed"
    return result


def test_a_mirrored_get_verifies() -> None:
    """The client's list is reused, the key id is the token, the date is ours, and an outside verifier accepts it."""
    request = get(("Authorization", PLACEHOLDER.format(GET_LIST)))
    signed = signed_of(request)
    headers = as_sent(request, signed)
    assert verifies(request, headers, GET_LIST)
    assert 'keyId="ST$aaa.bbb.ccc"' in headers["authorization"]
    assert f'headers="{GET_LIST}"' in headers["authorization"]
    assert parsedate_to_datetime(headers["date"]).timestamp() == NOW
    assert "ocid1.user" not in str(headers)
    assert signed.body_sha256 == ""


def _forms() -> dict[str, tuple[Request, str, bytes | None]]:
    body = (("content-length", str(len(BODY))), ("content-type", "application/json"), ("x-content-sha256", HASH))
    empty = (("content-length", "0"), ("content-type", "application/json"), ("x-content-sha256", EMPTY_SHA256))
    placeholder, full = ("authorization", PLACEHOLDER.format(GET_LIST)), ("authorization", PLACEHOLDER.format(POST_LIST))
    x_dated = ("authorization", PLACEHOLDER.format(POST_LIST.replace("date", "x-date", 1)))
    old = ("x-date", "Thu, 01 Jan 1970 00:00:00 GMT")
    forms = {f"bare {method}": (get(method=method), GET_LIST, None) for method in ("GET", "HEAD", "DELETE", "OPTIONS")}
    forms |= {
        f"mirrored {method}": (get(placeholder, method=method), GET_LIST, None) for method in ("GET", "HEAD", "DELETE", "PUT", "POST")
    }
    forms |= {f"bare {method} with body": (get(*body, method=method), POST_LIST, BODY) for method in ("POST", "PUT", "PATCH")}
    forms |= {f"mirrored {method} with body": (get(*body, full, method=method), POST_LIST, BODY) for method in ("POST", "PUT", "PATCH")}
    forms["bare empty POST"] = (get(("content-length", "0"), method="POST"), POST_LIST, b"")
    forms["mirrored empty POST"] = (get(*empty, full, method="POST"), POST_LIST, b"")
    forms["x-date"] = (get(*body, old, x_dated, method="POST"), POST_LIST.replace("date", "x-date", 1), BODY)
    forms["x-date beside date"] = (get(*body, old, full, method="POST"), POST_LIST, BODY)
    forms["exempt upload"] = (get(("content-length", "9"), ("content-type", "a/b"), placeholder, method="PUT"), GET_LIST, None)
    forms["further header"] = (
        get(("opc-x", "a  b"), ("authorization", PLACEHOLDER.format(GET_LIST + " opc-x"))),
        GET_LIST + " opc-x",
        None,
    )
    return forms


FORMS = _forms()
"""Every verb and body form: the request, what must be covered, the body."""


@pytest.mark.parametrize("form", FORMS)
def test_two_verifiers_take_every_form(form: str, second: Verifier) -> None:
    """And neither takes it for another target: each verifier refuses beside what it accepts."""
    request, required, body = FORMS[form]
    signed = signed_of(request)
    headers = as_sent(request, signed)
    assert verifies(request, headers, required)
    assert not second.verify(method=request.method, target=request.target, headers=headers, required=required.split(), pem=PUBLIC_PEM)
    listed = headers["authorization"].partition('headers="')[2].partition('"')[0].split()
    fresh_and_whole(headers, listed, body)
    moved = {"method": request.method, "target": "/20160918/groups", "headers": headers, "required": required.split(), "pem": PUBLIC_PEM}
    assert "does not verify" in second.verify(**moved)
    assert not verifies(Request(request.method, "/20160918/groups", request.headers), headers, required)
    uncovered = {**moved, "target": request.target, "required": [*required.split(), "accept"]}
    assert second.verify(**{**uncovered, "headers": {**headers, "accept": "x"}})


def test_a_changed_request_does_not_verify() -> None:
    """The signature holds for this target only."""
    request = get(("Authorization", PLACEHOLDER.format(GET_LIST)))
    headers = as_sent(request, signed_of(request))
    assert not verifies(get(target="/20160918/groups"), headers, GET_LIST)


def test_a_mirrored_post_verifies_and_names_the_body_hash() -> None:
    """A covered x-content-sha256 is handed back, so that the body is checked while it streams."""
    request = get(
        ("Content-Length", str(len(BODY))), ("content-type", "application/json"), ("X-Content-SHA256", HASH),
        ("authorization", PLACEHOLDER.format(POST_LIST)), method="POST",
    )  # fmt: skip
    signed = signed_of(request)
    assert verifies(request, as_sent(request, signed), POST_LIST)
    assert signed.body_sha256 == HASH


def test_an_upload_that_covers_no_body_stays_so() -> None:
    """Object storage's put signs three headers: mirrored, and nothing is promised about the body."""
    request = get(("content-length", "200000000"), ("authorization", PLACEHOLDER.format(GET_LIST)), method="PUT")
    signed = signed_of(request)
    assert verifies(request, as_sent(request, signed), GET_LIST)
    assert signed.body_sha256 == ""


def test_never_fewer_than_three_are_signed() -> None:
    """A client that signs the date only gets target and host signed as well."""
    request = get(("authorization", PLACEHOLDER.format("date")))
    headers = as_sent(request, signed_of(request))
    assert verifies(request, headers, GET_LIST)


def test_x_date_may_stand_for_date() -> None:
    """A client that signs x-date gets a fresh x-date; one that only sends it loses it, for it would be read first."""
    stands = get(("x-date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("authorization", PLACEHOLDER.format("x-date (request-target) host")))
    headers = as_sent(stands, signed_of(stands))
    assert verifies(stands, headers, "x-date (request-target) host")
    assert parsedate_to_datetime(headers["x-date"]).timestamp() == NOW
    stray = get(("x-date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("authorization", PLACEHOLDER.format(GET_LIST)))
    assert "x-date" not in as_sent(stray, signed_of(stray))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_bare_request_without_body_is_signed(method: str) -> None:
    """A client without a placeholder (curl) gets Oracle's own list."""
    request = get(method=method)
    assert verifies(request, as_sent(request, signed_of(request)), GET_LIST)


def test_a_bare_post_asks_for_the_body_hash_and_then_verifies() -> None:
    """The proxy buffers, adds the hash and asks again."""
    bare = (("content-length", str(len(BODY))), ("content-type", "application/json"))
    refused = refusal_of(get(*bare, method="POST"))
    assert (refused.reason, refused.detail) == (Reason.SIGNATURE_UNREADABLE, BODY_HASH_WANTED)
    chunked = refusal_of(get(("transfer-encoding", "chunked"), method="POST"))
    assert chunked.detail == BODY_HASH_WANTED
    again = get(*bare, ("x-content-sha256", HASH), method="POST")
    signed = signed_of(again)
    assert verifies(again, as_sent(again, signed), POST_LIST)
    assert signed.body_sha256 == HASH


def test_a_bare_post_with_an_empty_body_is_signed_at_once() -> None:
    """An empty body is hashed too, has a length of 0 and a type; without a length it is asked for, for it may be chunked."""
    assert refusal_of(get(method="POST")).detail == BODY_HASH_WANTED
    request = get(("content-length", "0"), method="POST")
    signed = signed_of(request)
    headers = as_sent(request, signed)
    assert verifies(request, headers, POST_LIST)
    assert headers["x-content-sha256"] == EMPTY_SHA256 == base64.b64encode(hashlib.sha256().digest()).decode()
    assert headers["content-length"] == "0"


def test_all_material_of_the_client_goes() -> None:
    """Another scheme's authorization and a delegation token do not travel beside ours (attacks: H7)."""
    request = get(("Authorization", "Bearer of-the-client"), ("opc-obo-token", "of-somebody"))
    headers = as_sent(request, signed_of(request))
    assert "of-the-client" not in str(headers)
    assert "opc-obo-token" not in headers
    assert verifies(request, headers, GET_LIST)


@pytest.mark.parametrize(
    "lie",
    [
        get(("x", "a\n(request-target): delete /20160918/users/1"), ("authorization", PLACEHOLDER.format(GET_LIST + " x"))),
        get(("x", "a\r\nhost: other"), ("authorization", PLACEHOLDER.format(GET_LIST + " x"))),
        get(("x\nhost", "a")),
        get(("x", "\0")),
        get(target="/a\nhost: other.cloud.test"),
        get(target="/a HTTP/1.1"),
        get(target="http://other/"),
        get(method="get /x\ndate: y\n"),
        get(("date", "twice")),
        get(("host", "twice")),
        get(("authorization", PLACEHOLDER.format(GET_LIST)), ("Authorization", PLACEHOLDER.format("date"))),
    ],
)
def test_what_could_put_a_line_into_the_signing_string_is_refused(lie: Request) -> None:
    """A head with line breaks, blanks in the target or doubled headers is not signed: the text would mean another request."""
    assert refusal_of(lie).reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(
    "authorization",
    [
        "Signature",
        'Signature headers="date',
        'Signature headers="date",headers="host"',
        PLACEHOLDER.format("date date"),
        PLACEHOLDER.format("date (created)"),
        PLACEHOLDER.format("date host content-length"),
        PLACEHOLDER.format("date transfer-encoding"),
        PLACEHOLDER.format("date connection"),
        PLACEHOLDER.format(" ".join(f"h{n}" for n in range(65))),
    ],
)
def test_an_unreadable_placeholder_is_refused(authorization: str) -> None:
    """What cannot be mirrored is said, not guessed."""
    refused = refusal_of(get(("authorization", authorization)))
    assert refused.reason is Reason.SIGNATURE_UNREADABLE
    assert refused.detail != BODY_HASH_WANTED


def test_a_body_hash_that_is_none_is_refused() -> None:
    """The proxy could not check a body against it."""
    more = (("content-length", "1"), ("content-type", "a/b"), ("authorization", PLACEHOLDER.format(POST_LIST)))
    for bad in ("", "AAAA", "@@@", hashlib.sha256(b"").hexdigest()):
        assert refusal_of(get(*more, ("x-content-sha256", bad), method="POST")).reason is Reason.SIGNATURE_UNREADABLE


def test_the_signing_string_meets_httpsigs_vectors() -> None:
    """Published signatures over the example of draft-cavage, with its key (tests/vectors/SOURCES.md)."""
    pem = importlib.resources.files("httpsig").joinpath("tests/rsa_private.pem").read_bytes()
    assert hashlib.sha256(pem).hexdigest() == "f1d2367c13669c82246eb1e9e265cece7cf2837b006b8b8597d1a2512db5c4eb"
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    values = {
        "host": "example.com", "date": "Thu, 05 Jan 2014 21:31:40 GMT", "content-type": "application/json",
        "digest": "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", "content-length": "18",
    }  # fmt: skip
    request = Request("POST", "/foo?param=value&pet=dog", tuple(values.items()))
    published = {
        "date": "jKyvPcxB4JbmYY4mByyBY7cZfNl4OW9HpFQlG7N4YcJPteKTu4MWCLyk+gIr0wDgqtLWf9NLpMAMimdfsH7FSWGfbMFSrsVTHNTk0rK3usrfFnti1dxsM4jl0kYJCKTGI/UWkqiaxwNiKqGcdlEDrTcUhhsFsOIo8VhddmZTZ8w=",  # noqa: E501
        "(request-target) host date": "HUxc9BS3P/kPhSmJo+0pQ4IsCo007vkv6bUm4Qehrx+B1Eo4Mq5/6KylET72ZpMUS80XvjlOPjKzxfeTQj4DiKbAzwJAb4HX3qX6obQTa00/qPDXlMepD2JtTw33yNnm/0xV7fQuvILN/ys+378Ysi082+4xBQFwvhNvSoVsGv4=",  # noqa: E501
        "(request-target) host date content-type digest content-length": "Ef7MlxLXoBovhil3AlyjtBwAL9g4TN3tibLj7uuNB3CROat/9KaeQ4hW2NiJ+pZ6HQEOx9vYZAyi+7cmIkmJszJCut5kQLAwuX+Ms/mUFvpKlSo9StS2bMXDBNjOh4Auj774GFj4gwjS+3NhFeoqyr/MuN6HsEnkvn6zdgfE2i0=",  # noqa: E501
    }
    for names, signature in published.items():
        text = signing_string(names.split(), request, values)
        assert base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), SHA256())).decode() == signature
