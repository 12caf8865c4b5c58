"""
Check the names that people give: resources, owners, workloads, trust domains, hosts, paths, networks.

In: text.  Out: its normal form; ResourceError (without a place, which the reader adds) with what is wrong and what to try.  Pure.
"""

import ipaddress
import re
import unicodedata
from functools import lru_cache
from urllib.parse import urlsplit

from control.binding.canonical import host_name, path_fault
from control.binding.document import character
from control.binding.network import nameable
from control.binding.rule import by
from control.errors import Refusal, ResourceError
from control.reason import Reason

MAX_SPIFFE_ID = 2048
"""Bytes (SPIFFE-ID specification, 2.3)."""

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A resource's name or an environment: one DNS label (RFC 1123)."""
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_LOOK_ALIKE = dict(zip("аеорсухіјѕԁһӏԛԝοανρτυικΑΒΕΖΗΙΚΜΝΟΡΤΥΧАВЕКМНОРСТХ", "aeopcyxijsdhlqwoavptuikABEZHIKMNOPTYXABEKMHOPCTX", strict=True))
"""Cyrillic and Greek letters that are drawn as Latin ones (Unicode Technical Standard 39, confusables)."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def malformed(message: str, hint: str) -> ResourceError:
    """Make the error of a value that has the wrong form."""
    return ResourceError(Reason.RESOURCE_MALFORMED, message, hint=hint)


def overbroad(rule: str, message: str, hint: str) -> ResourceError:
    """Make the error of a value that allows too much, which breaks a rule of control/binding/rule.py."""
    return ResourceError(Reason.RESOURCE_OVERBROAD, message + by(rule), hint=hint)


def ascii_only(what: str, value: str) -> None:
    """Refuse letters that look like others, naming the first."""
    if value.isascii():
        return
    for sign in value:
        if sign.isascii():
            continue
        like = _LOOK_ALIKE.get(sign) or unicodedata.normalize("NFKD", sign)[:1]
        looks = f', which looks like "{like}"' if like.isascii() and like.isalnum() else ""
        raise malformed(f'{what} "{value}" holds {character(sign)}{looks}', "use a-z, 0-9 and -")


def check_label(value: str) -> str:
    """Accept a resource's name or an environment: one DNS label (RFC 1123)."""
    ascii_only("name", value)
    if not LABEL.fullmatch(value):
        raise malformed(
            f'name "{value}" is not 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends', "write it like oci-cli-prod"
        )
    return value


def check_owner(value: str) -> str:
    """Accept somebody who can be asked: an address or a team's name."""
    if len(value) > 254 or not value.isprintable():
        raise malformed("owner is longer than 254 characters or not printable", "write a team's e-mail address")
    return value


def check_trust_domain(value: str) -> str:
    """Accept a trust domain name (SPIFFE-ID specification, 2.1)."""
    ascii_only("trust domain", value)
    if not _TRUST_DOMAIN.fullmatch(value):
        raise malformed(f'trust domain "{value}" is not a-z, 0-9, ., - and _ only', "write it like corp.example, without spiffe://")
    return value


def check_workload_id(value: str) -> str:
    """Accept the path of a SPIFFE ID, without the first slash (SPIFFE-ID specification, 2.2)."""
    ascii_only("workload ID", value)
    if value.startswith("spiffe://"):
        raise malformed(f'workload ID "{value}" is a whole SPIFFE ID', "write the path only: the trust domain stands in credwired.yaml")
    for segment in value.split("/"):
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise malformed(
                f'workload ID "{value}" has the segment "{segment}"', "segments are letters, digits, ., - and _, without . and .. alone"
            )
    return value


def spiffe_id(trust_domain: str, workload_id: str) -> str:
    """Build the SPIFFE ID."""
    made = f"spiffe://{trust_domain}/{workload_id}"
    if len(made) > MAX_SPIFFE_ID:
        raise malformed(f"the SPIFFE ID would be longer than {MAX_SPIFFE_ID} bytes", "shorten workloadID")
    return made


def check_host(value: str) -> str:
    """Accept a host pattern: a name of two labels or more, or ``*.`` before one."""
    star, name = value.startswith("*."), value.removeprefix("*.")
    if value in ("*", "*."):
        raise overbroad("named-host", f'host "{value}" is every host', "name the service's domain, like *.us-ashburn-1.oraclecloud.com")
    if "*" in name:
        raise malformed(f'host "{value}" has a * elsewhere than as its first label', "write *.example.com or the whole name")
    found = host_name(name)
    if isinstance(found, Refusal):
        raise malformed(found.detail, found.hint or "write it like identity.us-ashburn-1.oraclecloud.com")
    if "." not in found:
        if star:
            raise overbroad("named-host", f'host "{value}" is a whole top-level domain', "name at least two labels behind the star")
        raise malformed(f'host "{value}" is a single label', "write the full name: search domains would change what it means")
    return ("*." if star else "") + found


def check_method(value: str) -> str:
    """Accept a method that may carry a credential."""
    if value in ("TRACE", "CONNECT"):
        raise malformed(f"method {value} never carries a credential", "leave it out")
    if value not in METHODS:
        upper = value.upper()
        raise malformed(f'method "{value}" is not known', f"write {upper}" if upper in METHODS else "known: " + ", ".join(sorted(METHODS)))
    return value


def check_path_glob(value: str) -> str:
    """Accept a glob that some unambiguous path can match."""
    if not value.startswith("/"):
        raise malformed(f'path "{value}" does not begin with a slash', "write it like /20160918/users*")
    fault = path_fault(value)
    if fault:
        raise malformed(f'path "{value}" can match no request: {fault}', "requests with such paths are refused as ambiguous")
    return value


@lru_cache(maxsize=4096)  # many bindings name the same few, and each takes 0.1 ms
def check_network(value: str) -> str:
    """Accept a CIDR inside of one special range; public addresses need no naming, and everything is not a network."""
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        try:
            wide = str(ipaddress.ip_network(value, strict=False))
        except ValueError:
            raise malformed(f'network "{value}" is not a CIDR', "write it like 10.20.0.0/16 or fd00:20::/48") from error
        raise malformed(f'network "{value}" has bits set behind its prefix', f"did you mean {wide}?") from error
    if not nameable(network):
        raise overbroad(
            "named-network",
            f'network "{value}" does not lie within one private, loopback or link-local range',
            "public addresses are always allowed for a verified name: leave it out or narrow it",
        )
    return str(network)


def check_https(value: str) -> str:
    """Accept ``https://host[:port]`` with nothing behind, and give its canonical form."""
    try:
        parts = urlsplit(value)
    except ValueError as error:  # of brackets alone
        raise malformed(f'"{value}" has brackets around no address', "write https://host[:port]") from error
    try:
        port = parts.port
    except ValueError as error:
        raise malformed(f'"{value}" has no valid port', "write https://host[:port]") from error
    if parts.scheme != "https":
        raise malformed(f'"{value}" is not https', "write https://host[:port]; there is no way to do without TLS")
    if parts.username is not None or parts.password is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise malformed(f'"{value}" has more than a host and a port', "write https://host[:port]")
    found = host_name(parts.hostname or "")
    if isinstance(found, Refusal):
        raise malformed(found.detail, found.hint or "write https://host[:port]")
    return f"https://{found}" + (f":{port}" if port not in (None, 443) else "")


def check_file(value: str) -> str:
    """Accept an absolute path in one spelling."""
    if not value.startswith("/") or any(part in ("", ".", "..") for part in value[1:].split("/")) or not value.isprintable():
        raise malformed(f'file "{value}" is not an absolute path in its shortest form', "write what realpath prints")
    return value
