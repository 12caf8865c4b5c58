"""One spelling per host, and no path that can be read in two ways."""

import string
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.binding.canonical import Authority, authority, host_name, is_address, path_fault, path_meaning, shown
from control.errors import Refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a-b.c1.example", "a-b.c1.example"),
        ("1e100.net", "1e100.net"),
    ],
)
def test_a_name_gets_one_spelling(text: str, expected: str) -> None:
    """Lower case; A-labels stay as they are."""
    assert host_name(text) == expected
    assert host_name(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", ".a.b", "a.b.", "a b.c", "a_b.c", "-a.b", "a-.b", "a" * 64 + ".b", "a." * 130 + "b",
        "user@a.b", "u:p@a.b", "a.b/c", "a.b?c", "a.b#c", "a.b\\c", "a%2eb.c", "a.b\r\n", "a.b\0", "*.a.b",
        "bücher.example", "аpi.example.com", "ａ.example", "a。b", "ı.example",
        "10.0.0.1", "127.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001", "::1", "[::1]", "[::ffff:1.2.3.4]", "fe80::1%eth0",
        "a.b.0x1f", "a.b.12", "1.2.3.4.5",
    ],
)  # fmt: skip
def test_what_is_no_plain_name_is_refused(text: str) -> None:
    """Trailing dots, user information, non-ASCII and its look-alikes, and addresses in every notation."""
    found = host_name(text)
    assert isinstance(found, Refusal), found
    assert found.detail.isprintable()
    assert found.detail.isascii()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", Authority("a.example", 443)),
        ("A.example:443", Authority("a.example", 443)),
        ("a.example:8443", Authority("a.example", 8443)),
    ],
)
def test_a_port_is_split_off(text: str, expected: Authority) -> None:
    """The default where there is none."""
    assert authority(text, default_port=443) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a.b:",
        "a.b:0",
        "a.b:0443",
        "a.b:65536",
        "a.b:99999999",
        "a.b:44 3",
        "a.b:+443",
        "a.b:443:443",
        "[::1]:443",
        "u@a.b:443",
        ":443",
        "a.b:٤٤٣",
    ],
)
def test_a_bad_port_is_refused(text: str) -> None:
    """Empty, zero, leading zeros, too large, doubled, in other digits."""
    assert isinstance(authority(text, default_port=443), Refusal)


@given(st.text(max_size=40))
def test_no_text_has_two_canonical_forms(text: str) -> None:
    """What comes out goes in again unchanged, is lower-case ASCII, and is no address."""
    found = host_name(text)
    if isinstance(found, str):
        assert host_name(found) == found
        assert found == text.lower()
        assert set(found) <= set(string.ascii_lowercase + string.digits + "-.")
        assert not is_address(found)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/a", "/a/", "/a:b@c,d+e", "/...", "/a/.b/c..",
        "/20160918/users/ocid1.user.oc1..aaaa", "/n/ns/b/bucket/o/file.txt",
        "/%C3%BC", "/a%20b", "/a%3Ab", "/%7Euser", "/a%2Db", "/~a!$&'()*+,=",
    ],
)  # fmt: skip
def test_a_path_with_one_reading_is_good(path: str) -> None:
    """Escapes of ordinary characters are no second path: they mean the character."""
    assert path_fault(path) == ""


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "slash"), ("a", "slash"), ("*", "slash"), ("http://a/b", "slash"),
        ("/a//b", "double slash"), ("//a", "double slash"), ("/a//", "double slash"),
        ("/.", "dot segment"), ("/a/..", "dot segment"), ("/a/./b", "dot segment"), ("/a/../b", "dot segment"),
        ("/%2e%2e/a", "dot segment"), ("/.%2E/a", "dot segment"), ("/a/%2e", "dot segment"),
        ("/a%2fb", "encoded slash"), ("/a%2Fb", "encoded slash"), ("/a%5cb", "encoded backslash"), ("/a\\b", "backslash"),
        ("/a;b", "semicolon"), ("/a%3Bb", "encoded semicolon"), ("/a;jsessionid=1/b", "semicolon"),
        ("/a%252fb", "encoded percent"), ("/a%25", "encoded percent"),
        ("/a%", "no escape"), ("/a%2", "no escape"), ("/a%zz", "no escape"), ("/a%u002f", "no escape"),
        ("/a%00", "control"), ("/a%0d%0aX: y", "unencoded"), ("/a%0d%0a", "control"), ("/a%7f", "control"), ("/a%C2%85", "control"),
        ("/a b", "unencoded"), ("/a\tb", "unencoded"), ("/a\x00", "unencoded"), ("/ü", "unencoded"),
        ("/a?b", "question mark"), ("/a#b", "number sign"), ("/a%3Fb", "encoded question mark"), ("/a%23b", "encoded number sign"),
        ("/%c0%af", "UTF-8"), ("/%e0%80%af", "UTF-8"), ("/%ff", "UTF-8"),
        ("/%EF%BC%8Fa", "normalisation"), ("/u%CC%88", "normalisation"), ("/%E2%80%A5", "normalisation"),
        ("/" + "a" * 20000, "longer"),
    ],
)  # fmt: skip
def test_a_path_with_two_readings_is_named(path: str, says: str) -> None:
    """Each trick is refused for its own reason."""
    assert says in path_fault(path)


segment = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\;?#%", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=6
)


@given(st.lists(segment, min_size=1, max_size=4), st.data())
def test_every_encoding_of_a_path_means_the_same(segments: list[str], data: st.DataObject) -> None:
    """However the characters of a path are escaped, it is either refused or has the meaning of the plain one."""
    plain = "/" + "/".join(segments)
    encoded = "".join(
        sign
        if sign == "/"
        else data.draw(st.sampled_from([quote(sign, safe=string.punctuation), "".join(f"%{b:02X}" for b in sign.encode())]))
        for sign in plain
    )
    assert unquote(encoded) == plain
    if not path_fault(encoded):
        assert path_meaning(encoded) == plain


@given(st.text(max_size=30))
def test_a_good_path_survives_a_second_decoding(path: str) -> None:
    """Whoever decodes twice sees what we matched: no double encodings get through."""
    if not path_fault(path):
        meaning = path_meaning(path)
        assert unquote(meaning) == meaning
        assert not set(meaning) & set("\\;?#%")
        assert "//" not in meaning.rstrip("/") + "/"
        assert not {".", ".."} & set(meaning.split("/"))


def test_hostile_text_is_shown_short_and_printable() -> None:
    """Messages carry no control bytes and no kilobytes."""
    assert shown("a\x1b[2Jü" + "x" * 500).isascii() is False  # the ellipsis
    assert len(shown("\x00" * 500)) < 500
    assert "\x1b" not in shown("\x1b")
