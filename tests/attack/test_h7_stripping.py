"""H7: the client sends material of the scheme itself.  The far side gets the credential once, and nothing beside it.  Needs root."""

import base64
import os
from collections.abc import Iterator, Sequence

import pytest

from control.reason import Reason
from tests.attack.test_h2_upstream import _server
from tests.e2e.cloud.tls_io import Authority
from tests.e2e.lib.keyed import HOSTS, USERNAME
from tests.e2e.lib.stage import USER_UID
from tests.e2e.test_static import Keyed, keyed

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="BPF and namespaces need root")]

STOLEN = "stolen-from-somebody-else"


@pytest.fixture(scope="module")
def on() -> Iterator[Keyed]:
    """One daemon for all of them."""
    with keyed("stripping") as made:
        yield made


def _heard(on: Keyed, scheme: str, words: Sequence[str], target: str = "/") -> tuple[str, bytes]:
    """Let curl ask; give what it printed, and every byte that arrived at a far side that keeps them."""
    host, address = HOSTS[scheme], on.stage.subnet.here4
    context = on.service.authority.server_context(host)
    with _server(address, context) as heard:
        trust = str(on.stage.state / "ca" / "curl.pem")
        argv = ["/usr/bin/curl", "-sS", "-i", "--path-as-is", "--cacert", trust, "--resolve", f"{host}:443:{address}", *words]
        done = on.stage.client([*argv, f"https://{host}{target}"], uid=USER_UID)
        assert done.returncode == 0, done.stderr
    return done.stdout, b"".join(heard)


def _shown(on: Keyed, scheme: str) -> bytes:
    key = on.service.key
    return base64.b64encode(f"{USERNAME}:{key}".encode()) if scheme == "basic" else key.encode()


@pytest.mark.parametrize(
    ("scheme", "words", "target"),
    [
        ("header", ["-H", f"X-Api-Key: {STOLEN}"], "/"),
        ("header", ["-H", f"x-api-key: {STOLEN}", "-H", f"X-API-KEY: {STOLEN}"], "/"),
        ("bearer", ["-H", f"Authorization: Bearer {STOLEN}"], "/"),
        ("bearer", ["-H", f"authorization: Basic {STOLEN}", "-H", f"Proxy-Authorization: Basic {STOLEN}"], "/"),
        ("basic", ["-u", f"root:{STOLEN}"], "/"),
        ("basic", ["-H", f"Authorization: Bearer {STOLEN}"], "/"),
        ("query", [], f"/?api_key={STOLEN}"),
        ("query", [], f"/?api_key={STOLEN}&a=1&api_key={STOLEN}"),
        ("query", [], f"/?%61pi_key={STOLEN}&api%5Fkey={STOLEN}"),
        ("query", [], f"/?api_key={STOLEN}&api_key"),
        ("cookie", ["-b", f"session={STOLEN}"], "/"),
        ("cookie", ["-H", f"Cookie: a=1; session={STOLEN}; b=2; session={STOLEN}"], "/"),
        ("cookie", ["-H", f"Cookie: session={STOLEN}", "-H", f"cookie: x=1; session={STOLEN}"], "/"),
    ],
)  # fmt: skip
def test_the_clients_own_material_is_replaced_and_never_doubled(on: Keyed, scheme: str, words: list[str], target: str) -> None:
    """However it is written, what the client sent of the scheme is gone, and the credential stands there once."""
    printed, heard = _heard(on, scheme, words, target)
    assert " 200" in printed.splitlines()[0], printed
    assert heard.count(_shown(on, scheme)) == 1, heard
    assert STOLEN.encode() not in heard
    assert b"root" not in heard
    assert on.service.key not in printed


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("header", ["-H", f"X_Api_Key: {STOLEN}"]),
        ("bearer", ["-H", f"Authorization: Bearer {STOLEN}", "-H", f"authorization: Basic {STOLEN}"]),
        ("bearer", ["-H", "Connection: authorization"]),
    ],
    ids=["underscores", "two authorizations", "nominated"],
)
def test_what_two_readers_would_read_differently_does_not_pass(on: Keyed, scheme: str, words: list[str]) -> None:
    """Some servers read underscores as hyphens, some take the first of two lines: stripped, or refused whole."""
    printed, heard = _heard(on, scheme, words)
    assert STOLEN.encode() not in heard
    if heard:
        assert heard.count(_shown(on, scheme)) == 1
    else:
        assert "x-credwire-reason: " in printed


@pytest.mark.parametrize("scheme", ["header", "query"])
def test_another_schemes_material_is_the_clients_own_business(on: Keyed, scheme: str) -> None:
    """Only material of the binding's scheme is replaced: a client may hold a session of its own beside it."""
    _, heard = _heard(on, scheme, ["-H", "X-Session: mine"], "/?session=mine")
    assert b"mine" in heard
    assert heard.count(_shown(on, scheme)) == 1


def test_a_key_in_the_target_is_written_nowhere(on: Keyed) -> None:
    """It stood on the wire to the far side; audit, log and the answer of a refusal have the path alone."""
    printed, heard = _heard(on, "query", [], "/?a=1&api_key=placeholder")
    assert on.service.key.encode() in heard
    host, address = HOSTS["query"], on.stage.subnet.here4
    trust, place = str(on.stage.state / "ca" / "curl.pem"), f"{host}:443:{address}"
    with _server(address, Authority("impostor").server_context(host)) as impostor:
        argv = ["/usr/bin/curl", "-sS", "-i", "--cacert", trust, "--resolve", place, f"https://{host}/?api_key=placeholder"]
        refused = on.stage.client(argv, uid=USER_UID)
    assert f"x-credwire-reason: {Reason.UPSTREAM_UNVERIFIED}" in refused.stdout
    assert impostor == []
    written = [on.stage.state / "audit" / "audit.jsonl", on.stage.directory / "daemon.log"]
    for text in (printed, refused.stdout, *(path.read_text(errors="replace") for path in written)):
        assert on.service.key not in text
    assert '"path":"/"' in written[0].read_text()
