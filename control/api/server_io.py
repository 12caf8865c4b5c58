"""
Serve the admin API on a Unix socket, knowing who calls.

In: a View, a listening socket (usually inherited), a directory of our own.  Out: answers to whoever has the role for them.
grpcio shows neither uid nor pid of a caller and cannot take an accepted socket.  So callers are accepted here, looked at (peer_io.py),
given a role (roles.py), and relayed to the gRPC server from a socket whose abstract name says what was learned; ``context.peer()`` shows
that name.  The gRPC server listens in a directory only we can enter, and answers only names that are in the table of live relays: a name
that was only copied from /proc/net/unix is of no use while its owner lives, and unknown afterwards.
Whoever has no role is refused before gRPC reads a byte of theirs (refusal.py).  There is no TCP.
"""

import asyncio
import contextlib
import grp
import math
import os
import secrets
import socket
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from control.api import admin_pb2 as pb
from control.api import admin_pb2_grpc, refusal
from control.api.codec import fill, read
from control.api.peer_io import Peer
from control.api.roles import ADMIN_GROUP, NEEDS, SERVICE, VIEW_GROUP, Rules, name_of_peer, peer_name
from control.api.view import MAX_MESSAGE, Caller, Program, Role, View
from control.errors import CredwireError
from control.reason import ABOUT, Kind, Reason

MAX_CALLERS = 64
"""Connections at once."""
MAX_CALLERS_PER_UID = 16
"""Of one user other than root."""
KEPT_FOR_ROOT = 16
"""Places that others together cannot take."""
NOTE_EVERY_S = 1.0
"""Refusals of one user are noted this often at most: the audit is not theirs to fill."""
MAX_QUESTION = 64 << 10
"""Bytes of one question."""
FOR_MOST_S = 366 * 86400
"""Longest time to switch something off for; without a time it stays off."""
MAX_TAIL = 10_000
"""Lines of audit at once."""
REFUSE_S = 2.0
"""Time somebody without a role has to ask the question that is refused."""
_BLOCK = 64 << 10

_CODES = {
    Kind.POLICY: grpc.StatusCode.PERMISSION_DENIED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.CLIENT: grpc.StatusCode.INVALID_ARGUMENT,
}


def group_rules(admin_group: str = ADMIN_GROUP, view_group: str = VIEW_GROUP) -> Rules:
    """Read which groups have a role on this machine; root always has, and a group that does not exist has none."""

    def gids(name: str) -> frozenset[int]:
        try:
            return frozenset({grp.getgrnam(name).gr_gid})
        except KeyError:
            return frozenset()

    return Rules(admin_gids=gids(admin_group), view_gids=gids(view_group), admin_group=admin_group, view_group=view_group)


async def serve(view: View, *, sock: socket.socket, inner: Path, rules: Rules | None = None, most: Role = Role.ADMIN) -> "AdminServer":
    """
    Begin to answer on ``sock``, a listening SOCK_STREAM Unix socket; stop with ``await server.stop()``, which closes it.

    ``inner`` is made (0700) and must be ours.  ``rules`` default to root and the two groups.  ``most`` caps every role on this socket: a
    second, more open socket may be served with ``most=Role.VIEW``.  Raises OSError when ``inner`` is somebody else's.
    """
    server = AdminServer(view, sock, inner, rules or group_rules(), most)
    await server.start()
    return server


