"""view.py, event.py and admin.proto say the same words, and a copy loses nothing."""

import typing

import msgspec
import pytest

from control.api import admin_pb2 as pb
from control.api import view
from control.api.codec import fill, read
from control.api.roles import NEEDS, SERVICE
from control.audit.event import Event
from control.reason import Reason
from tests.unit.api.small import OCI, STATUS

STRUCTS = {
    name: kind
    for name, kind in vars(view).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not view.Caller and kind is not msgspec.Struct
}


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_message_and_struct_have_the_same_fields(name: str) -> None:
    """Every shown Struct has a message of its name with exactly its fields in its order."""
    message = pb.DESCRIPTOR.message_types_by_name[name]
    assert [f.name for f in message.fields] == list(STRUCTS[name].__struct_fields__)


def test_every_field_survives_the_journey() -> None:
    """A Struct whose every field differs from its default comes back equal."""
    for name, kind in STRUCTS.items():
        filled = _filled(kind)
        assert read(fill(getattr(pb, name)(), filled), kind) == filled, name


def _filled(kind: type) -> typing.Any:
    values = {}
    for field in msgspec.structs.fields(kind):
        values[field.name] = _value(field.type)
    return kind(**values)


def _value(kind: typing.Any) -> typing.Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _filled(kind)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return (_value(inner[0]), _value(inner[0]))
    if origin is dict:
        return {"one": _value(inner[1])}
    if kind == Reason | None:
        return Reason.PATH_NOT_ALLOWED
    return {bool: True, int: 5, float: 2.5}.get(kind, "a-word")


def test_defaults_survive_the_journey() -> None:
    """Nobody's uid and no reason stay what they are, and root's uid is not nobody's."""
    for event in (Event(event="agent-started"), Event(event="agent-started", uid=0), Event(event="x", reason=Reason.GRANTED)):
        assert read(fill(pb.Event(), event), Event) == event
    assert read(fill(pb.StatusView(), STATUS), view.StatusView) == STATUS
    assert read(fill(pb.BindingView(), OCI), view.BindingView) == OCI


def test_text_that_is_not_utf8_is_shown_instead_of_failing() -> None:
    """A file name that is not UTF-8 does not stop an answer."""
    assert read(fill(pb.Event(), Event(event="x", exe="/tmp/\udcff")), Event).exe == "/tmp/\\udcff"


def test_unknown_words_of_a_newer_daemon_are_refused() -> None:
    """A reason this client does not know is an error that names it, not a silent blank."""
    with pytest.raises(msgspec.ValidationError, match="brand-new"):
        read(pb.Event(event="x", reason="brand-new"), Event)


def test_every_method_says_who_may_call_it() -> None:
    """The table of roles holds each method of the service, and none that does not exist."""
    service = pb.DESCRIPTOR.services_by_name["Admin"]
    assert service.full_name == SERVICE
    named = {method.rpartition("/")[2] for method in NEEDS if SERVICE in method}
    assert named == {method.name for method in service.methods}
