"""
The kinds of selectors there are: one file and one row each.

In: nothing.  Out: KINDS by name.  Pure.
"""

from control.identity.selector import (
    script_path,
    script_sha256,
    unix_exe_package,
    unix_exe_path,
    unix_exe_sha256,
    unix_gid,
    unix_group,
    unix_uid,
    unix_user,
)
from control.identity.selector.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        unix_uid.KIND,
        unix_user.KIND,
        unix_gid.KIND,
        unix_group.KIND,
        unix_exe_path.KIND,
        unix_exe_package.KIND,
        unix_exe_sha256.KIND,
        script_path.KIND,
        script_sha256.KIND,
    )
}
