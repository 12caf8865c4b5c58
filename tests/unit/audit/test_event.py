"""A line of the audit is one line, whole and harmless, whatever an attacker asked for."""

import json

import msgspec
import pytest

from control.audit.event import EVENTS, LINE_MAX, LONG_MAX, TEXT_MAX, Event, cut, decode, encode, from_fields
from control.reason import Reason


def test_line_keeps_order_and_leaves_out_what_is_empty() -> None:
    """Fields come in the order of the class; empty ones do not come at all, but uid 0 does: it is root."""
    event = Event(at=1.5, id="ab", event="request-signed", reason=Reason.GRANTED, uid=0, status=200, speaker="keys")
    assert encode(event) == b'{"at":1.5,"id":"ab","event":"request-signed","reason":"granted","uid":0,"status":200,"speaker":"keys"}\n'
    assert decode(encode(event)) == event


def test_line_cannot_be_forged_through_a_value() -> None:
    """C3: line ends, escapes, C1 controls, separators and bidirectional marks arrive as escapes and decode to what was asked."""
    evil = '/a\n{"event":"request-signed"}\r\x1b[2J\x9b\x7f\u2028\u202e\ufeff\U000e0041\0é'
    line = encode(Event(event="request-refused", path=evil))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert not any(c < 0x20 or c == 0x7F for c in line[:-1])
    assert not set("\x9b\u2028\u202e\ufeff\U000e0041") & set(line.decode())
    assert "é" in line.decode()  # harmless letters stay readable
    assert decode(line).path == json.loads(line)["path"] == evil


def test_lone_surrogate_does_not_stop_the_audit() -> None:
    """A file name that is not UTF-8 is written visibly instead of raising."""
    assert decode(encode(Event(event="request-refused", exe="/tmp/\udcff"))).exe == "/tmp/\\udcff"


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Event) if field.type is str])
def test_every_text_is_cut_with_a_mark(name: str) -> None:
    """A long value is cut to its cap and says how much is missing; a value at its cap is left alone."""
    most = LONG_MAX.get(name, TEXT_MAX)
    whole = decode(encode(Event(event="request-refused", **{name: "x" * most})))
    long = decode(encode(Event(event="request-refused", **{name: "x" * (most + 500)})))
    assert getattr(whole, name) == "x" * most
    assert len(getattr(long, name)) == most
    assert getattr(long, name).endswith("characters]")


def test_widest_line_stays_under_its_bound() -> None:
    """Even with every value at its cap and every character escaped at its widest, a line is bounded."""
    names = [field.name for field in msgspec.structs.fields(Event) if field.type is str]
    line = encode(Event(event="request-refused", **dict.fromkeys(names, "\U000e0041" * 5000)))
    assert len(line) <= 2 * LINE_MAX
    assert len(decode(line).path) == LONG_MAX["path"]


def test_cut_leaves_short_text_alone() -> None:
    """What fits is not touched; what does not ends in its mark."""
    assert cut("abc", 3) == "abc"
    assert cut("x" * 100, 40) == "x" * 23 + " [+60 characters]"


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"event":"x","secret":"y"}', b'{"event":"Not A Word"}', b'{"event":"x","reason":"nonsense"}', b'{"event":"x"', b"[]"],
)
def test_foreign_lines_are_refused(line: bytes) -> None:
    """Unknown fields, unknown reasons, wrong words and torn lines are no events."""
    with pytest.raises(msgspec.DecodeError):
        decode(line)


def test_fields_from_another_process_are_typed() -> None:
    """What keys and exchange send becomes an Event, or names the field that is wrong."""
    assert from_fields({"event": "exchange-failed", "reason": "exchange-timeout", "issue": 2}).reason is Reason.EXCHANGE_TIMEOUT
    with pytest.raises(msgspec.ValidationError, match=r"\$\.pid"):
        from_fields({"event": "exchange-failed", "pid": "1"})
    with pytest.raises(msgspec.ValidationError, match="unknown field `token`"):
        from_fields({"event": "exchange-failed", "token": "s3cret"})


def test_every_listed_word_is_a_word() -> None:
    """The vocabulary obeys the pattern it is checked by."""
    for word in EVENTS:
        assert decode(encode(Event(event=word))).event == word
