"""
The kinds of sources there are: one file and one row each.

In: nothing.  Out: SOURCES by the field that names them in a CredentialSource.  Pure.
"""

from collections.abc import Callable
from typing import NamedTuple

from control.binding.model import OciSource
from control.binding.sheet import Sheet
from control.binding.source import oci


class SourceKind(NamedTuple):
    """How a source is read, and which signer can use what it gives."""

    read: Callable[[Sheet, Callable[[Sheet], str]], OciSource]
    signer: str


SOURCES: dict[str, SourceKind] = {
    oci.NAME: SourceKind(oci.read, oci.SIGNER),
}
LATER = frozenset({"aws", "gcp", "azure", "vault", "oauth2", "githubApp", "static"})
"""Kinds that people will look for; refused by name."""
