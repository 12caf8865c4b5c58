"""
Ask the daemon.

In: the path of the admin socket and a question.  Out: the answers of view.py, or an AskError that says what is wrong in words for people.
What the command line is built on; anything else that speaks Python may use it too.
"""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import: its C core would write on the user's terminal

import grpc

from control.api import admin_pb2 as pb
from control.api import admin_pb2_grpc
from control.api.ask import AskError, Fault
from control.api.codec import fill, read
from control.api.roles import WHO
from control.api.view import (
    MAX_MESSAGE,
    BindingsView,
    BindingView,
    BundleView,
    DiffView,
    Event,
    ExplainView,
    IdentitiesView,
    Program,
    ReloadView,
    RevokeView,
    Role,
    StatusView,
    SwitchView,
)

ANSWER_S = 5.0
"""Longest wait for an answer; an agent that does not answer in this time is stuck."""

Shown = TypeVar("Shown", bound=msgspec.Struct)


_FAULTS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Fault.UNREACHABLE,
    grpc.StatusCode.PERMISSION_DENIED: Fault.NOT_ALLOWED,
    grpc.StatusCode.UNAUTHENTICATED: Fault.NOT_ALLOWED,
}
"""The rest is REFUSED; UNAVAILABLE is, when it carries a reason, and UNREACHABLE when not."""


VIEW_SOCKET = "view.sock"
"""Beside the admin socket, for those who may look and not change."""


def choose(path: Path) -> Path:
    """
    Give the socket to ask at: ``path``, or the view socket beside it where ``path`` may not be opened and that one may.

    Raises AskError as ``reachable`` does, about ``path`` where neither will do.
    """
    try:
        reachable(path)
    except AskError as error:
        beside = path.with_name(VIEW_SOCKET)
        if error.fault is not Fault.NOT_ALLOWED or path == beside:
            raise
        try:
            reachable(beside)
        except AskError:
            raise error from None
        return beside
    return path


