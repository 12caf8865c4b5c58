"""
The signers of plain secrets: what a second parser reads back is exactly the secret, and everything else is as the client sent it.

The second parsers are urllib, http.cookies, requests and the email package, which we did not write; vectors are those of the RFCs.
"""

import base64
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from control.binding.model import BasicSigner, BearerSigner, CookieSigner, HeaderSigner, QuerySigner, WireSigner, kind_of_signer
from control.credential.model import Issue
from control.errors import Refusal
from control.reason import Reason
from control.secret import Secret
from control.signer import SIGNERS
from control.signer.model import Request, Signed

HOST = ("Host", "api.billing.test")
ANY_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
EVERY = (HeaderSigner("x-api-key"), BearerSigner(), BasicSigner("svc"), QuerySigner("key"), CookieSigner("session"))


def issue(secret: str | bytes) -> Issue:
    return Issue(1, Secret(secret), None, 0.0, 3600.0, "billing-key", 0.0, "billing-key")


def sign(signer: WireSigner, secret: str | bytes, *headers: tuple[str, str], target: str = "/v1/invoices?page=2") -> Signed | Refusal:
    return SIGNERS[kind_of_signer(signer)](Request("GET", target, (HOST, *headers)), issue(secret), 0.0, signer)


def given_to(signer: WireSigner, secret: str | bytes, *headers: tuple[str, str], target: str = "/v1/invoices?page=2") -> Signed:
    result = sign(signer, secret, *headers, target=target)
    assert isinstance(result, Signed), result
    return result


def refused(signer: WireSigner, secret: str | bytes, *headers: tuple[str, str], target: str = "/") -> Refusal:
    result = sign(signer, secret, *headers, target=target)
    assert isinstance(result, Refusal), "it was signed"
    return result


def as_sent(signed: Signed, *headers: tuple[str, str]) -> list[tuple[str, str]]:
    """The far side's view: removed, then set, as control/wire/rewrite.py does it."""
    gone = {*signed.remove, *(name for name, _ in signed.set)}
    return [*((n, v) for n, v in (HOST, *headers) if n.lower() not in gone), *signed.set]


def values(name: str, sent: list[tuple[str, str]]) -> list[str]:
    return [value for other, value in sent if other.lower() == name]


# ---- outside facts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "secret", "value"),
    [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617 2
        ("test", "123\u00a3", "Basic dGVzdDoxMjPCow=="),  # RFC 7617 2.1, charset UTF-8
    ],
)
def test_basic_is_what_rfc_7617_prints(user: str, secret: str, value: str) -> None:
    """Both examples of the RFC, the second with a pound sign in UTF-8."""
    assert given_to(BasicSigner(user), secret).set == (("authorization", value),)


def test_bearer_is_what_rfc_6750_prints() -> None:
    """The example of section 2.1."""
    assert given_to(BearerSigner(), "mF_9.B5f-4.1JqM").set == (("authorization", "Bearer mF_9.B5f-4.1JqM"),)


def test_cookie_is_what_rfc_6265_prints() -> None:
    """The example of section 3.1: two cookies in one header."""
    signed = given_to(CookieSigner("lang"), "en-US", ("Cookie", "SID=31d4d96e407aad42; lang=de"))
    assert signed.set == (("cookie", "SID=31d4d96e407aad42; lang=en-US"),)


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60),
    st.from_regex(r"[A-Za-z0-9._@-]{0,30}", fullmatch=True),
)
def test_basic_is_what_requests_sends(secret: str, user: str) -> None:
    """requests, given bytes in UTF-8, writes the same header; and decoding gives user and secret."""
    (_, value), *_ = given_to(BasicSigner(user), secret).set
    prepared = requests.Request("GET", "https://h/", auth=(user.encode(), secret.encode())).prepare()
    assert value == prepared.headers["Authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")).decode().partition(":") == (user, ":", secret)


# ---- header ------------------------------------------------------------------------------------------------------------------------

VISIBLE = st.from_regex(r"[!-~]([ -~]{0,60}[!-~])?", fullmatch=True)
OTHER_HEADERS = st.lists(st.tuples(st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True), VISIBLE), max_size=6)


@given(VISIBLE, VISIBLE, st.sampled_from(["X-Api-Key", "x-api-key", "X_Api_Key", "x-API_key"]), OTHER_HEADERS)
def test_a_header_is_the_secret_alone_and_the_others_stay(secret: str, theirs: str, name: str, others: list[tuple[str, str]]) -> None:
    """Every header of that name in every case goes, its underscore twins too; the rest keeps value and order."""
    others = [(n, v) for n, v in others if n.lower() != "x-api-key"]
    headers = [(name, theirs), *others, ("x-api-KEY", theirs)]
    sent = as_sent(given_to(HeaderSigner("x-api-key"), secret, *headers), *headers)
    assert sent == [HOST, *others, ("x-api-key", secret)]


