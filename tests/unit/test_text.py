"""Text from strangers is harmless to the eye."""

import json

from control.text import harmless_json, plain


def test_plain_text_is_one_harmless_line() -> None:
    """Controls, line ends, direction marks, invisible tags and lone surrogates are written out; letters of any script stay."""
    assert plain("a\x1b[2J\r\nb\x7f\x9b\u202e\u2028\U000e0041\udcff é 日本") == (
        "a\\x1b[2J\\x0d\\x0ab\\x7f\\x9b\\u202e\\u2028\\U000e0041\\udcff é 日本"
    )


def test_json_keeps_its_meaning() -> None:
    """The document decodes to the same values, and what was harmless already is the same bytes."""
    value = {"k\u202e": "\x7f\x9b\ufeff\U000e0041 é"}
    raw = json.dumps(value, ensure_ascii=False).encode()
    assert json.loads(harmless_json(raw)) == value
    assert not set("\x7f\x9b\ufeff\u202e\U000e0041") & set(harmless_json(raw).decode())
    assert harmless_json(b'{"a":1}') == b'{"a":1}'