def reachable(path: Path) -> None:
    """See whether somebody listens at ``path``.  Raises AskError (UNREACHABLE or NOT_ALLOWED) with the plain reason, which gRPC hides."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(path))
        except PermissionError:
            raise AskError(Fault.NOT_ALLOWED, f"{path} may not be opened by uid {os.geteuid()}", hint=f"open to {WHO[Role.VIEW]}") from None
        except FileNotFoundError:
            raise AskError(Fault.UNREACHABLE, f"{path} does not exist: credwired is not running", hint=_START) from None
        except ConnectionRefusedError:
            raise AskError(Fault.UNREACHABLE, f"nobody listens at {path}: credwired has ended", hint=_START) from None
        except OSError as error:
            raise AskError(Fault.UNREACHABLE, f"{path} cannot be reached: {error.strerror or error}", hint=_START) from None


_START = "credwired start; another socket is named by --socket or CREDWIRE_SOCKET"


class Admin:
    """A conversation with the daemon; use it in a ``with`` statement."""

    def __init__(self, path: Path, *, answer_s: float = ANSWER_S) -> None:
        """Connect to ``path``, or to the view socket beside it where only that may be opened.  Raises AskError."""
        self._path = path = choose(path)
        self._answer_s = answer_s
        options = (("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.enable_retries", 0))
        self._channel = grpc.insecure_channel(f"unix:{path.absolute()}", options=options)
        self._stub = admin_pb2_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]  # generated without types

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def status(self) -> StatusView:
        """How credwire is."""
        return self._ask(self._stub.Status, pb.StatusRequest(), StatusView)

    def bindings(self) -> BindingsView:
        """All bindings in force."""
        return self._ask(self._stub.ListBindings, pb.ListBindingsRequest(), BindingsView)

    def binding(self, name: str) -> BindingView:
        """One binding.  Raises AskError(REFUSED) when it does not exist."""
        return self._ask(self._stub.GetBinding, pb.GetBindingRequest(name=name), BindingView)

    def explain_process(self, pid: int, url: str, method: str = "GET") -> ExplainView:
        """What would happen if this process asked for this URL now."""
        asked = pb.ProcessAsks(pid=pid, url=url, method=method)
        return self._ask(self._stub.Explain, pb.ExplainRequest(process=asked), ExplainView)

    def explain_program(self, program: Program, url: str = "", method: str = "GET") -> ExplainView:
        """
        What would happen if this program asked for this URL; an empty URL asks for its identity alone.

        The user is ours, whatever ``program`` says, unless we may change things.
        """
        asked = pb.ProgramAsks(url=url, method=method)
        fill(asked.program, program)
        return self._ask(self._stub.Explain, pb.ExplainRequest(program=asked), ExplainView)

    def explain_id(self, id: str) -> ExplainView:
        """What happened under this id.  Raises AskError(REFUSED) when the audit has nothing."""
        return self._ask(self._stub.Explain, pb.ExplainRequest(id=id), ExplainView)

    def bundle(self, identity: str) -> BundleView:
        """The CA certificates of an identity.  Raises AskError(REFUSED) when there are none."""
        return self._ask(self._stub.Bundle, pb.BundleRequest(identity=identity), BundleView)

    def reload(self) -> ReloadView:
        """Swap the resource set, or keep the running one."""
        return self._ask(self._stub.Reload, pb.ReloadRequest(), ReloadView, answer_s=12 * self._answer_s)

    def identities(self) -> IdentitiesView:
        """All identities in force."""
        return self._ask(self._stub.ListIdentities, pb.ListIdentitiesRequest(), IdentitiesView)

    def diff(self) -> DiffView:
        """What a reload would change."""
        return self._ask(self._stub.Diff, pb.DiffRequest(), DiffView, answer_s=12 * self._answer_s)

    def revoke(self, *, binding: str = "", identity: str = "", pid: int = 0) -> RevokeView:
        """End grants and leases of one binding, one identity or one process: give exactly one."""
        asked = pb.RevokeRequest(binding=binding) if binding else pb.RevokeRequest(identity=identity) if identity else None
        return self._ask(self._stub.Revoke, asked or pb.RevokeRequest(pid=pid), RevokeView)

    def switch(self, binding: str, *, off: bool, for_s: float = 0.0) -> SwitchView:
        """Switch one binding off or on; ``for_s`` 0 means until it is switched on.  Everything is switched by daemon/switch_io.py."""
        return self._ask(self._stub.Switch, pb.SwitchRequest(binding=binding, off=off, for_s=for_s), SwitchView)

    def audit(self, last: int, *, follow: bool = False) -> Iterator[Event]:
        """The last events, oldest first; with ``follow`` those to come, for as long as the iterator is asked."""
        try:
            stream = self._stub.TailAudit(pb.TailAuditRequest(last=last, follow=follow), timeout=None if follow else self._answer_s)
            for message in stream:
                yield self._read(message, Event)
        except grpc.RpcError as error:
            raise self._why(error) from None

    def _ask(self, method: Callable[..., Any], question: Any, kind: type[Shown], *, answer_s: float | None = None) -> Shown:
        try:
            answer = method(question, timeout=answer_s or self._answer_s)
        except grpc.RpcError as error:
            raise self._why(error) from None
        return self._read(answer, kind)

    @staticmethod
    def _read(answer: Any, kind: type[Shown]) -> Shown:
        try:
            return read(answer, kind)
        except msgspec.ValidationError as error:
            raise AskError(
                Fault.REFUSED, f"the daemon's answer cannot be read: {error}", hint="credwire and credwired are of different versions"
            ) from None

    def _why(self, error: Any) -> AskError:
        code, said = error.code(), error.details() or ""
        trailers = dict(error.trailing_metadata() or ())
        reason = str(trailers.get("credwire-reason", ""))
        hint = bytes(trailers.get("credwire-hint-bin", b"")).decode("utf-8", "replace")
        fault = _FAULTS.get(code, Fault.REFUSED)
        if reason and code is not grpc.StatusCode.UNAUTHENTICATED:
            fault = Fault.REFUSED
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            said, hint = f"credwired does not answer at {self._path}", "credwired stop, then credwired start"
        elif code is grpc.StatusCode.UNAVAILABLE:
            fault, said, hint = Fault.UNREACHABLE, f"credwired closed the connection at {self._path}", "credwire status; credwired start"
        return AskError(fault, said or code.name.lower(), hint=hint, reason=reason)
