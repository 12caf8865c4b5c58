"""Where a bound name may lie."""

import pytest

from control.binding.model import Destination
from control.binding.network import network_allowed, special_network

PLAIN = Destination(("a.example",))
SPECIAL = [
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "100.64.0.1", "100.100.100.200",
    "192.0.0.192", "192.0.2.1", "198.51.100.7", "203.0.113.1", "198.18.0.1", "240.0.0.1", "168.63.129.16",
    "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::a9fe:a9fe", "2001:db8::1", "100::1", "2001::1", "64:ff9b:1::1",
    "::10.0.0.1", "fec0::1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:a00:1::1", "2002:7f00:1::",
]  # fmt: skip
NEVER = ["0.0.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "", "localhost", "1.2.3", "10.0.0.1/8", "::ffff:0.0.0.0"]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "129.146.0.1",
    "2606:4700::1",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "172.32.0.1",
    "100.128.0.1",
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_always_allowed(ip: str) -> None:
    """Also mapped and translated ones."""
    assert network_allowed(PLAIN, ip)


@pytest.mark.parametrize("ip", SPECIAL)
def test_special_networks_need_naming(ip: str) -> None:
    """Private, loopback, link-local, metadata, documentation; however they are wrapped."""
    assert not network_allowed(PLAIN, ip)
    assert special_network(ip)[0]
    everything = Destination(("a.example",), networks=("1.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"))
    assert network_allowed(everything, ip)


@pytest.mark.parametrize("ip", NEVER)
def test_some_addresses_are_never_allowed(ip: str) -> None:
    """Unspecified, multicast, broadcast, and what is no address."""
    assert not network_allowed(Destination(("a.example",), networks=("0.0.0.0/0", "::/0")), ip)


def test_a_named_network_opens_itself_only() -> None:
    """10.20.0.0/16 is not 10.21.0.1, mapped or not."""
    named = Destination(("a.example",), networks=("10.20.0.0/16", "fd00:20::/48"))
    assert network_allowed(named, "10.20.3.4")
    assert network_allowed(named, "::ffff:10.20.3.4")
    assert network_allowed(named, "fd00:20::5")
    assert not network_allowed(named, "10.21.0.1")
    assert not network_allowed(named, "fd00:21::5")
    assert not network_allowed(named, "169.254.169.254")
