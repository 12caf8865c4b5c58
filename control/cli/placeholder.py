"""
Write the worthless credentials that programs hold so that they run unchanged.

In: a profile's name, a key made for the purpose.  Out: text for a client's own files.  Everything in it says that it is a placeholder, and
no service knows any of it.  Pure.
"""

import re
from itertools import pairwise
from typing import Final

MARK: Final = "# a placeholder of credwire: worthless, the real credential is put on the wire"
VALUE: Final = "credwire-placeholder"
"""What stands in the place of a key, a token or a password."""

TENANCY: Final = "ocid1.tenancy.oc1..credwireplaceholder"
USER: Final = "ocid1.user.oc1..credwireplaceholder"
ACCESS_KEY: Final = "AKIACREDWIREPLACEHLD"
"""Twenty characters, as clients check."""
SECRET_KEY: Final = "credwire/placeholder/not/a/secret/key/00"  # noqa: S105  # that is the point
"""Forty characters."""

_SECTION: Final = re.compile(r"^\s*\[\s*(?P<name>[^\]]*?)\s*\]\s*$", re.MULTILINE)
_PROFILE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def profile_name(name: str) -> bool:
    """Say whether the name can stand between the brackets of a section."""
    return _PROFILE.fullmatch(name) is not None


def oci(profile: str, region: str, fingerprint: str, key_file: str) -> str:
    """A profile of ``~/.oci/config`` (Oracle: SDK and CLI configuration file)."""
    return f"[{profile}]\n{MARK}\nuser={USER}\nfingerprint={fingerprint}\ntenancy={TENANCY}\nregion={region}\nkey_file={key_file}\n"


def oci_key(pem: str) -> str:
    """A key file with the label that the OCI CLI warns about when it lacks."""
    return pem.rstrip("\n") + "\nOCI_API_KEY\n"


def aws(profile: str) -> str:
    """A profile of ``~/.aws/credentials`` (AWS CLI: configuration and credential file settings)."""
    return f"[{profile}]\n{MARK}\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"


def netrc(host: str, login: str) -> str:
    """An entry of ``~/.netrc`` (curl's manual, --netrc)."""
    return f"machine {host} login {login} password {VALUE}\n"


def profiles(text: str) -> list[str]:
    """Name the sections of an INI file."""
    return [found["name"] for found in _SECTION.finditer(text)]


def section(text: str, name: str) -> str:
    """Give one section with its head; empty when there is none."""
    starts = list(_SECTION.finditer(text))
    for at, found in enumerate(starts):
        if found["name"] == name:
            return text[found.start() : starts[at + 1].start() if at + 1 < len(starts) else len(text)]
    return ""


def machines(text: str) -> list[str]:
    """Name the hosts of a netrc file; ``default`` is not one."""
    words = text.split()
    return [after for word, after in pairwise(words) if word == "machine"]


def joined(before: str, more: str) -> str:
    """Put ``more`` behind what is there, with an empty line between."""
    return more if not before.strip() else before.rstrip("\n") + "\n\n" + more
