"""
The registry of signers: one file per way to put a credential on a request, one row here.

In: a binding's ``signer``.  Out: the function that signs.  Pure.
"""

from typing import Final

from control.signer import basic, bearer, cookie, header, oci, query
from control.signer.model import Signer

SIGNERS: Final[dict[str, Signer]] = {
    "basic": basic.sign,
    "bearer": bearer.sign,
    "cookie": cookie.sign,
    "header": header.sign,
    "oci": oci.sign,
    "query": query.sign,
}
