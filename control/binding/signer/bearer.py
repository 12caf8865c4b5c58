"""
``signer: bearer``: ``Authorization: Bearer <secret>`` (RFC 6750).  It has no options.

In: the ``wire`` mapping.  Out: a BearerSigner.  docs/reference/workload-credential.md.  Pure.
"""

from control.binding.model import BearerSigner
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind


def _read(_: Sheet) -> BearerSigner:
    return BearerSigner()


KIND = SignerKind("bearer", _read, {})
