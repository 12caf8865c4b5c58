"""
Make text from strangers harmless to the eye.

In: strings that a workload or a far side chose.  Out: strings that lead no terminal, log viewer or reader of left-to-right script astray.
Pure.
"""

import re
from typing import Final

_LOOKS: Final = "\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""
What JSON leaves alone and a terminal or viewer obeys: DEL and C1 controls, line and paragraph separators, invisible and bidirectional marks
(Unicode TR 36 and 39).
"""

_IN_JSON: Final = re.compile(f"[{_LOOKS}]")
_IN_TEXT: Final = re.compile(f"[\x00-\x1f\ud800-\udfff{_LOOKS}]")


def plain(text: str) -> str:
    """Write what would be obeyed as ``\\x1b`` or ``\\u202e``; line ends too, so that one value stays one line."""
    return _IN_TEXT.sub(lambda m: m[0].encode("ascii", "backslashreplace").decode() if ord(m[0]) > 0x7F else f"\\x{ord(m[0]):02x}", text)


def harmless_json(document: bytes) -> bytes:
    """
    Write what would be obeyed as a JSON escape; the document decodes to the same values.

    Outside of strings JSON is ASCII without these, so an escape put here always lands inside a string.
    """
    if document.isascii() and 0x7F not in document:
        return document
    return _IN_JSON.sub(_escape, document.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    if point < 0x10000:
        return f"\\u{point:04x}"
    high, low = divmod(point - 0x10000, 0x400)  # RFC 8259 section 7: a surrogate pair
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
