"""
The kinds of selectors there are: one file and one row each.

In: nothing.  Out: KINDS by name.  Pure.
"""

from control.identity.selector import script_path, unix_exe_path, unix_exe_sha256, unix_uid
from control.identity.selector.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        unix_uid.KIND,
        unix_exe_path.KIND,
        unix_exe_sha256.KIND,
        script_path.KIND,
    )
}
