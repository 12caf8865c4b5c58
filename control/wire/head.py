"""
Read the head of a request or of an answer, and refuse what can be read in two ways.

In: the bytes up to and including the first empty line.  Out: RequestHead or AnswerHead; HeadError with status and detail otherwise.
Two readers must agree: the grammar below (RFC 9112, without its leniencies) takes the head apart, and llhttp reads the same bytes after
it; a no of either is a no.  Nothing is repaired.  Pure.
"""

import re
from dataclasses import dataclass

import httptools

from control.reason import Reason

Fields = list[tuple[str, str]]
"""Header lines in order: name as it was sent, value without blanks around it; one character is one byte (latin-1)."""

_NAME_CHAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_VALUE = r"[\t\x20-\x7e\x80-\xff]"
_FIELD = rf"{_NAME_CHAR}++:[ \t]*+{_VALUE}*+\r\n"

# possessive quantifiers: no head makes the matcher go back; never around a capture, which CPython before 3.11.5 gets wrong (gh-101955)
_REQUEST = re.compile(rf"([A-Z][A-Z-]{{0,31}}+) ([\x21-\x7e]++) HTTP/1\.1\r\n((?:{_FIELD})*+)\r\n")
_ANSWER = re.compile(rf"HTTP/1\.([01]) ([1-9][0-9]{{2}})(?: ({_VALUE}*+))?\r\n((?:{_FIELD})*+)\r\n")
_FIELDS = re.compile(rf"({_NAME_CHAR}++):[ \t]*+({_VALUE}*+)\r\n")
_FIELD_LINES = re.compile(rf"(?:{_FIELD})*+")

_FIRST_LINE = re.compile(rb"[A-Z][A-Z-]{0,31}+ [\x21-\x7e]++ HTTP/1\.1")
_FIRST_LINE_BEGUN = re.compile(rb"(?:[A-Z][A-Z-]{0,31}+(?: (?:[\x21-\x7e]++(?: [HTP/1.]{0,8}\r?)?)?)?)?")
_BARE_LF = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,17})")

_ONCE = frozenset((
    "host", "content-length", "transfer-encoding", "authorization", "content-type", "content-encoding", "expect", "date", "x-date",
    "x-content-sha256", "te", "upgrade", "trailer",
))  # fmt: skip
"""Where two lines would let two readers choose differently."""
_NEVER_NOMINATED = _ONCE - {"te", "upgrade", "trailer"} | {"cookie", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
"""End-to-end fields that ``Connection`` must not make disappear (RFC 9110 section 7.6.1)."""
_SPECIAL = _ONCE | {"connection", "max-forwards", "http2-settings"}
_SPECIAL_ANSWER = frozenset(("content-length", "transfer-encoding", "connection"))

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "transfer-encoding", "upgrade")
)
"""Fields of one connection (RFC 9110 section 7.6.1); framing is written anew for the next one."""


class HeadError(Exception):
    """A head that is refused: ``status`` is for the client's answer (the upstream's heads are always 502)."""

    def __init__(self, detail: str, reason: Reason = Reason.REQUEST_MALFORMED, status: int = 400) -> None:
        super().__init__(detail)
        self.detail, self.reason, self.status = detail, reason, status


@dataclass(slots=True)
class RequestHead:
    """A request that can be read in one way only."""

    method: str
    target: str
    """Origin form, as sent: path and query."""
    path: str
    """``target`` up to the first question mark."""
    host: str
    """Value of Host, as sent; control/binding/canonical.py judges it."""
    fields: Fields
    length: int
    """Content-Length; 0 when there is none and the body is not chunked."""
    has_length: bool
    chunked: bool
    expects: bool
    """``Expect: 100-continue``"""
    keep_alive: bool
    nominated: frozenset[str]
    """Lower-case names that ``Connection`` lists beside close and keep-alive."""

    @property
    def has_body(self) -> bool:
        """Whether any body bytes may follow."""
        return self.chunked or self.length > 0


@dataclass(slots=True)
class AnswerHead:
    """The head of an answer of the far side."""

    status: int
    phrase: str
    fields: Fields
    length: int | None
    """Content-Length; None when it was not sent."""
    chunked: bool
    keep_alive: bool
    nominated: frozenset[str]


_NOTHING: frozenset[str] = frozenset()


def partial_fault(raw: bytes) -> str:
    """Say what is already wrong with a request head that has no end yet; empty while it may still become one."""
    if (found := _BARE_LF.search(raw)) is not None:
        return "a NUL byte" if raw[found.start()] == 0 else "a line end that is not CRLF"
    line, ended, _ = raw.partition(b"\r\n")
    if (_FIRST_LINE if ended else _FIRST_LINE_BEGUN).fullmatch(line) is None:
        return "the first line is not a request line of HTTP/1.1"
    return ""


