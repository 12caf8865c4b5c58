"""
Read credwired.yaml.

In: its text.  Out: a Config, or every error with its place.  Every key has a default, and ``defaults_text`` prints them all with reasons.
The same strict YAML as resources (control/binding/document.py).  Pure.
"""

import ipaddress
import re
from typing import Literal, cast
from urllib.parse import urlsplit

import msgspec

from control.binding.canonical import host_name
from control.binding.document import parse
from control.binding.duration import spelled
from control.binding.name import check_file, check_trust_domain, malformed
from control.binding.sheet import Faults, Sheet
from control.errors import Refusal, ResourceError

_GROUP = re.compile(r"[a-z_][a-z0-9_.-]{0,30}\$?")
"""What useradd(8) takes; no number, which would name a group that nobody meant."""


class Paths(msgspec.Struct, frozen=True):
    """Where things live."""

    resources: str = "/etc/credwire/resources"
    state: str = "/var/lib/credwire"
    run: str = "/run/credwire"
    pins: str = "/sys/fs/bpf/credwire"
    cache: str = "/var/cache/credwire/bpf"


class Cgroup(msgspec.Struct, frozen=True):
    """Paths below the mount of cgroup v2."""

    scope: str = "/"
    daemon: str = "/credwired"


class Uids(msgspec.Struct, frozen=True):
    """Users of the daemon's processes."""

    keys: int = 72401
    exchange: int = 72402
    proxy: int = 72403
    public: int = 72404


class Public(msgspec.Struct, frozen=True):
    """The listener for JWKS and the discovery document."""

    address: str
    port: int
    certificate: str = ""
    key: str = ""


class Limits(msgspec.Struct, frozen=True):
    """What one process, and all of them, may take."""

    connections_per_process: int = 1024


class Groups(msgspec.Struct, frozen=True):
    """Whose members may use the sockets for people; one that does not exist has none."""

    admin: str = "credwire-admin"
    view: str = "credwire-view"


class Seal(msgspec.Struct, frozen=True):
    """Where the master key lies with which keys and secrets at rest are sealed."""

    kept: Literal["auto", "systemd", "file", "none"] = "auto"
    """The field ``with``, which is a word of Python."""
    key_file: str = ""


class Config(msgspec.Struct, frozen=True):
    """All of credwired.yaml."""

    trust_domain: str = "credwire.local"
    issuer_url: str = ""
    """Empty means ``https://<trust domain>``: see ``issuer``."""
    paths: Paths = Paths()
    cgroup: Cgroup = Cgroup()
    excluded_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10")
    proxy_workers: int = 0
    """0 means one for each core."""
    listen_port: int = 17443
    stale_after_s: int = 2
    uids: Uids = Uids()
    limits: Limits = Limits()
    public: Public | None = None
    seal: Seal = Seal()
    groups: Groups = Groups()

    @property
    def issuer(self) -> str:
        """The ``iss`` of our tokens, byte for byte what far sides are told."""
        return self.issuer_url or f"https://{self.trust_domain}"


def read_config(file: str, text: str) -> tuple[Config | None, list[ResourceError]]:
    """Read one document; missing keys take their defaults, and an empty file is all defaults."""
    faults: Faults = []
    try:
        documents = parse(file, text)
    except ResourceError as error:
        return None, [error]
    if not documents:
        return Config(), []
    top = Sheet(documents[0], "", faults)
    for further in documents[1:]:
        top.fault("a second document", further.place, hint="the configuration is one document")
    config = _read(top)
    top.close()
    return (None, faults) if faults else (config, [])


def _read(top: Sheet) -> Config:
    usual = Config()
    return Config(
        trust_domain=top.text("trustDomain", default=usual.trust_domain, check=check_trust_domain),
        issuer_url=top.text("issuerUrl", check=_check_issuer),
        paths=_paths(top),
        cgroup=_cgroup(top),
        excluded_networks=top.texts("excludedNetworks", check=_check_excluded) or usual.excluded_networks,
        proxy_workers=top.integer("proxyWorkers", low=0, high=64, default=usual.proxy_workers),
        listen_port=top.integer("listenPort", low=1024, high=65535, default=usual.listen_port),
        stale_after_s=top.duration("staleAfter", low_s=1, high_s=10, default_s=usual.stale_after_s),
        uids=_uids(top),
        limits=_limits(top),
        public=_public(top),
        seal=_seal(top),
        groups=_groups(top),
    )


