"""Saying no without reading: the bytes of control/api/refusal.py (a real gRPC client hears them in test_admin.py)."""

import pytest

from control.api.refusal import HEAD_MAX, PREFACE, answer, first_stream, greeting


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def test_first_stream_is_found_however_the_bytes_arrive() -> None:
    """Settings and window updates are walked over; every prefix asks for more until the HEADERS frame's head is there."""
    said = PREFACE + frame(4, 0, b"\0" * 12) + frame(8, 0, b"\0\0\1\0") + frame(1, 5, b"x" * 40)
    head = said.index(frame(1, 5, b"x" * 40)) + 9
    for cut in range(len(said)):
        assert first_stream(said[:cut]) == (5 if cut >= head else None)


@pytest.mark.parametrize("said", [b"G", b"PRI * HTTP/1", b"\0", PREFACE + b"\0" * HEAD_MAX])
def test_who_is_no_client_is_not_waited_for(said: bytes) -> None:
    """A first wrong byte is enough, and so is too much talk."""
    with pytest.raises(ValueError, match=r"not an HTTP/2 client|too much"):
        first_stream(said)


def test_answer_is_one_headers_frame_and_goodbye() -> None:
    """HEADERS ends the stream; long values carry their length as HPACK wants it."""
    said = answer(5, 7, "no: é%", {"credwire-hint-bin": "A" * 300})
    length = int.from_bytes(said[:3], "big")
    assert said[3:9] == bytes((1, 5)) + (5).to_bytes(4, "big")
    assert b"\x0cgrpc-message\x0dno: %C3%A9%25" in said
    assert b"\x7f\xad\x01" + b"A" * 300 in said  # 300 = 127 + 173, RFC 7541 5.1
    assert said[9 + length + 3] == 7
    assert greeting()[3] == greeting()[12] == 4
