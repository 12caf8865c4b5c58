"""
Somebody's API behind a key: nginx, which lets in whoever shows the key and says so in its log.

In: a directory, a subnet.  Out: five names, one for each way to show a key; what nginx saw.  It verifies with its own means: variables of
the request, and its own auth_basic with a password file.
"""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from tests.e2e.cloud.tls_io import Authority
from tests.e2e.lib.net import FarSide, Subnet

HOSTS = {scheme: f"{scheme}.api.example.org" for scheme in ("header", "bearer", "basic", "query", "cookie")}
USERNAME = "robot"
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
  log_format seen '$host $status $request_method $http_x_placeholder $request_uri';
  access_log {directory}/seen seen;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
{servers}
}}
"""
_SERVER = """
  map {variable} $shows_{scheme} {{ default 0; "{expected}" 1; }}
  server {{
    listen {address}:443 ssl; server_name {host};
    ssl_certificate {directory}/{scheme}.pem; ssl_certificate_key {directory}/{scheme}.key;
    location / {{ if ($shows_{scheme} = 0) {{ return 401 "no valid key\\n"; }} return 200 "welcome\\n"; }}
  }}
"""
_BASIC = """
  server {{
    listen {address}:443 ssl; server_name {host};
    ssl_certificate {directory}/{scheme}.pem; ssl_certificate_key {directory}/{scheme}.key;
    location / {{ auth_basic "api"; auth_basic_user_file {directory}/passwords; root {directory}/www; }}
  }}
"""


def install() -> None:
    """Have nginx and curl."""
    missing = [package for program, package in (("nginx", "nginx-light"), ("curl", "curl")) if shutil.which(program) is None]
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=environment)


class KeyedService:
    """nginx in a network namespace of its own; it ends with ``stop``."""

    def __init__(self, directory: Path, subnet: Subnet, *, hosts: dict[str, str] | None = None) -> None:
        """Start it; ``hosts``: scheme to name, all five of ours when not given."""
        install()
        self.hosts, self.directory, self.subnet = hosts or HOSTS, directory, subnet
        directory.mkdir(mode=0o755)
        (directory / "www").mkdir()
        (directory / "www" / "index.html").write_text("welcome\n")
        self.authority = Authority("a company's own CA")
        for scheme, host in self.hosts.items():
            certificate, key = self.authority.leaf(host)
            (directory / f"{scheme}.pem").write_bytes(certificate)
            (directory / f"{scheme}.key").write_bytes(key)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.authority.pem())
        (directory / "seen").touch()
        self.key = ""
        self.far: FarSide | None = None
        self.rotate()

    def rotate(self) -> str:
        """Let a new key in and the old one no longer; gives the new one."""
        self.stop()
        self.key = f"key-{secrets.token_urlsafe(24)}"
        (self.directory / "nginx.conf").write_text(self._configuration())
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=self.key, capture_output=True, text=True, check=True).stdout
        (self.directory / "passwords").write_text(f"{USERNAME}:{hashed.strip()}\n")
        self.far = FarSide(["nginx", "-c", str(self.directory / "nginx.conf")], self.subnet, environment={"PATH": os.environ["PATH"]})
        return self.key

    def _configuration(self) -> str:
        shown = {
            "header": ("$http_x_api_key", self.key),
            "bearer": ("$http_authorization", f"Bearer {self.key}"),
            "query": ("$arg_api_key", self.key),
            "cookie": ("$cookie_session", self.key),
        }
        servers = ""
        for scheme, host in self.hosts.items():
            if scheme == "basic":
                servers += _BASIC.format(scheme=scheme, directory=self.directory, address=self.subnet.there4, host=host)
                continue
            variable, expected = shown[scheme]
            servers += _SERVER.format(
                scheme=scheme, directory=self.directory, variable=variable, expected=expected, address=self.subnet.there4, host=host
            )
        return _NGINX.format(directory=self.directory, servers=servers)

    def seen(self, host: str) -> list[int]:
        """The status of each request to ``host``, in order."""
        rows = [line.split(" ") for line in (self.directory / "seen").read_text().splitlines()]
        return [int(row[1]) for row in rows if row[0] == host]

    def stop(self) -> None:
        """End it."""
        if self.far is not None:
            self.far.stop()
            self.far = None
