"""
Copy the answers of view.py into protobuf messages and back.

In: a Struct and a message whose fields have the same names.  Out: the other one.  There is no table of fields: the names are the table, and
a test walks every pair.  Two conventions carry what protobuf cannot say: an empty string stands for None, and an ``optional`` field that
is absent stands for the Struct's default.  Pure.
"""

from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

Filled = TypeVar("Filled", bound=Message)
Read = TypeVar("Read", bound=msgspec.Struct)


class _Field(NamedTuple):
    """What there is to know of one field; looked up once for each Struct, as an answer may hold thousands."""

    name: str
    default: Any
    inner: type[msgspec.Struct] | None
    """The Struct that it is, or is a tuple of."""


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[_Field, ...]:
    return tuple(_Field(field.name, field.default, _struct_in(field.type)) for field in msgspec.structs.fields(kind))


@cache
def _optional(descriptor: Descriptor) -> frozenset[str]:
    """Name the fields of a message that know whether they are there."""
    return frozenset(field.name for field in descriptor.fields if field.has_presence and field.message_type is None)


def fill(message: Filled, struct: msgspec.Struct) -> Filled:
    """Copy ``struct`` into the empty ``message`` and give it back.  Raises AttributeError when the message lacks a field."""
    optional = _optional(message.DESCRIPTOR)
    for field in _fields(type(struct)):
        value = getattr(struct, field.name)
        if value is None or (field.name in optional and value == field.default):
            continue
        if isinstance(value, msgspec.Struct):
            inner = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, value)
        elif isinstance(value, tuple):
            into = getattr(message, field.name)
            for item in value:
                if isinstance(item, msgspec.Struct):
                    fill(into.add(), item)
                else:
                    into.append(_sayable(item))
        elif isinstance(value, dict):
            into = getattr(message, field.name)
            for key, item in value.items():
                into[_sayable(key)] = _sayable(item)
        else:
            setattr(message, field.name, _sayable(value))
    return message


def read(message: Message, kind: type[Read]) -> Read:
    """Make a ``kind`` of ``message``.  Raises msgspec.ValidationError when a value is none of its field's."""
    return msgspec.convert(_plain(message, kind), kind)


def _plain(message: Message, kind: type[msgspec.Struct]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    optional = _optional(message.DESCRIPTOR)
    for field in _fields(kind):
        if field.name in optional and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if value == "" and field.default is None:
            continue
        inner = field.inner
        if isinstance(value, Message):
            known[field.name] = _plain(value, inner) if inner else value
        elif inner:
            known[field.name] = [_plain(item, inner) for item in value]
        elif isinstance(value, str | int | float | bool):
            known[field.name] = value
        elif hasattr(value, "items"):
            known[field.name] = dict(sorted(value.items()))  # protobuf keeps no order of a map; ours is stable
        else:
            known[field.name] = list(value)
    return known


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """Find the Struct an annotation is, or is a tuple of."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner
    return None


def _sayable(value: Any) -> Any:
    """A protobuf string is UTF-8; a file name need not be: what is not is shown as ``\\udcff``."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