class AdminServer:
    """One listening socket with its relay and its gRPC server."""

    def __init__(self, view: View, sock: socket.socket, inner: Path, rules: Rules, most: Role) -> None:
        """Use ``serve``."""
        self._view, self._sock, self._rules, self._most = view, sock, rules, most
        self._inner = _own_directory(inner) / f"grpc-{secrets.token_hex(4)}.sock"
        self._relays: dict[str, tuple[Caller, Peer]] = {}
        self._per_uid: Counter[int] = Counter()
        self._noted: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._grpc = grpc.aio.server(
            interceptors=(_Gate(self.caller, self._note, rules),),
            options=(
                ("grpc.max_receive_message_length", MAX_QUESTION),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.max_concurrent_streams", 16),
            ),
            maximum_concurrent_rpcs=4 * MAX_CALLERS,
        )
        admin_pb2_grpc.add_AdminServicer_to_server(_Answers(view, self.caller), self._grpc)  # type: ignore[no-untyped-call]  # generated
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> None:
        """Listen inside, then accept outside."""
        self._grpc.add_insecure_port(f"unix:{self._inner}")
        await self._grpc.start()
        self._sock.setblocking(False)
        self._spawn(self._accept())

    async def stop(self, grace_s: float = 0.2) -> None:
        """End every conversation and close the listening socket."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._grpc.stop(grace_s)
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):  # gRPC removes it where it still can
            self._inner.unlink()

    def caller(self, peer: str) -> Caller | None:
        """Tell who is behind ``context.peer()``; None when it is no live relay of ours, or the process has changed since it connected."""
        known = self._relays.get(name_of_peer(peer))
        return known[0] if known and known[1].unchanged() else None

    # -- accepting

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:  # out of descriptors or memory: those who wait in the backlog get their turn
                loop.call_exception_handler({"message": "the admin socket cannot accept", "exception": error})
                await asyncio.sleep(0.1)
                continue
            self._spawn(self._welcome(sock))

    async def _welcome(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as owned:
            owned.callback(sock.close)
            try:
                peer = Peer(sock)
            except OSError:
                return  # it ended, or may not be looked at: there is nobody to answer
            owned.callback(peer.close)
            caller = Caller(min(self._rules.role(peer.uid, peer.gids), self._most), peer.uid, peer.pid, peer.gid)
            if self._full(peer.uid):
                if len(self._tasks) <= 2 * MAX_CALLERS:  # else too many are being told so already
                    said = "too many connections to the admin socket"
                    await _refuse(sock, refusal.RESOURCE_EXHAUSTED, Reason.QUOTA_EXCEEDED, said, "close one and try again")
                return
            self._per_uid[peer.uid] += 1
            try:
                if caller.role is Role.NONE:
                    said = f"uid {peer.uid} may not use the admin socket"
                    if await _refuse(sock, refusal.PERMISSION_DENIED, None, said, f"open to {self._rules.who(Role.VIEW)}"):
                        await self._note(caller, "")
                else:
                    await self._relay(sock, caller, peer)
            finally:
                self._per_uid[peer.uid] -= 1
                if not self._per_uid[peer.uid]:
                    del self._per_uid[peer.uid]

    def _full(self, uid: int) -> bool:
        taken = self._per_uid.total()
        if uid == 0:
            return taken >= MAX_CALLERS
        return taken >= MAX_CALLERS - KEPT_FOR_ROOT or self._per_uid[uid] >= MAX_CALLERS_PER_UID

    async def _note(self, caller: Caller, method: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._noted.get(caller.uid, -NOTE_EVERY_S) < NOTE_EVERY_S:
            return
        if len(self._noted) >= 1024:
            self._noted.clear()
        self._noted[caller.uid] = now
        await self._view.refused(caller, method)

    async def _relay(self, sock: socket.socket, caller: Caller, peer: Peer) -> None:
        name = peer_name(caller, secrets.token_hex(8))
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            inside.bind(b"\0" + name.encode())
            self._relays[name] = (caller, peer)  # before connect: the first call may be quick
            await asyncio.get_running_loop().sock_connect(inside, str(self._inner))
            await _pump_both(sock, inside)
        except OSError:
            return  # one of the two hung up
        finally:
            self._relays.pop(name, None)
            inside.close()


def _own_directory(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{path} must be a directory of uid {os.geteuid()} with mode 0700")
    return path


async def _pump_both(outside: socket.socket, inside: socket.socket) -> None:
    """Copy bytes both ways until either side ends."""
    async with asyncio.TaskGroup() as group:
        ways = (group.create_task(_pump(outside, inside)), group.create_task(_pump(inside, outside)))
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, _BLOCK):
            await loop.sock_sendall(sink, data)
    except OSError:
        return  # hung up; the other way is cancelled with it


async def _refuse(sock: socket.socket, status: int, reason: Reason | None, message: str, hint: str) -> bool:
    """Answer the first question with no; False when it never came."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    try:
        async with asyncio.timeout(REFUSE_S):
            await loop.sock_sendall(sock, refusal.greeting())
            said = b""
            while (stream := refusal.first_stream(said)) is None:
                more = await loop.sock_recv(sock, _BLOCK)
                if not more:
                    return False
                said += more
            await loop.sock_sendall(sock, refusal.answer(stream, status, message, _trailers(reason, hint, base64=True)))
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, _BLOCK):  # closing with bytes unread would reset the connection and lose the answer
                pass
    except (OSError, ValueError, TimeoutError):
        return False
    return True