def read_request(raw: bytes, *, max_fields: int, max_target: int) -> RequestHead:
    """Take a request head apart.  Raises HeadError."""
    text = raw.decode("latin-1")
    match = _REQUEST.fullmatch(text)
    if match is None:
        raise HeadError(_request_fault(text))
    method, target, lines = match.groups()
    if method in ("TRACE", "CONNECT"):
        raise HeadError(f"{method} is refused", Reason.METHOD_FORBIDDEN, 405)
    if len(target) > max_target:
        raise HeadError(f"the request target is over the limit of {max_target} bytes", Reason.REQUEST_HEAD_TOO_LARGE, 414)
    fields: Fields = _FIELDS.findall(lines)
    if len(fields) > max_fields:
        raise HeadError(f"more than {max_fields} header lines", Reason.REQUEST_HEAD_TOO_LARGE, 431)
    found: dict[str, str] = {}
    connection = ""
    for index, (name, value) in enumerate(fields):
        if value[-1:] in (" ", "\t"):  # the empty string is in neither
            value = value.rstrip(" \t")  # noqa: PLW2901  # the same value, trimmed
            fields[index] = (name, value)
        low = name.lower()
        if low in _SPECIAL:
            if low == "connection":
                connection = f"{connection},{value}" if connection else value
            elif low in found:
                raise HeadError(f"{low} stands twice")
            else:
                found[low] = value
        elif "_" in low and low.replace("_", "-") in _SPECIAL:
            raise HeadError(f"{low} looks like {low.replace('_', '-')} to some servers")
    keep_alive, nominated = _read_connection(connection)
    _refuse_protocol_changes(found, nominated)
    target, host = _read_target(method, target, found.get("host"))
    length, has_length, chunked = _read_request_framing(found)
    expects = _read_expect(found.get("expect"))
    _second_opinion_request(raw, method)
    path = target.partition("?")[0]
    return RequestHead(method, target, path, host, fields, length, has_length, chunked, expects, keep_alive, nominated)


def _refuse_protocol_changes(found: dict[str, str], nominated: frozenset[str]) -> None:
    if "upgrade" in found or "http2-settings" in found or "upgrade" in nominated:
        raise HeadError("the request asks to change the protocol", Reason.UPGRADE_FORBIDDEN, 400)
    if "max-forwards" in found:
        raise HeadError("Max-Forwards is refused: it makes intermediaries answer with the request they saw")
    if nominated and (hidden := nominated & _NEVER_NOMINATED):
        raise HeadError(f"Connection names {sorted(hidden)[0]}, which belongs to the whole path")


def _read_target(method: str, target: str, host: str | None) -> tuple[str, str]:
    """Give the target in origin form, and the Host."""
    if host is None:
        raise HeadError("Host is missing")
    if "#" in target:
        raise HeadError("the request target holds a fragment")
    if target[0] == "/":
        return target, host
    if target[:8].lower() == "https://":
        authority, slash, rest = target[8:].partition("/")
        if "?" in authority:
            raise HeadError("the request target has no path")
        if authority.lower() != host.lower():
            raise HeadError("the request target names another host than Host", Reason.HOST_MISMATCH, 421)
        return (slash + rest) or "/", host
    raise HeadError(f"the request target of {method} is not a path")


def _read_request_framing(found: dict[str, str]) -> tuple[int, bool, bool]:
    length, coding = found.get("content-length"), found.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise HeadError("both Content-Length and Transfer-Encoding")
        if coding.lower() != "chunked":
            raise HeadError("a Transfer-Encoding other than chunked", status=501)
        return 0, False, True
    if length is None:
        return 0, False, False
    if not _LENGTH.fullmatch(length):
        raise HeadError("Content-Length is not a plain number")
    return int(length), True, False


def _read_expect(value: str | None) -> bool:
    if value is None:
        return False
    if value.lower() != "100-continue":
        raise HeadError("Expect asks for something other than 100-continue", status=417)
    return True


def _read_connection(value: str) -> tuple[bool, frozenset[str]]:
    """Give whether the connection may stay open, and what else is nominated."""
    if not value:
        return True, _NOTHING
    low = value.lower()
    if low == "keep-alive":
        return True, _NOTHING
    if low == "close":
        return False, _NOTHING
    names = {name.strip(" \t") for name in low.split(",")} - {""}
    return "close" not in names, frozenset(names - {"close", "keep-alive"})


