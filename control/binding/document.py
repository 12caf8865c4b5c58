"""
Read strict YAML into nodes that know their place.

In: a file's name and text.  Out: documents of Mapping, Listing and Scalar nodes, or the first error that makes the rest unreadable.
What two readers could understand differently is refused: duplicate keys, anchors, aliases, merge keys, tags, directives, tabs, byte order
marks, invisible characters.  Scalars follow the YAML 1.2 core schema without floats, octals and their kin: ``no`` is a word, ``010`` too.
Used for resources and for credwired.yaml.  Pure.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from control.errors import Place, ResourceError
from control.reason import Reason

MAX_TEXT = 4 << 20
"""Characters of one file (docs/limits.md)."""
MAX_DEPTH = 16
"""Levels of nesting; our kinds need six."""

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_ODD = re.compile(r"[^\r\n -~]|\r(?!\n)")
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}


class Scalar(NamedTuple):
    """One value."""

    place: Place
    value: str | int | bool | None
    text: str
    """As written, without quotes."""


class Listing(NamedTuple):
    """A sequence."""

    place: Place
    items: tuple["Node", ...]


class Entry(NamedTuple):
    """One key of a mapping."""

    place: Place
    """Of the key."""
    value: "Node"


class Mapping(NamedTuple):
    """Keys are text and unique."""

    place: Place
    entries: dict[str, Entry]


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
        return list(_Builder(file, _events(text)).documents())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark is not None else Place(file, 1, 1)
        problem = " ".join(str(error.problem or error.context or "it is not YAML").split())
        raise ResourceError(Reason.RESOURCE_MALFORMED, problem, place=place, hint="check indentation, colons and quotes") from error
    except YAMLError as error:
        raise ResourceError(Reason.RESOURCE_MALFORMED, "it is not YAML", place=Place(file, 1, 1)) from error


def _events(text: str) -> Iterator[Event]:
    parser: Any = YAML(typ="safe", pure=True)
    return iter(parser.parse(text))


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

    def __init__(self, file: str, events: Iterator[Event]) -> None:
        self.file, self.events = file, events

    def documents(self) -> Iterator[Node]:
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if event.version is not None or event.tags:
                    _fail(self.place(event), "a directive is not allowed", "remove the lines that begin with %")
            elif isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                continue
            else:
                node = self.node(event, 0)
                if not (isinstance(node, Scalar) and node.value is None):
                    yield node

    def place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def node(self, event: Any, depth: int) -> Node:
        place = self.place(event)
        if isinstance(event, AliasEvent):
            _fail(place, f'the alias "*{event.anchor}" is not allowed', "write the value out; quote text that begins with *")
        if getattr(event, "anchor", None) is not None:
            _fail(place, f'the anchor "&{event.anchor}" is not allowed', "remove it; aliases are not understood here")
        if getattr(event, "tag", None) is not None:
            _fail(place, f'the tag "{event.tag}" is not allowed', "remove it; types follow from the fields")
        if depth > MAX_DEPTH:
            _fail(place, f"nested deeper than {MAX_DEPTH} levels", "no kind needs that")
        if isinstance(event, ScalarEvent):
            return self.scalar(event, place)
        if isinstance(event, SequenceStartEvent):
            return Listing(place, tuple(self.items(depth)))
        assert isinstance(event, MappingStartEvent)  # noqa: S101  # the parser knows no other event that begins a node
        return Mapping(place, self.entries(depth))

    def scalar(self, event: Any, place: Place) -> Scalar:
        text: str = event.value
        for found in _ODD.finditer(text):  # an escape such as "\\u200b" puts in what the file itself does not show
            fault = _odd(found[0])
            if fault is not None:
                _fail(place, *fault)
        if event.style:
            return Scalar(place, text, text)
        if text in _CONSTANTS:
            return Scalar(place, _CONSTANTS[text], text)
        return Scalar(place, int(text) if _INT.fullmatch(text) else text, text)

    def items(self, depth: int) -> Iterator[Node]:
        for event in self.events:
            if isinstance(event, SequenceEndEvent):
                return
            yield self.node(event, depth + 1)

    def entries(self, depth: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for event in self.events:
            if isinstance(event, MappingEndEvent):
                break
            key = self.node(event, depth + 1)
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                _fail(key.place, f"a key is {kind_of(key)} instead of a name", "quote it if it is meant as a name")
            if key.value == "<<":
                _fail(key.place, "a merge key is not allowed", "write the fields out")
            if key.value in found:
                earlier = found[key.value].place
                _fail(
                    key.place,
                    f'"{key.value}" is here a second time; the first is at line {earlier.line}',
                    "keep one",
                    Reason.RESOURCE_DUPLICATE,
                )
            found[key.value] = Entry(key.place, self.node(next(self.events), depth + 1))
        return found