def _part(top: Sheet, key: str) -> Sheet | None:
    """Give the Sheet of a mapping that may be left out."""
    node = top.node(key)
    return None if node is None else Sheet(node, key, top.faults)


def _paths(top: Sheet) -> Paths:
    usual, sheet = Paths(), _part(top, "paths")
    if sheet is None:
        return usual
    values = {field: sheet.text(field, default=getattr(usual, field), check=check_file) for field in Paths.__struct_fields__}
    sheet.close()
    return Paths(**values)


def _cgroup(top: Sheet) -> Cgroup:
    usual, sheet = Cgroup(), _part(top, "cgroup")
    if sheet is None:
        return usual
    made = Cgroup(
        scope=sheet.text("scope", default=usual.scope, check=_check_cgroup),
        daemon=sheet.text("daemon", default=usual.daemon, check=_check_cgroup),
    )
    if made.daemon == "/":
        sheet.fault(
            "cgroup.daemon is the root", sheet.where("daemon"), hint="the daemon needs a cgroup of its own: its connections are exempt"
        )
    sheet.close()
    return made


def _uids(top: Sheet) -> Uids:
    usual, sheet = Uids(), _part(top, "uids")
    if sheet is None:
        return usual
    values = {role: sheet.integer(role, low=1, high=0xFFFFFFFE, default=getattr(usual, role)) for role in Uids.__struct_fields__}
    if len(set(values.values())) < len(values):
        sheet.fault("two processes have the same uid", hint="each needs its own: one could trace the other")
    sheet.close()
    return Uids(**values)


def _limits(top: Sheet) -> Limits:
    usual, sheet = Limits(), _part(top, "limits")
    if sheet is None:
        return usual
    made = Limits(
        connections_per_process=sheet.integer("connectionsPerProcess", low=1, high=1 << 16, default=usual.connections_per_process),
    )
    sheet.close()
    return made


def _public(top: Sheet) -> Public | None:
    sheet = _part(top, "public")
    if sheet is None:
        return None
    listen = sheet.text("listen", needed=True, check=_check_listen, example="0.0.0.0:8443")
    certificate = sheet.text("certificate", check=check_file)
    key = sheet.text("key", check=check_file)
    if bool(certificate) != bool(key):
        sheet.fault(
            "public has a certificate without a key or a key without a certificate", hint="name both, or neither behind another TLS server"
        )
    sheet.close()
    if not listen:
        return None
    address, _, port = listen.rpartition(":")
    return Public(address.strip("[]"), int(port), certificate, key)


def _seal(top: Sheet) -> Seal:
    sheet = _part(top, "seal")
    if sheet is None:
        return Seal()
    kept = sheet.choice("with", ("auto", "systemd", "file", "none"), default="auto")
    key_file = sheet.text("keyFile", check=check_file)
    if (kept == "file") != bool(key_file):
        sheet.fault("seal.keyFile and seal.with: file belong together", sheet.where("keyFile") or sheet.where("with"),
                    hint="write seal: {with: file, keyFile: /path/of/the/key}, or leave both out")  # fmt: skip
    sheet.close()
    return Seal(cast(Literal["auto", "systemd", "file", "none"], kept), key_file)


def _groups(top: Sheet) -> Groups:
    usual, sheet = Groups(), _part(top, "groups")
    if sheet is None:
        return usual
    made = Groups(
        admin=sheet.text("admin", default=usual.admin, check=_check_group),
        view=sheet.text("view", default=usual.view, check=_check_group),
    )
    if made.admin == made.view:
        hint = "who may only look needs a group of their own; leave groups out for the usual two"
        sheet.fault(f'the groups admin and view are both "{made.admin}"', sheet.where("view") or sheet.where("admin"), hint=hint)
    sheet.close()
    return made


def _check_group(value: str) -> str:
    if not _GROUP.fullmatch(value):
        raise malformed(f'group "{value}" is not the name of a group', "getent group lists names")
    return value


