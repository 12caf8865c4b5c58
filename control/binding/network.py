"""
Decide whether a bound name may lie at an address.

In: an address, the networks a destination names.  Out: yes or no, and what sort of network it is.
Public addresses always may.  Everything that IANA's special-purpose registries (RFC 6890 and successors) set apart may only where the
destination names it: a stranger who controls a name's DNS answer must not lead a credential into the private network (H2).
Addresses that carry another one (v4-mapped, NAT64, 6to4) are judged by the one they carry.  Pure.
"""

import ipaddress
from functools import lru_cache

from control.binding.model import Destination

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEVER = (
    ("0.0.0.0/8", "this network"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "unspecified"),
    ("ff00::/8", "multicast"),
)
_NAMED_ONLY = (
    ("127.0.0.0/8", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("169.254.0.0/16", "link-local and metadata"),
    ("168.63.129.16/32", "a cloud's host endpoint"),
    ("192.0.0.0/24", "protocol assignments and metadata"),
    ("192.0.2.0/24", "documentation"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("198.18.0.0/15", "benchmarking"),
    ("240.0.0.0/4", "reserved"),
    ("::1/128", "loopback"),
    ("fc00::/7", "unique local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("100::/64", "discard-only"),
    ("2001::/23", "protocol assignments and Teredo"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("64:ff9b:1::/48", "local-use translation"),
    ("::/96", "v4-compatible"),
)
_TABLE: tuple[tuple[IPNetwork, str, bool], ...] = tuple((ipaddress.ip_network(net), name, False) for net, name in _NEVER) + tuple(
    (ipaddress.ip_network(net), name, True) for net, name in _NAMED_ONLY
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


def carried(address: IPAddress) -> IPAddress:
    """Give the v4 address that a v4-mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056) address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4:
            return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


@lru_cache(maxsize=4096)
def special_network(ip: str) -> tuple[str, bool]:
    """Give (what sort of special network ``ip`` lies in, whether ``networks`` may open it); ("", True) for public ones."""
    try:
        address = carried(ipaddress.ip_address(ip))
    except ValueError:
        return "not an address", False
    for network, name, may_open in _TABLE:
        if address.version == network.version and address in network:
            return name, may_open
    return "", True


def network_allowed(destination: Destination, ip: str) -> bool:
    """Say whether a connection for ``destination`` may go to ``ip``."""
    name, may_open = special_network(ip)
    if not name:
        return True
    if not may_open or not destination.networks:
        return False
    address = carried(ipaddress.ip_address(ip))
    return any(address.version == net.version and address in net for net in map(_network, destination.networks))


@lru_cache(maxsize=1024)
def _network(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def nameable(network: IPNetwork) -> bool:
    """Say whether ``networks`` may hold it: it lies wholly inside of one range that needs naming."""
    return any(
        may_open and network.version == special.version and network.subnet_of(special)  # type: ignore[arg-type]  # same version by then
        for special, _, may_open in _TABLE
    )
