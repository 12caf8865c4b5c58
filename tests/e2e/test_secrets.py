"""
Who holds which secret: the memory of each process under load, and everything that is written, passed or logged.  Needs root.

Each thing that must not be found in one process is found in another by the same search: else the search would prove nothing.
The session key of a lease exists only in the memory of keys; its public half is in the token, so a prime that divides it gives it away.
"""

import base64
import json
import re
import stat
from collections.abc import Iterator
from math import gcd
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.e2e.lib.load import Load
from tests.e2e.lib.memscan import Needle, Scan, of_bytes, of_key, scan
from tests.e2e.lib.scene import IDENTITY, USERS, Scene
from tests.unit.keys.play import unsealed

ROUNDS = 3
"""Searches of each proxy worker under load."""
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{16,}\.(eyJ[A-Za-z0-9_-]{16,})\.[A-Za-z0-9_-]{40,}")
"""A signed JWT: an assertion of ours or a token of the cloud."""
_PRIME = 128
"""Bytes of a factor of RSA-2048."""


def _maps(pid: int) -> Iterator[tuple[int, int]]:
    """Writable private memory: where allocators work."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, rights, *_ = line.split()
        if rights.startswith("rw"):
            start, _, end = where.partition("-")
            yield int(start, 16), int(end, 16)


def _memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in _maps(pid):
            memory.seek(start)
            try:
                yield memory.read(end - start)
            except OSError:
                continue  # unmapped since


def moduli(pid: int) -> set[int]:
    """Moduli of the keys to which tokens in the memory of ``pid`` are bound."""
    found = set()
    for piece in _memory(pid):
        for match in _TOKEN.finditer(piece):
            try:
                claims = json.loads(base64.urlsafe_b64decode(match[1] + b"=" * (-len(match[1]) % 4)))
                jwk = claims["jwk"]
                fields = json.loads(jwk) if isinstance(jwk, str) else jwk
                found.add(int.from_bytes(base64.urlsafe_b64decode(fields["n"] + "=" * (-len(fields["n"]) % 4)), "big"))
            except (ValueError, KeyError, TypeError):
                continue  # an assertion, or the remains of a token
    return found


def factor_in_memory(pid: int, numbers: set[int]) -> dict[int, int]:
    """Find primes in the memory of ``pid`` that divide one of ``numbers``: 128 bytes on an 8-byte boundary, in either byte order."""
    product, found = 1, {}
    for number in numbers:
        product *= number
    for piece in _memory(pid):
        for at in range(0, len(piece) - _PRIME + 1, 8):
            first, last = piece[at], piece[at + _PRIME - 1]
            # primes are odd, and OpenSSL sets their two highest bits so that the product has full length
            for candidate, order in (((first & 1) and last >= 0xC0, "little"), ((last & 1) and first >= 0xC0, "big")):
                if not candidate:
                    continue
                prime = int.from_bytes(piece[at : at + _PRIME], order)  # type: ignore[arg-type]
                if product % prime == 0:
                    found |= {number: prime for number in numbers if gcd(number, prime) == prime}
    return found


def session_key(number: int, prime: int) -> rsa.RSAPrivateKey:
    """The whole key from one factor of its modulus."""
    other, e = number // prime, 65537
    d = pow(e, -1, (prime - 1) * (other - 1))
    p, q = max(prime, other), min(prime, other)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, number))
    return numbers.private_key()


def _stored(scene: Scene) -> dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
    keys = {}
    for path in sorted((scene.stage.state / "keys").rglob("*")):
        if path.is_file() and b"PRIVATE KEY" in (raw := unsealed(scene.stage.config, path)):
            key = load_pem_private_key(raw[raw.index(b"-----BEGIN") :], None)
            assert isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey))
            keys[f"stored {path.name}"] = key
    return keys


def _needles(keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey], scene: Scene) -> list[Needle]:
    told = [needle for name, key in keys.items() for needle in of_key(name, key)]
    return [*told, *of_bytes("client secret", scene.stage.client_secret.encode())]


def _holders(found: Scan) -> set[str]:
    """Names of the keys and secrets found, without the part."""
    return {name.rsplit(" ", 1)[0] if name != "client secret" else name for name in found.secrets()}


@pytest.fixture
def secrets(scene: Scene) -> dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
    """Issuer and CA keys from the disk; session keys out of the memory of keys, which is the control for them."""
    with scene.hand("main") as hand:
        assert hand.request(IDENTITY, "GET", USERS).status == 200
    keys = scene.stage.pid("keys")
    numbers = moduli(keys)
    assert numbers, "no token is in the memory of keys"
    primes = factor_in_memory(keys, numbers)
    assert primes, "no session key is in the memory of keys, where it must be"
    stored = _stored(scene)
    assert any(isinstance(key, rsa.RSAPrivateKey) for key in stored.values())
    assert any(isinstance(key, ec.EllipticCurvePrivateKey) for key in stored.values())
    return {**stored, **{f"session {n}": session_key(number, prime) for n, (number, prime) in enumerate(primes.items())}}


def test_the_proxies_hold_no_key_but_their_leaves(scene: Scene, secrets: dict[str, rsa.RSAPrivateKey]) -> None:
    """
    Searched again and again under load: no issuer, CA or session key, no client secret, in any form or byte order.

    The control: the same search finds each key in keys and the client secret in exchange, and tokens pass through the proxies.
    """
    needles = _needles(secrets, scene)
    workers = [pid for name, pid in scene.workers().items() if name.startswith("proxy")]
    with Load(scene) as load:
        for _ in range(ROUNDS):
            found = scan(workers, needles, keys=False)
            assert not found.findings, [str(finding) for finding in found.findings]
            assert found.bytes_read > 20 << 20
        assert load.rest() == 0
        for pid in workers:
            assert not factor_in_memory(pid, moduli(pid))
    assert moduli(workers[0]) | moduli(workers[1])
    control = scan([scene.stage.pid("keys")], needles, keys=False)
    assert _holders(control) == set(secrets)
    assert "client secret" in _holders(scan([scene.stage.pid("exchange")], needles, keys=False))


def test_each_process_holds_its_own_secrets_only(scene: Scene, secrets: dict[str, rsa.RSAPrivateKey]) -> None:
    """Keys in keys only; the client secret in exchange and, to hand it there, the agent; nothing in public and the supervisor."""
    needles, pids = _needles(secrets, scene), scene.workers()
    holds = {name: _holders(scan([pid], needles, keys=False)) for name, pid in pids.items() if not name.startswith("proxy")}
    assert holds["keys"] == set(secrets)
    assert holds["exchange"] == {"client secret"}
    assert holds["agent"] <= {"client secret"}
    assert holds["public"] == holds["credwired"] == set()


def _whole(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def test_nothing_written_or_passed_holds_a_secret(scene: Scene, secrets: dict[str, rsa.RSAPrivateKey]) -> None:
    """Argv and environment of every process, log, audit, run and state directories, cache: no secret, no token, no private key."""
    stage = scene.stage
    needles = [needle.bytes_ for needle in _needles(secrets, scene)]
    texts = {
        f"{what} of {name}": Path(f"/proc/{pid}/{what}").read_bytes()
        for name, pid in scene.workers().items()
        for what in ("cmdline", "environ")
    }
    own = stage.state / "keys"
    files = [path for root in (stage.run, stage.state, stage.cache) for path in _whole(root) if own not in path.parents]
    files += [stage.directory / "daemon.log", stage.config]
    texts |= {str(path): path.read_bytes() for path in files}
    assert any("audit.jsonl" in name for name in texts)
    assert len(texts["cmdline of keys"]) > 100
    for name, text in texts.items():
        assert b"PRIVATE KEY" not in text, name
        assert not _TOKEN.search(text), name
        assert not [needle for needle in needles if needle in text], name
    assert any(needle in unsealed(stage.config, path) for path in _whole(own) for needle in needles)  # the control


_PEEK = """
result = []
for what in ("mem", "environ", "maps"):
    try:
        open(f"/proc/{pid}/{what}", "rb").read(1)
        result.append(what)
    except OSError:
        pass
"""


def test_what_holds_secrets_is_readable_by_its_process_only(scene: Scene) -> None:
    """The directory of keys is 0700 and its owner's; the last good set, the audit and the memory of each process are closed to others."""
    stage = scene.stage
    keys = (stage.state / "keys").stat()
    assert stat.S_IMODE(keys.st_mode) == 0o700
    assert keys.st_uid not in (0, 72450)
    assert all(path.stat().st_mode & 0o077 == 0 for path in _whole(stage.state / "keys"))
    assert (stage.state / "last-good.json").stat().st_mode & 0o077 == 0
    assert (stage.state / "audit" / "audit.jsonl").stat().st_mode & 0o007 == 0
    with scene.hand("stranger") as hand:
        for name, pid in scene.workers().items():
            assert hand.python(_PEEK, pid=pid) == [], name