def _check_issuer(value: str) -> str:
    """Accept https://host[:port][/path], as far sides compare it byte for byte."""
    try:
        parts = urlsplit(value)
        good = parts.scheme == "https" and not isinstance(host_name(parts.hostname or ""), Refusal) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in value or "?" in value or "#" in value or value.endswith("/") or not value.isascii():
        raise malformed(f'issuerUrl "{value}" is not https://host[:port][/path]', "write it without query, fragment and final slash")
    return value


def _check_excluded(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise malformed(f'network "{value}" is not a CIDR', "write it like 10.20.0.0/16") from error
    if network.prefixlen == 0:
        raise malformed(f'network "{value}" is every address', "with everything excluded nothing would be bound")
    return str(network)


def _check_cgroup(value: str) -> str:
    return value if value == "/" else check_file(value)


def _check_listen(value: str) -> str:
    address, colon, port = value.rpartition(":")
    try:
        ipaddress.ip_address(address.strip("[]"))
        good = bool(colon) and port.isdigit() and 0 < int(port) <= 65535 and (":" not in address or address.startswith("["))
    except ValueError:
        good = False
    if not good:
        raise malformed(f'listen "{value}" is not address:port', "write it like 0.0.0.0:8443 or [::]:8443")
    return value


def cgroup2_mount(mountinfo: str) -> str | None:
    """Find where cgroup v2 is mounted in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)); the whole of it, not a subtree."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            fields = left.split(" ")
            if fields[3] == "/":
                return fields[4].replace("\\040", " ")
    return None


def defaults_text() -> str:
    """Print every key with its default and the reason for it; what it prints reads back as the defaults."""
    usual = Config()
    p, c, u, g = usual.paths, usual.cgroup, usual.uids, usual.groups
    networks = ", ".join(f'"{network}"' for network in usual.excluded_networks)
    return f"""\
# Name of the trust domain: spiffe://<trustDomain>/<workloadID>.  Choose it once, far sides hold on to it.
trustDomain: {usual.trust_domain}

# The iss of our tokens, byte for byte as far sides know it; empty means https://<trustDomain>.
issuerUrl:

paths:
  resources: {p.resources}    # what reload reads
  state: {p.state}              # keys, audit, the last good set, CA bundles
  run: {p.run}                    # sockets
  pins: {p.pins}            # directory in bpffs, mode 0700
  cache: {p.cache}        # compiled programs; may be deleted

# Below the mount of cgroup v2.
cgroup:
  scope: {c.scope}              # processes in and below it are served
  daemon: {c.daemon}    # the daemon's own: its connections are never redirected

# Connections to these are never looked at.
excludedNetworks: [{networks}]

# Processes that terminate TLS; 0 means one for each core.
proxyWorkers: {usual.proxy_workers}

# Port on loopback to which connections of bound processes are handed; nobody else may bind it.
listenPort: {usual.listen_port}

# The longest silence of the agent after which nothing is given.
staleAfter: {spelled(usual.stale_after_s)}

# Users of the processes without privileges.  Above the 16-bit range that people and packages are given and below SUB_UID_MIN (100000):
# allocated by nobody, needing no entry in /etc/passwd.
uids:
  keys: {u.keys}
  exchange: {u.exchange}
  proxy: {u.proxy}
  public: {u.public}

# Whose members may use the sockets for people: admin.sock to change and look, view.sock to look.  root may do both.
groups:
  admin: {g.admin}
  view: {g.view}

limits:
  connectionsPerProcess: {usual.limits.connections_per_process}

# What keys and secrets on the disk are sealed with (docs/reference/sealing.md).  auto: systemd-creds where it works (host key, TPM), else a
# plain key file, which status shows in red.  file: 32 random bytes in a file of root's.  none: nothing is sealed, in red.
seal:
  with: {usual.seal.kept}
  keyFile:

# The issuer's public documents (JWKS, discovery) over HTTP; nothing listens unless this is set:
#   public: {{listen: "0.0.0.0:8443", certificate: /etc/credwire/public.pem, key: /etc/credwire/public.key}}
public:
"""