def _trailers(reason: Reason | None, hint: str, *, base64: bool = False) -> dict[str, Any]:
    from base64 import b64encode  # noqa: PLC0415  # only for callers without a role; gRPC itself encodes -bin fields

    found: dict[str, Any] = {"credwire-reason": str(reason)} if reason else {}
    if hint:
        found["credwire-hint-bin"] = b64encode(hint.encode()).decode() if base64 else hint.encode()
    return found


class _Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Lets a call through when its caller is known, unchanged, and has the role the method needs."""

    def __init__(self, caller: Callable[[str], Caller | None], refused: Callable[[Caller, str], Awaitable[None]], rules: Rules) -> None:
        self._caller, self._refused, self._rules = caller, refused, rules

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        method = str(details.method)
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
            return handler._replace(**{kind: self._streaming(method, getattr(handler, kind))})
        kind = "stream_unary" if handler.request_streaming else "unary_unary"
        return handler._replace(**{kind: self._unary(method, getattr(handler, kind))})

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def gated(request: Any, context: Any) -> Any:
            await self._check(method, context)
            answer = await behaviour(request, context)
            await self._still(context)
            return answer

        return gated

    def _streaming(self, method: str, behaviour: Any) -> Any:
        async def gated(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._check(method, context)
            async with contextlib.aclosing(behaviour(request, context)) as answers:
                async for answer in answers:
                    await self._still(context)
                    yield answer

        return gated

    async def _check(self, method: str, context: Any) -> None:
        caller = await self._still(context)
        need = NEEDS.get(method)
        if need is None or caller.role < need:
            await self._refused(caller, method)
            open_to = f"open to {self._rules.who(need)}" if need else "this method is open to nobody"
            said = f"uid {caller.uid} may not call {method.rpartition('/')[2]}"
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, said, None, open_to)

    async def _still(self, context: Any) -> Caller:
        caller = self._caller(context.peer())
        if caller is None:
            code, about = grpc.StatusCode.UNAUTHENTICATED, ABOUT[Reason.PROCESS_CHANGED]
            await _abort(context, code, "the process that connected is not the one that asks", Reason.PROCESS_CHANGED, about.hint)
        return caller


async def _abort(context: Any, code: grpc.StatusCode, message: str, reason: Reason | None, hint: str) -> NoReturn:
    await context.abort(code, message, tuple(_trailers(reason, hint).items()))
    raise AssertionError("abort() raises")


class _Answers(admin_pb2_grpc.AdminServicer):
    """Each method asks the View and copies its answer: in a thread where it may be a thousand rows, for the daemon has beats to keep."""

    def __init__(self, view: View, caller: Callable[[str], Caller | None]) -> None:
        self._view, self._caller = view, caller

    async def Status(self, _: pb.StatusRequest, context: Any) -> pb.StatusView:
        async with _told(context):
            return fill(pb.StatusView(), await self._view.status())

    async def ListBindings(self, _: pb.ListBindingsRequest, context: Any) -> pb.BindingsView:
        async with _told(context):
            return await asyncio.to_thread(fill, pb.BindingsView(), await self._view.bindings())

    async def GetBinding(self, request: pb.GetBindingRequest, context: Any) -> pb.BindingView:
        async with _told(context):
            known = (await self._view.bindings()).bindings
            for binding in known:
                if binding.name == request.name:
                    return fill(pb.BindingView(), binding)
            defined = f"defined bindings: {', '.join(binding.name for binding in known)}" if known else "no binding is defined"
            raise _NotFoundError(f'there is no binding "{request.name}"', defined)

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainView:
        async with _told(context):
            match request.WhichOneof("what"):
                case "process":
                    asked = request.process
                    found = await self._view.explain_process(asked.pid, asked.url, asked.method or "GET")
                    return fill(pb.ExplainView(), found)
                case "program":
                    wanted = request.program
                    program = _owned(read(wanted.program, Program), self._known(context))
                    return fill(pb.ExplainView(), await self._view.explain_program(program, wanted.url, wanted.method or "GET"))
                case "id":
                    happened = await self._view.explain_id(request.id)
                    if happened is not None:
                        return fill(pb.ExplainView(), happened)
                case _:
                    await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no process, program or id was given", None, "give one")
            hint = "credwire audit tail lists ids; rotated files that were removed are gone"
            raise _NotFoundError(f'the audit has nothing under the id "{request.id}"', hint)

    async def TailAudit(self, request: pb.TailAuditRequest, context: Any) -> AsyncIterator[pb.Event]:
        async with _told(context), contextlib.aclosing(self._view.audit(min(max(request.last, 0), MAX_TAIL), request.follow)) as events:  # type: ignore[type-var]  # a View's iterators are generators
            async for event in events:
                yield fill(pb.Event(), event)

    async def Bundle(self, request: pb.BundleRequest, context: Any) -> pb.BundleView:
        async with _told(context):
            found = await self._view.bundle(request.identity)
            if found is not None:
                return fill(pb.BundleView(), found)
            hint = "credwire binding list shows the identities that have bindings"
            raise _NotFoundError(f'there is no bundle for an identity "{request.identity}"', hint)

    async def Reload(self, _: pb.ReloadRequest, context: Any) -> pb.ReloadView:
        async with _told(context):
            return await asyncio.to_thread(fill, pb.ReloadView(), await self._view.reload(self._known(context)))

    async def ListIdentities(self, _: pb.ListIdentitiesRequest, context: Any) -> pb.IdentitiesView:
        async with _told(context):
            return await asyncio.to_thread(fill, pb.IdentitiesView(), await self._view.identities())

    async def Diff(self, _: pb.DiffRequest, context: Any) -> pb.DiffView:
        async with _told(context):
            return await asyncio.to_thread(fill, pb.DiffView(), await self._view.diff())

    async def Revoke(self, request: pb.RevokeRequest, context: Any) -> pb.RevokeView:
        async with _told(context):
            if not (request.binding or request.identity or request.pid > 0):
                hint = "credwire binding list and credwire identity list show the names"
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no binding, identity or process was given", None, hint)
            caller = self._known(context)
            done = await self._view.revoke(caller, binding=request.binding, identity=request.identity, pid=request.pid)
            return fill(pb.RevokeView(), done)

    async def Switch(self, request: pb.SwitchRequest, context: Any) -> pb.SwitchView:
        async with _told(context):
            if not request.binding:
                hint = "credwire off without --binding switches everything off, in the kernel itself"
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no binding was given", None, hint)
            if not (math.isfinite(request.for_s) and 0 <= request.for_s <= FOR_MOST_S):
                hint = f"give 1 second to {FOR_MOST_S // 86400} days, or none for until it is switched on"
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the time to be off cannot be understood", None, hint)
            caller = self._known(context)
            done = await self._view.switch(caller, binding=request.binding, off=request.off, for_s=request.for_s)
            return fill(pb.SwitchView(), done)

    def _known(self, context: Any) -> Caller:
        caller = self._caller(context.peer())
        if caller is None:  # between the gate and here
            raise CredwireError(Reason.PROCESS_CHANGED, "the process that connected is not the one that asks")
        return caller


def _owned(program: Program, caller: Caller) -> Program:
    """
    Give the program the user that would start it: the caller.

    Only an admin may ask for somebody else's, and gets their own user where they name none.
    """
    mine = caller.role < Role.ADMIN or program.uid < 0
    uid, gid = (caller.uid, caller.gid) if mine else (program.uid, program.gid)
    return Program(program.exe, program.script, uid, gid)


class _NotFoundError(Exception):
    """There is no such thing; the second argument is the hint."""


@contextlib.asynccontextmanager
async def _told(context: Any) -> AsyncIterator[None]:
    """Carry our own errors to the tool, and nothing of those that are not ours: their texts were not written to be shown."""
    try:
        yield
    except _NotFoundError as error:
        message, hint = error.args
        await _abort(context, grpc.StatusCode.NOT_FOUND, message, None, hint)
    except CredwireError as error:
        await _abort(context, _CODES[ABOUT[error.reason].kind], str(error), error.reason, error.hint)
    except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
        raise
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": "an admin question failed", "exception": error})
        await _abort(context, grpc.StatusCode.INTERNAL, "the daemon failed to answer; its log says why", None, "journalctl -u credwired")
