"""
The registry of sources: one file per kind of far side that gives credentials, one row here.

In: a source's ``kind``.  Out: how to ask it and how to read its answer.  Pure.
"""

from typing import Final

from control.credential.source import oci
from control.credential.source.model import Kind

KINDS: Final[dict[str, Kind]] = {
    "oci": Kind(algorithm="RS256", build=oci.build, parse=oci.parse),
}