def test_a_template_holds_the_secret_once() -> None:
    """What stands around it is sent as it is; none, two, or a template with a line break are refused."""
    assert given_to(HeaderSigner("authorization", "Token {secret}, v=1"), "abc").set == (("authorization", "Token abc, v=1"),)
    for template in ("", "abc", "{secret}{secret}", "a\r\nb: {secret}", "{secret} ", " {secret}", "{Secret}"):
        assert refused(HeaderSigner("x-api-key", template), "abc").reason is Reason.RESOURCE_MALFORMED
    assert given_to(HeaderSigner("x-api-key", "{secret}"), "a{secret}b").set == (("x-api-key", "a{secret}b"),)


@pytest.mark.parametrize("name", ["host", "Content-Length", "transfer_encoding", "connection", "", "x key", "x:key", "x\r\ny", "té"])
def test_a_header_that_frames_or_is_no_token_carries_nothing(name: str) -> None:
    """A credential there would be another request, or another header."""
    assert refused(HeaderSigner(name), "abc").reason is Reason.RESOURCE_MALFORMED


# ---- query -------------------------------------------------------------------------------------------------------------------------

PART = st.from_regex(r"[A-Za-z0-9%._~!$'()*,:@/?\[\]+=-]{0,12}", fullmatch=True)


def encodings(name: str) -> st.SearchStrategy[str]:
    """Every letter plain or percent-encoded, in either case of hex."""
    return st.tuples(*(st.sampled_from([c, f"%{ord(c):02x}", f"%{ord(c):02X}"]) for c in name)).map("".join)


def is_key(part: str) -> bool:
    return bool(parse_qsl(part, keep_blank_values=True)) and parse_qsl(part, keep_blank_values=True)[0][0] == "key"


@given(ANY_TEXT, st.lists(st.one_of(PART, encodings("key").map(lambda k: k + "=theirs"), encodings("key")), max_size=8))
def test_a_query_gives_the_secret_once_and_keeps_the_other_bytes(secret: str, parts: list[str]) -> None:
    """urllib reads exactly one value of that name, ours; what it does not read as that name stands there byte for byte, in order."""
    target = "/v1/%2Fx?" + "&".join(parts)
    sent = given_to(QuerySigner("key"), secret, target=target).target
    url = urlsplit("https://h" + sent)
    assert [v for n, v in parse_qsl(url.query, keep_blank_values=True) if n == "key"] == [secret]
    assert url.path == "/v1/%2Fx"
    kept = [part for part in parts if not is_key(part)] if target.partition("?")[2] else []
    assert sent == "/v1/%2Fx?" + "&".join([*kept, "key=" + quote(secret, safe="")])
    assert all(33 <= ord(c) <= 126 for c in sent)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/", "/?key=s%20%26%3D"),
        ("/?", "/?key=s%20%26%3D"),
        ("/?key", "/?key=s%20%26%3D"),
        ("/?a=1&&key=x&", "/?a=1&&&key=s%20%26%3D"),
        ("/?keys=1&akey=2&Key=3", "/?keys=1&akey=2&Key=3&key=s%20%26%3D"),
        ("/?a=key=1&a=?key=2", "/?a=key=1&a=?key=2&key=s%20%26%3D"),
        ("/a;key=1?b;c=2", "/a;key=1?b;c=2&key=s%20%26%3D"),
    ],
)
def test_targets_as_sent(target: str, sent: str) -> None:
    """With and without a query, with empty parts, with names that only look alike; the path is never touched."""
    signed = given_to(QuerySigner("key"), "s &=", target=target)
    assert signed.target == sent
    assert (signed.remove, signed.set) == ((), ())


@pytest.mark.parametrize("target", ["/?a=1;key=x", "/?a;%6bey", "/?a#b", "x", "*", "https://h/", "/?a b", "/?a\r\nb", "/\u00e9"])
def test_a_target_with_two_readings_is_refused(target: str) -> None:
    """A semicolon that old servers split at, a number sign, and whatever is no origin form."""
    assert refused(QuerySigner("key"), "abc", target=target).reason is Reason.REQUEST_MALFORMED


def test_a_blank_in_a_parameters_name_is_one_name() -> None:
    """A plus and %20 are the same blank in form encoding."""
    assert given_to(QuerySigner("api key"), "s", target="/?api+key=1&api%20key=2&b=3").target == "/?b=3&api%20key=s"


# ---- cookie ------------------------------------------------------------------------------------------------------------------------

_ATTRIBUTES = ["expires", "path", "comment", "domain", "max-age", "secure", "httponly", "version", "samesite", "partitioned"]
"""Words that http.cookies takes for attributes of the cookie before."""
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,10}", fullmatch=True).filter(lambda name: name.lower() not in _ATTRIBUTES)
OCTETS = st.from_regex(r"[!#-+\--:<-\[\]-~]{1,40}", fullmatch=True)


