"""credwired.yaml: every key has a default, and every mistake a place."""

from pathlib import Path

import pytest

from control.binding.validate_io import DEFAULT_TRUST_DOMAIN
from control.daemon.config import Cgroup, Config, Groups, Limits, Paths, Public, Uids, cgroup2_mount, defaults_text, read_config
from control.daemon.config_io import load_config, workers


def test_the_printed_defaults_are_the_defaults() -> None:
    """What people copy from ``config show --defaults`` changes nothing, and every key is in it."""
    assert read_config("c.yaml", defaults_text()) == (Config(), [])
    keys = """trustDomain issuerUrl paths resources state run pins cache cgroup scope daemon excludedNetworks proxyWorkers listenPort
    staleAfter uids keys exchange proxy public limits connectionsPerProcess
    groups admin view"""
    for key in keys.split():
        assert f"{key}:" in defaults_text(), key


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_all_defaults(text: str) -> None:
    """As is a missing key."""
    assert read_config("c.yaml", text) == (Config(), [])


def test_every_key_is_read() -> None:
    """None is silently left at its default."""
    text = """\
trustDomain: corp.example
issuerUrl: https://issuer.corp.example/credwire
paths: {resources: /a, state: /b, run: /c, pins: /d, cache: /e}
cgroup: {scope: /workloads, daemon: /system.slice/credwired.service}
excludedNetworks: [10.0.0.0/8, "fd00::/8"]
proxyWorkers: 3
listenPort: 20000
staleAfter: 3s
uids: {keys: 11, exchange: 12, proxy: 13, public: 14}
limits: {connectionsPerProcess: 10}
public: {listen: "[::]:8443", certificate: /p.pem, key: /p.key}
groups: {admin: wheel, view: adm}
"""
    config, errors = read_config("c.yaml", text)
    assert errors == []
    assert config == Config(
        trust_domain="corp.example",
        issuer_url="https://issuer.corp.example/credwire",
        paths=Paths("/a", "/b", "/c", "/d", "/e"),
        cgroup=Cgroup("/workloads", "/system.slice/credwired.service"),
        excluded_networks=("10.0.0.0/8", "fd00::/8"),
        proxy_workers=3,
        listen_port=20000,
        stale_after_s=3,
        uids=Uids(11, 12, 13, 14),
        limits=Limits(10),
        public=Public("::", 8443, "/p.pem", "/p.key"),
        groups=Groups("wheel", "adm"),
    )


def test_the_issuer_follows_the_trust_domain_unless_it_is_named() -> None:
    """The iss of tokens."""
    assert Config(trust_domain="a.example").issuer == "https://a.example"
    assert Config(trust_domain="a.example", issuer_url="https://b.example/x").issuer == "https://b.example/x"


@pytest.mark.parametrize(
    ("text", "at", "says", "hint"),
    [
        ("trustDomian: x\n", (1, 1), 'no field "trustDomian"', 'did you mean "trustDomain"'),
        ("trustDomain: spiffe://x\n", (1, 14), "trust domain", "without spiffe://"),
        ("trustDomain: Corp\n", (1, 14), "trust domain", "corp.example"),
        ("trustDomain: соrp\n", (1, 14), "CYRILLIC", "a-z"),
        ("issuerUrl: http://a.example\n", (1, 12), "is not https", "final slash"),
        ("issuerUrl: https://a.example/\n", (1, 12), "is not https://host", "final slash"),
        ("issuerUrl: https://a.example?x\n", (1, 12), "is not https://host", "query"),
        ('issuerUrl: "https://[a"\n', (1, 12), "is not https://host", "query"),
        ("paths: {run: run}\n", (1, 14), "not an absolute path", "realpath"),
        ("paths: {runn: /run}\n", (1, 9), 'no field "runn"', '"run"'),
        ("paths: /x\n", (1, 8), "instead of a mapping", "below"),
        ("cgroup: {daemon: /}\n", (1, 18), "is the root", "of its own"),
        ("groups: {admin: adm, view: adm}\n", (1, 28), 'both "adm"', "of their own"),
        ("groups: {admin: '0'}\n", (1, 17), "not the name of a group", "getent"),
        ("excludedNetworks: [0.0.0.0/0]\n", (1, 20), "every address", "nothing would be bound"),
        ("excludedNetworks: [10.0.0.1/8]\n", (1, 20), "not a CIDR", "10.20"),
        ("proxyWorkers: many\n", (1, 15), '"many" instead of a number', "from 0 to 64"),
        ("proxyWorkers: true\n", (1, 15), "truth value", "number"),
        ("listenPort: 443\n", (1, 13), "outside of 1024", "number"),
        ("staleAfter: 2\n", (1, 13), "instead of a duration", "90s"),
        ("staleAfter: 1m\n", (1, 13), "outside of 1s to 10s", "from 1s"),
        ("uids: {keys: 0}\n", (1, 14), "outside", "number"),
        ("uids: {keys: 72403}\n", (1, 7), "same uid", "trace"),
        ("public: {listen: 8443}\n", (1, 18), "the number 8443", "text"),
        ("public: {listen: localhost:8443}\n", (1, 18), "not address:port", "0.0.0.0:8443"),
        ('public: {listen: "::1:8443"}\n', (1, 18), "not address:port", "[::]:8443"),
        ('public: {listen: "0.0.0.0:1", key: /k}\n', (1, 9), "key without a certificate", "both"),
        ("public: {certificate: /c, key: /k}\n", (1, 9), "public.listen is missing", "add listen"),
        ("a: 1\na: 2\n", (2, 1), "a second time", "keep one"),
        ("proxyWorkers: 1\n---\nproxyWorkers: 2\n", (3, 1), "a second document", "one document"),
        ("- a\n", (1, 1), "the document is a list", "fields"),
    ],
)
def test_a_mistake_has_a_place_and_a_hint(text: str, at: tuple[int, int], says: str, hint: str) -> None:
    """Strict as resources are."""
    config, errors = read_config("c.yaml", text)
    assert config is None
    fitting = [e for e in errors if says in e.message]
    assert fitting, [str(e) for e in errors]
    assert fitting[0].place is not None
    assert (fitting[0].place.line, fitting[0].place.column) == at
    assert hint in fitting[0].hint


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """Unlike the default one, whose absence is all defaults; other bytes than UTF-8 are told."""
    config, errors = load_config(tmp_path / "none.yaml")
    assert config is None
    assert errors[0].message == "no such file"
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff")
    bad.chmod(0o644)
    assert load_config(bad)[0] is None


def test_workers_are_cores_unless_numbered() -> None:
    """0 means one for each."""
    assert workers(Config()) >= 1
    assert workers(Config(proxy_workers=7)) == 7


def test_the_default_trust_domain_is_known_to_validate() -> None:
    """It warns of it by this name."""
    assert Config().trust_domain == DEFAULT_TRUST_DOMAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"),
        ("1 2 0:5 / /sys/fs/cgroup rw - tmpfs t rw\n30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n", "/sys/fs/cgroup/unified"),
        ("30 23 0:26 /sub /mnt rw - cgroup2 c rw\n", None),
        ("30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", None),
        ("", None),
    ],
)
def test_cgroup2_is_found_where_it_is_mounted(text: str, expected: str | None) -> None:
    """Unified and hybrid; a bind of a subtree and v1 do not count."""
    assert cgroup2_mount(text) == expected
