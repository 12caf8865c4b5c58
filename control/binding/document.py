"""
Read strict YAML into nodes that know their place.

In: a file's name and text.  Out: documents of Mapping, Listing and Scalar nodes, or the first error that makes the rest unreadable.
What two readers could understand differently is refused: duplicate keys, anchors, aliases, merge keys, tags, directives, tabs, byte order
marks, invisible characters.  Scalars follow the YAML 1.2 core schema without floats, octals and their kin: ``no`` is a word, ``010`` too.
Used for resources and for credwired.yaml.  Pure.

libyaml reads the YAML (docs/decisions/0013); it counts columns in characters, as people do.  What it would take for a line end and an
editor would not (U+0085, U+2028, U+2029, a lone carriage return) is refused before it sees it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from yaml._yaml import CParser  # what yaml.CLoader is made of, without its constructor
from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from control.errors import Place, ResourceError
from control.reason import Reason

MAX_TEXT = 4 << 20
"""Characters of one file (docs/limits.md)."""
MAX_DEPTH = 16
"""Levels of nesting; our kinds need six."""

_HINT = "check indentation, colons and quotes; the file may be half-written"
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_ODD = re.compile(r"[^\r\n -~]|\r(?!\n)")
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}


class _Mark(Protocol):
    """Where the parser was; counts from 0."""

    line: int
    column: int


class _Placed:
    """Knows its place; a Place is made when somebody asks, which for nearly every node nobody does."""

    __slots__ = ("_file", "_mark")

    def __init__(self, file: str, mark: _Mark) -> None:
        self._file, self._mark = file, mark

    @property
    def place(self) -> Place:
        """File, line and column."""
        return Place(self._file, self._mark.line + 1, self._mark.column + 1)


class Scalar(_Placed):
    """One value."""

    __slots__ = ("text", "value")

    def __init__(self, file: str, mark: _Mark, value: str | int | bool | None, text: str) -> None:
        """``text`` is the value as written, without quotes."""
        self._file, self._mark, self.value, self.text = file, mark, value, text


class Listing(_Placed):
    """A sequence."""

    __slots__ = ("items",)

    def __init__(self, file: str, mark: _Mark, items: tuple["Node", ...]) -> None:
        self._file, self._mark, self.items = file, mark, items


class Entry(_Placed):
    """One key of a mapping; its place is the key's."""

    __slots__ = ("value",)

    def __init__(self, file: str, mark: _Mark, value: "Node") -> None:
        self._file, self._mark, self.value = file, mark, value


class Mapping(_Placed):
    """Keys are text and unique."""

    __slots__ = ("entries",)

    def __init__(self, file: str, mark: _Mark, entries: dict[str, Entry]) -> None:
        self._file, self._mark, self.entries = file, mark, entries


Node = Scalar | Listing | Mapping


