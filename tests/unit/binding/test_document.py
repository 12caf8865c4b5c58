"""
Strict YAML: what two readers could understand differently is refused, and every node knows its line and column.

Columns count characters from 1, as editors show them; CRLF is one line end.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.binding.document import MAX_DEPTH, Listing, Mapping, Node, Scalar, parse
from control.errors import ResourceError


def one(text: str) -> Node:
    """The only document of a text."""
    (node,) = parse("a.yaml", text)
    return node


def value(text: str) -> object:
    """The value of ``k`` in a mapping with that key alone."""
    node = one(text)
    assert isinstance(node, Mapping)
    found = node.entries["k"].value
    assert isinstance(found, Scalar)
    return found.value


def error(text: str) -> tuple[str, str]:
    """Line and column, and the sentence, of the first error."""
    with pytest.raises(ResourceError) as caught:
        parse("a.yaml", text)
    assert caught.value.hint
    return str(caught.value.place).removeprefix("a.yaml:"), caught.value.message


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None), ("0", 0), ("-7", -7), ("443", 443),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("True", "True"), ("NULL", "NULL"), ("010", "010"), ("0x1F", "0x1F"), ("0o17", "0o17"),
        ("1_000", "1_000"), ("1e3", "1e3"), ("1.5", "1.5"), (".inf", ".inf"), ("+1", "+1"), ("-0", 0), ("2026-01-31", "2026-01-31"),
        ("12:30:45", "12:30:45"), ("99999999999999999999", "99999999999999999999"), ("=", "="), ("'443'", "443"), ('"true"', "true"),
        ("''", ""), ("'it''s'", "it's"), ('"\\u00e9\\x41"', "éA"), ("|\n  a\n  b\n", "a\nb\n"), (">-\n  a\n  b\n", "a b"),
        ("a b # c", "a b"),
        ("a:b", "a:b"), ("a#b", "a#b"), ("a\n  b", "a b"), ("-a", "-a"), ("ünïcödé", "ünïcödé"),
    ],
)  # fmt: skip
def test_a_scalar_means_what_it_looks_like(written: str, means: object) -> None:
    """YAML 1.2 core without floats, octals and their kin; quoted ones are text."""
    found = value(f"k: {written}\n")
    assert found == means
    assert type(found) is type(means)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("k: 1\nk: 2\n", "2:1", '"k" is here a second time; the first is at line 1'),
        ("{k: 1, 'k': 2}\n", "1:8", "a second time"),
        ("k: &a 1\n", "1:4", "anchor"),
        ("&a k: 1\n", "1:1", "anchor"),
        ("k: &a {}\n", "1:4", "anchor"),
        ("k: *a\n", "1:4", "alias"),
        ("*a : 1\n", "1:1", "alias"),
        ("- *a\n", "1:3", "alias"),
        ("k: !!int 1\n", "1:4", "tag"),
        ("k: ! 1\n", "1:4", "tag"),
        ("k: !x [1]\n", "1:4", "tag"),
        ("!!map {k: 1}\n", "1:1", "tag"),
        ("%YAML 1.2\n---\nk: 1\n", "1:1", "directive"),
        ("%TAG ! tag:x,2026:\n---\nk: 1\n", "1:1", "directive"),
        ("<<: {k: 1}\n", "1:1", "merge key"),
        ("k:\n\tl: 1\n", "2:1", "tab"),
        ("k: 'a\tb'\n", "1:6", "tab"),
        ('k: "a\\tb"\n', "1:4", "tab"),
        ("\ufeffk: 1\n", "1:1", "byte order mark"),
        ("k: a\ufeff\n", "1:5", "byte order mark"),
        ("k: a\u200bb\n", "1:5", "U+200B ZERO WIDTH SPACE"),
        ("é: a\u00a0b\n", "1:5", "U+00A0 NO-BREAK SPACE"),
        ("k: a\u2028l: b\n", "1:5", "U+2028 LINE SEPARATOR"),
        ("k: a\u0085l: b\n", "1:5", "U+0085"),
        ("k: 1\rl: 2\n", "1:5", "U+000D"),
        ("k: a\u202eb\n", "1:5", "RIGHT-TO-LEFT OVERRIDE"),
        ("k: \x00\n", "1:4", "U+0000"),
        ("k: \x1b[2J\n", "1:4", "U+001B"),
        ('k: "\\u200b"\n', "1:4", "ZERO WIDTH SPACE"),
        ('k: "\\N\\_\\L\\P"\n', "1:4", "U+0085"),
        ('k: "\\0"\n', "1:4", "U+0000"),
        ('k: "\\e[2J"\n', "1:4", "U+001B"),
        ('"\\u200b": 1\n', "1:1", "ZERO WIDTH SPACE"),
        ("1: a\n", "1:1", "a key is the number 1"),
        ("true: a\n", "1:1", "a key is the truth value true"),
        ("? [a]\n: 1\n", "1:3", "a key is a list"),
        ("{a: 1}: 1\n", "1:1", "a key is a mapping"),
        ("~: 1\n", "1:1", "a key is nothing"),
    ],
)
def test_what_could_be_understood_differently_is_refused_where_it_stands(text: str, place: str, says: str) -> None:
    """Duplicates, references, types, directives, and what nobody can see, also behind an escape."""
    where, message = error(text)
    assert says in message
    assert where == place


@pytest.mark.parametrize(
    "text",
    ["k: [1", "k: {a", "k: 'a", 'k: "a', 'k: "\\q"', "k: a: b", "- a\nk: b", "k: @a", "k: `a", "k: %a", "k: |x\n", "a\n---\n b: c\n d"],
)
def test_what_is_no_yaml_ends_with_a_place(text: str) -> None:
    """The parser's sentence, on one line, with a hint."""
    where, message = error(text + "\n")
    assert int(where.split(":")[0]) >= 1
    assert message and "\n" not in message