@given(OCTETS, st.lists(st.tuples(NAME.filter(lambda n: n != "session"), OCTETS), max_size=5, unique_by=lambda c: c[0]), st.data())
def test_a_cookie_is_the_secret_once_and_the_others_stay(secret: str, others: list[tuple[str, str]], data: st.DataObject) -> None:
    """http.cookies reads ours and every other cookie of the client; the bytes of the others are in the header as they came."""
    pairs = [f"{name}={value}" for name, value in others]
    with_theirs = list(pairs)
    for _ in range(data.draw(st.integers(0, 2))):
        theirs = data.draw(st.sampled_from(["session=theirs", "session", "session=", "session =x"]))
        with_theirs.insert(data.draw(st.integers(0, len(with_theirs))), theirs)
    headers = [("Cookie", "; ".join(with_theirs))] if with_theirs else []
    sent = as_sent(given_to(CookieSigner("session"), secret, *headers), *headers)
    assert values("cookie", sent) == ["; ".join([*pairs, f"session={secret}"])]
    read = SimpleCookie(values("cookie", sent)[0])
    assert {name: morsel.coded_value for name, morsel in read.items()} == {**dict(others), "session": secret}


def test_several_cookie_headers_become_one() -> None:
    """A client sends one (RFC 6265 5.4); odd spacing of the others stays inside."""
    headers = [("cookie", "a=1;b=2 ;  session=x"), ("Cookie", "session=y;c=3"), ("cookie", "session=z")]
    assert given_to(CookieSigner("session"), "s", *headers).set == (("cookie", "a=1;b=2; c=3; session=s"),)


def test_a_quoted_semicolon_is_refused() -> None:
    """RFC 6265 ends the cookie there, older parsers do not: what one keeps the other would lose."""
    assert refused(CookieSigner("session"), "s", ("cookie", 'a="x; session=y"; b=1')).reason is Reason.REQUEST_MALFORMED
    assert given_to(CookieSigner("session"), "s", ("cookie", 'a="x"; b=1')).set == (("cookie", 'a="x"; b=1; session=s'),)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b"])
def test_a_cookies_name_is_a_token(name: str) -> None:
    """Anything else would be another cookie."""
    assert refused(CookieSigner(name), "s").reason is Reason.RESOURCE_MALFORMED


# ---- what no signer takes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", EVERY, ids=kind_of_signer)
@pytest.mark.parametrize("secret", ["", "abc\r\nx: y", "abc\n", "a\0b", "a\x1fb", "a\x7fb", "a\u0085b", b"\xff\xfe"])
def test_a_secret_with_a_control_character_is_refused_by_its_sources_name(signer: WireSigner, secret: str | bytes) -> None:
    """Line breaks, NUL, DEL, C1, no UTF-8, nothing at all: the source is named, the secret is not."""
    said = refused(signer, secret)
    assert said.reason is Reason.LEASE_UNAVAILABLE
    assert said.detail.startswith('source "billing-key": the secret ')
    assert "abc" not in said.told()


@pytest.mark.parametrize(
    ("signer", "secret"),
    [
        (HeaderSigner("x-api-key"), "caf\u00e9"), (HeaderSigner("x-api-key"), " abc"), (HeaderSigner("x-api-key"), "abc "),
        (BearerSigner(), "a b"), (BearerSigner(), "a:b"), (BearerSigner(), "a=b"), (BearerSigner(), "=a"), (BearerSigner(), "\u00e9"),
        (CookieSigner("c"), "a;b"), (CookieSigner("c"), "a b"), (CookieSigner("c"), "a,b"), (CookieSigner("c"), 'a"b'),
        (CookieSigner("c"), "a\\b"), (CookieSigner("c"), "\u00e9"),
    ],
)  # fmt: skip
def test_what_the_place_cannot_carry_is_refused(signer: WireSigner, secret: str) -> None:
    """Each grammar ends somewhere; what lies beyond is refused and not quoted."""
    said = refused(signer, secret)
    assert said.reason is Reason.LEASE_UNAVAILABLE
    assert '"billing-key"' in said.detail
    assert "cannot carry" in said.detail


@pytest.mark.parametrize("signer", EVERY, ids=kind_of_signer)
def test_a_secret_too_long_for_servers_is_refused(signer: WireSigner) -> None:
    """8 KiB of a header's value, of a parameter, of a cookie: one more is refused, half of it is not."""
    assert "8192 are the most" in refused(signer, "a" * 8193).detail
    given_to(signer, "a" * 4000)


@pytest.mark.parametrize("user", ["a:b", "a\nb", "a\u0085b"])
def test_a_user_name_with_a_colon_is_refused(user: str) -> None:
    """The first colon ends the user id (RFC 7617 2)."""
    assert refused(BasicSigner(user), "abc").reason is Reason.RESOURCE_MALFORMED


@pytest.mark.parametrize("signer", [BearerSigner(), BasicSigner("svc")], ids=kind_of_signer)
def test_the_clients_own_authorization_goes(signer: WireSigner) -> None:
    """In every case, every time."""
    headers: list[tuple[str, Any]] = [("Authorization", "Bearer theirs"), ("accept", "*/*"), ("AUTHORIZATION", "Basic dGg6ZWlycw==")]
    sent = as_sent(given_to(signer, "ours", *headers), *headers)
    assert len(values("authorization", sent)) == 1
    assert "theirs" not in repr(sent)
    assert values("accept", sent) == ["*/*"]


def test_every_wire_signer_of_the_model_has_its_row() -> None:
    """What a document may name, keys can do."""
    assert {kind_of_signer(one) for one in EVERY} | {"oci"} == set(SIGNERS)