def kind_of(node: Node) -> str:
    """Name a node's type for people."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Listing):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the truth value {node.text}"
    if isinstance(node.value, int):
        return f"the number {node.text}"
    return f'"{node.text[:40]}"'


def parse(file: str, text: str) -> list[Node]:
    """
    Give the documents of one file; empty documents are left out.

    Raises ResourceError (RESOURCE_MALFORMED or RESOURCE_DUPLICATE) with the place of the first thing that is wrong.
    """
    _check_characters(file, text)
    try:
        return list(_Builder(file, CParser(text).get_event).documents())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context in ("while scanning a simple key", "while scanning a quoted scalar"):
            mark = error.context_mark  # where it began, rather than where it became clear that it does not end
        place = Place(file, mark.line + 1, mark.column + 1) if mark is not None else Place(file, 1, 1)
        problem = " ".join(str(error.problem or error.context or "it is not YAML").split())
        raise ResourceError(Reason.RESOURCE_MALFORMED, problem, place=place, hint=_HINT) from error
    except YAMLError as error:
        raise ResourceError(Reason.RESOURCE_MALFORMED, "it is not YAML", place=Place(file, 1, 1)) from error


def _check_characters(file: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        _fail(Place(file, 1, 1), f"the file is longer than {MAX_TEXT} characters", "split it")
    for found in _ODD.finditer(text):
        fault = _odd(found[0])
        if fault is not None:
            before = text[: found.start()]
            line = before.count("\n") + 1
            _fail(Place(file, line, found.start() - (before.rfind("\n") + 1) + 1), *fault)


def _odd(sign: str) -> tuple[str, str] | None:
    """Give (what is wrong, hint) for a character that nobody can see; None for ordinary ones."""
    if sign == "\t":
        return "a tab is not allowed", "indent and separate with blanks"
    if sign == "\ufeff":
        return "a byte order mark is not allowed", "save the file as UTF-8 without BOM"
    if unicodedata.category(sign)[0] in "CZ":
        return f"the character {character(sign)} is not allowed", "remove it; it cannot be seen"
    return None


def character(sign: str) -> str:
    """Name a character so that a look-alike is told from what it looks like."""
    name = unicodedata.name(sign, "without a name")
    return f"U+{ord(sign):04X} {name}"


def _fail(place: Place, message: str, hint: str, reason: Reason = Reason.RESOURCE_MALFORMED) -> NoReturn:
    raise ResourceError(reason, message, place=place, hint=hint)


class _Builder:
    """Turns the parser's events into nodes."""

    def __init__(self, file: str, following: Callable[[], Any]) -> None:
        self.file, self.following = file, following
        self.values: dict[str, str | int | bool | None] = {}
        """Of plain scalars that were looked at; the same few words recur in every document."""

    def documents(self) -> Iterator[Node]:
        while True:
            event = self.following()
            kind = type(event)
            if kind is StreamEndEvent:
                return
            if kind is DocumentStartEvent:
                if event.version is not None or event.tags:
                    _fail(self.place(event), "a directive is not allowed", "remove the lines that begin with %")
                node = self.node(self.following(), 0)
                if not (isinstance(node, Scalar) and node.value is None):
                    yield node

    def place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def node(self, event: Any, depth: int) -> Node:
        kind, mark = type(event), event.start_mark
        if kind is ScalarEvent:
            return Scalar(self.file, mark, self.value(event), event.value)
        if kind is AliasEvent or event.anchor is not None or event.tag is not None:
            self.bare(event)
        if depth > MAX_DEPTH:
            _fail(self.place(event), f"nested deeper than {MAX_DEPTH} levels", "no kind needs that")
        if kind is MappingStartEvent:
            return Mapping(self.file, mark, self.entries(depth + 1))
        assert kind is SequenceStartEvent  # noqa: S101  # the parser knows no other event that begins a node
        items = []
        while type(event := self.following()) is not SequenceEndEvent:
            items.append(self.node(event, depth + 1))
        return Listing(self.file, mark, tuple(items))

    def bare(self, event: Any) -> None:
        """Refuse what stands before a value and means something else than it."""
        if type(event) is AliasEvent:
            _fail(self.place(event), f'the alias "*{event.anchor}" is not allowed', "write the value out; quote text that begins with *")
        if event.anchor is not None:
            _fail(self.place(event), f'the anchor "&{event.anchor}" is not allowed', "remove it; aliases are not understood here")
        if event.tag is not None:
            _fail(self.place(event), f'the tag "{event.tag}" is not allowed', "remove it; types follow from the fields")

    def value(self, event: Any) -> str | int | bool | None:
        """Give what a scalar means."""
        if event.anchor is not None or event.tag is not None:
            self.bare(event)
        text: str = event.value
        if event.style:
            if event.style == '"':
                self.visible(event)
            return text
        if text not in self.values:
            self.values[text] = _CONSTANTS.get(text, int(text) if _INT.fullmatch(text) else text)
        return self.values[text]

    def visible(self, event: Any) -> None:
        """Refuse what an escape such as "\\u200b" puts in and the file itself does not show; only double quotes know escapes."""
        text: str = event.value
        if text.isascii() and text.isprintable():
            return
        for found in _ODD.finditer(text):
            fault = _odd(found[0])
            if fault is not None:
                _fail(self.place(event), *fault)

    def entries(self, depth: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        file, following, value = self.file, self.following, self.value
        while type(event := following()) is not MappingEndEvent:
            name = value(event) if type(event) is ScalarEvent else None
            if type(name) is not str:
                key = self.node(event, depth)
                _fail(key.place, f"a key is {kind_of(key)} instead of a name", "quote it if it is meant as a name")
            if name == "<<":
                _fail(self.place(event), "a merge key is not allowed", "write the fields out")
            if name in found:
                says = f'"{name}" is here a second time; the first is at line {found[name].place.line}'
                _fail(self.place(event), says, "keep one", Reason.RESOURCE_DUPLICATE)
            held = following()
            mark: _Mark = held.start_mark
            node = Scalar(file, mark, value(held), held.value) if type(held) is ScalarEvent else self.node(held, depth)
            found[name] = Entry(file, event.start_mark, node)
        return found
