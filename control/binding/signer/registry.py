"""
The ways to put a credential on a request that a document may name: one file and one row each.

In: nothing.  Out: SIGNERS by the word of ``delivery.wire.signer``.  control/signer carries them out.  Pure.
"""

from control.binding.signer import basic, bearer, cookie, header, oci, query
from control.binding.signer.kind import SignerKind

SIGNERS: dict[str, SignerKind] = {kind.name: kind for kind in (oci.KIND, header.KIND, bearer.KIND, basic.KIND, query.KIND, cookie.KIND)}