def test_places_count_characters_and_crlf_is_one_line_end() -> None:
    """Beside letters of several bytes, and beyond the sixteen bits."""
    for newline in ("\n", "\r\n"):
        node = one(newline.join(["# é𝔘", "é𝔘: [a, 'ü', b]", "nested:", "  - {x: 1, y: z}", ""]))
        assert isinstance(node, Mapping)
        assert [str(entry.place) for entry in node.entries.values()] == ["a.yaml:2:1", "a.yaml:3:1"]
        row = node.entries["é𝔘"].value
        assert isinstance(row, Listing)
        assert [item.place.column for item in row.items] == [6, 9, 14]
        nested = node.entries["nested"].value
        assert isinstance(nested, Listing)
        inner = nested.items[0]
        assert isinstance(inner, Mapping)
        assert [(str(entry.place), entry.value.place.column) for entry in inner.entries.values()] == [
            ("a.yaml:4:6", 9),
            ("a.yaml:4:12", 15),
        ]


def test_documents_are_told_apart_and_empty_ones_left_out() -> None:
    """By ---, also after an end mark."""
    assert [getattr(node, "value", None) for node in parse("a", "---\na\n---\n---\n# c\n---\nb\n...\n---\nc\n")] == ["a", "b", "c"]
    assert parse("a", "") == []
    assert parse("a", "# only\n") == []


def test_depth_has_an_end() -> None:
    """Levels within the bound are read, one more is an error and not a recursion."""
    assert isinstance(one("[" * MAX_DEPTH + "]" * MAX_DEPTH + "\n"), Listing)
    assert "deeper" in error("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2) + "\n")[1]
    assert "deeper" in error("{a: " * 3000 + "}" * 3000 + "\n")[1]


def test_a_file_that_is_too_long_is_not_parsed() -> None:
    """Four million characters."""
    assert "longer than" in error("# " + "x" * (4 << 20) + "\n")[1]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{},'\"|>&*!%#? \n\r\t\\0é\u200b~1.<"), max_size=60))
def test_any_text_gives_documents_or_an_error_with_a_place(text: str) -> None:
    """Invariant: nothing but ResourceError leaves parse, and it has a place."""
    try:
        parse("a.yaml", text)
    except ResourceError as found:
        assert found.place is not None
        assert found.place.line >= 1
        assert found.place.column >= 1
