"""
Check a file of CA certificates that a resource names as ``upstreamRoots``.

In: the file's bytes.  Out: its PEM text, or ResourceError without a place.  Pure.

The certificate library is imported by who comes across such a file: it takes 40 ms, which a command line without one does not wait for.
"""

from typing import TYPE_CHECKING

from control.errors import ResourceError
from control.reason import Reason

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_BYTES = 1 << 20


def check_roots(path: str, raw: bytes) -> str:
    """Give the certificates of ``raw`` as PEM text; all must be CAs, and no key may stand among them."""
    hint = "name a file of PEM certificates of the private CA"
    if len(raw) > MAX_BYTES:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'CA file "{path}" is larger than {MAX_BYTES} bytes', hint=hint)
    if b"PRIVATE KEY" in raw:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'CA file "{path}" holds a private key', hint="keep the certificate only")
    from cryptography import x509  # noqa: PLC0415  # see above; the daemon's processes have it before they are confined

    try:
        text = raw.decode("ascii")
        found = x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise ResourceError(Reason.RESOURCE_MALFORMED, f'CA file "{path}" holds no certificate that can be read', hint=hint) from error
    for certificate in found:
        if not _is_ca(certificate):
            subject = certificate.subject.rfc4514_string()
            raise ResourceError(Reason.RESOURCE_MALFORMED, f'CA file "{path}": "{subject}" is no CA certificate', hint=hint)
    return text


def _is_ca(certificate: "Certificate") -> bool:
    from cryptography import x509  # noqa: PLC0415  # same

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