def read_answer(raw: bytes, *, max_fields: int) -> AnswerHead:
    """Take the head of an answer apart.  Raises HeadError."""
    text = raw.decode("latin-1")
    match = _ANSWER.fullmatch(text)
    if match is None:
        raise HeadError(_answer_fault(text))
    minor, status, phrase, lines = match.groups()
    fields: Fields = _FIELDS.findall(lines)
    if len(fields) > max_fields:
        raise HeadError(f"more than {max_fields} header lines")
    found: dict[str, str] = {}
    connection = ""
    for index, (name, value) in enumerate(fields):
        if value[-1:] in (" ", "\t"):
            value = value.rstrip(" \t")  # noqa: PLW2901  # the same value, trimmed
            fields[index] = (name, value)
        low = name.lower()
        if low in _SPECIAL_ANSWER:
            if low == "connection":
                connection = f"{connection},{value}" if connection else value
            elif low in found:
                raise HeadError(f"{low} stands twice")
            else:
                found[low] = value
    keep_alive, nominated = _read_connection(connection)
    if nominated & _NEVER_NOMINATED:
        raise HeadError("Connection names a field that belongs to the whole path")
    length: int | None = None
    if (text_length := found.get("content-length")) is not None:
        if not _LENGTH.fullmatch(text_length):
            raise HeadError("Content-Length is not a plain number")
        length = int(text_length)
    coding = found.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise HeadError("both Content-Length and Transfer-Encoding")
        if coding.lower() != "chunked":
            raise HeadError("a Transfer-Encoding other than chunked")
        if minor == "0":
            raise HeadError("Transfer-Encoding in HTTP/1.0")
    _second_opinion_answer(raw, int(status))
    return AnswerHead(int(status), phrase or "", fields, length, coding is not None, keep_alive and minor == "1", nominated)


def read_trailers(raw: bytes, *, max_fields: int) -> Fields:
    """Take trailer lines (each with its CRLF, without the empty line) apart.  Raises HeadError."""
    text = raw.decode("latin-1")
    if _FIELD_LINES.fullmatch(text) is None:
        raise HeadError("a malformed trailer")
    fields = [(name, value.rstrip(" \t")) for name, value in _FIELDS.findall(text)]
    if len(fields) > max_fields:
        raise HeadError(f"more than {max_fields} trailer lines")
    for name, _ in fields:
        low = name.lower().replace("_", "-")
        if low in _NEVER_IN_TRAILERS or low in HOP_BY_HOP:
            raise HeadError(f"{low} must not stand in a trailer")
    return fields


_NEVER_IN_TRAILERS = _SPECIAL | {"cookie", "set-cookie", "location", "alt-svc", "cache-control", "content-range", "www-authenticate"}
"""Framing, routing, authentication and content description (RFC 9110 section 6.5.1)."""


# ---- the second reader ---------------------------------------------------------------------------------------------------------------


class _Heard:
    """llhttp's callbacks; no header callback, so the names and values stay in C."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


def _second_opinion_request(raw: bytes, method: str) -> None:
    heard = _Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise HeadError(f"llhttp: {error}".rstrip()) from None
    if not heard.complete or parser.get_method() != method.encode() or parser.get_http_version() != "1.1":
        raise HeadError("two readers disagree about the head")


def _second_opinion_answer(raw: bytes, status: int) -> None:
    heard = _Heard()
    parser = httptools.HttpResponseParser(heard)
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise HeadError(f"llhttp: {error}".rstrip()) from None
    if not heard.complete or parser.get_status_code() != status:
        raise HeadError("two readers disagree about the head")


# ---- saying what is wrong, off the fast path ---------------------------------------------------------------------------------------------


def _request_fault(text: str) -> str:
    line, _, rest = text.partition("\r\n")
    parts = line.split(" ")
    if (fault := _line_end_fault(text)) is not None:
        return fault
    if len(parts) == 3 and re.fullmatch(r"HTTP/[0-9.]+", parts[2]) and parts[2] != "HTTP/1.1":
        return f"{parts[2]} is not served here, only HTTP/1.1"
    if re.fullmatch(r"[A-Z][A-Z-]{0,31} [\x21-\x7e]+ HTTP/1\.1", line) is None:
        return "the first line is not a request line of HTTP/1.1"
    return _fields_fault(rest)


def _answer_fault(text: str) -> str:
    line, _, rest = text.partition("\r\n")
    if (fault := _line_end_fault(text)) is not None:
        return fault
    if re.fullmatch(rf"HTTP/1\.[01] [1-9][0-9]{{2}}(?: {_VALUE}*)?", line) is None:
        return "the first line is not a status line of HTTP/1"
    return _fields_fault(rest)


def _line_end_fault(text: str) -> str | None:
    if "\0" in text:
        return "a NUL byte"
    if re.search(r"(?<!\r)\n|\r(?!\n)", text):
        return "a line end that is not CRLF"
    return None


def _fields_fault(lines: str) -> str:
    for line in lines.split("\r\n"):
        if not line:
            continue
        name, colon, _ = line.partition(":")
        if line[0] in " \t":
            return "a folded header line"
        if not colon:
            return "a header line without a colon"
        if name != name.rstrip(" \t"):
            return "a blank before the colon of a header"
        if re.fullmatch(rf"{_NAME_CHAR}+", name) is None:
            return "a header name with a character that is not allowed"
        if re.fullmatch(rf"{_FIELD}", line + "\r\n") is None:
            return "a header value with a control character"
    return "the head is not well-formed"
