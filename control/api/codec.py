"""
Copy the answers of view.py into protobuf messages and back.

In: a Struct and a message whose fields have the same names.  Out: the other one.  There is no table of fields: the names are the table, and
a test walks every pair.  Two conventions carry what protobuf cannot say: an empty string stands for None, and an ``optional`` field that
is absent stands for the Struct's default.  Pure.
"""

from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

Filled = TypeVar("Filled", bound=Message)
Read = TypeVar("Read", bound=msgspec.Struct)


def fill(message: Filled, struct: msgspec.Struct) -> Filled:
    """Copy ``struct`` into the empty ``message`` and give it back.  Raises AttributeError when the message lacks a field."""
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if value is None or (value == field.default and _has_presence(message, field.name)):
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
    for field in msgspec.structs.fields(kind):
        if _has_presence(message, field.name) and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if value == "" and field.default is None:
            continue
        inner = _struct_in(field.type)
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


def _has_presence(message: Message, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    return field is not None and field.has_presence and field.message_type is None


def _sayable(value: Any) -> Any:
    """A protobuf string is UTF-8; a file name need not be: what is not is shown as ``\\udcff``."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
