"""
``signer: oci``: Oracle's request signature.  It has no options.

In: the ``wire`` mapping.  Out: an OciSigner.  docs/reference/workload-credential.md.  Pure.
"""

from control.binding.model import OciSigner
from control.binding.sheet import Sheet
from control.binding.signer.kind import SignerKind


def _read(_: Sheet) -> OciSigner:
    return OciSigner()


KIND = SignerKind("oci", _read, {})
