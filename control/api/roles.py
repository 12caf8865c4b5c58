"""
Who may call what on the admin socket.

In: what the kernel said of a caller when they connected.  Out: a Role, and for each method the role it needs.
A method that is not in the table may be called by nobody: adding one means saying here who may.  Pure.
"""

from typing import Final

import msgspec

from control.api.view import Caller, Role

SERVICE: Final = "credwire.admin.v1.Admin"

ADMIN_GROUP: Final = "credwire-admin"
VIEW_GROUP: Final = "credwire-view"

NEEDS: Final[dict[str, Role]] = {
    f"/{SERVICE}/Status": Role.VIEW,
    f"/{SERVICE}/ListBindings": Role.VIEW,
    f"/{SERVICE}/GetBinding": Role.VIEW,
    f"/{SERVICE}/Explain": Role.VIEW,
    f"/{SERVICE}/TailAudit": Role.VIEW,
    f"/{SERVICE}/Bundle": Role.VIEW,
    f"/{SERVICE}/ListIdentities": Role.VIEW,
    f"/{SERVICE}/Diff": Role.VIEW,
    f"/{SERVICE}/Revoke": Role.ADMIN,
    f"/{SERVICE}/Switch": Role.ADMIN,
    f"/{SERVICE}/Reload": Role.ADMIN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.VIEW,
}


def who(role: Role, *, admin_group: str = ADMIN_GROUP, view_group: str = VIEW_GROUP) -> str:
    """Say who has ``role``, for hints."""
    if role is Role.ADMIN:
        return f"root and members of the group {admin_group}"
    return f"root and members of the groups {view_group} and {admin_group}"


WHO: Final = {role: who(role) for role in (Role.VIEW, Role.ADMIN)}
"""``who`` with the usual names of the groups, for tools that do not know the daemon's configuration."""


class Rules(msgspec.Struct, frozen=True):
    """Which users and groups have a role; ids as the initial user namespace sees them."""

    admin_uids: frozenset[int] = frozenset({0})
    admin_gids: frozenset[int] = frozenset()
    view_gids: frozenset[int] = frozenset()
    admin_group: str = ADMIN_GROUP
    view_group: str = VIEW_GROUP
    """Names, for hints."""

    def who(self, role: Role) -> str:
        """Say who has ``role`` here."""
        return who(role, admin_group=self.admin_group, view_group=self.view_group)

    def role(self, uid: int, gids: frozenset[int]) -> Role:
        """Give the highest role that the user or one of the groups has."""
        if uid in self.admin_uids or gids & self.admin_gids:
            return Role.ADMIN
        return Role.VIEW if gids & self.view_gids else Role.NONE


def peer_name(caller: Caller, nonce: str) -> str:
    """
    Name the socket from which a caller is relayed: readable in ``ss -x``, unique by its nonce.

    It is an abstract Unix name (unix(7)), so at most 107 bytes; it holds only letters, digits and ``/`` because gRPC escapes the rest.
    """
    return f"credwire/{caller.role.name.lower()}/{caller.uid}/{caller.pid}/{nonce}"


def name_of_peer(peer: str) -> str:
    """Give the name back from what ``context.peer()`` shows; empty when the caller has no such name."""
    prefix = "unix-abstract:"
    return peer[len(prefix) :] if peer.startswith(prefix) else ""
