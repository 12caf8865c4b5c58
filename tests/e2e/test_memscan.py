"""The memory scanner finds what a process holds, in each form, and nothing in a process that does not.  Needs root or our own children."""

import base64
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.e2e.lib.memscan import ScanError, fingerprint, of_bytes, of_key, of_number, scan

_HOLD = """
import gc, sys
secret = bytes.fromhex(sys.stdin.readline())
{make}
del secret
gc.collect()
sys.stdin.close(); sys.stdin = None
print("holding", flush=True)
import signal; signal.pause()
"""


@contextmanager
def holder(make: str, secret: bytes) -> Iterator[int]:
    """A Python that read ``secret`` from a pipe (never argv or environment), did ``make`` with it and keeps ``held`` only."""
    # the line with the secret is consumed by the interpreter's own buffers: they are searched too, so a control must be of another form
    child = subprocess.Popen([sys.executable, "-c", _HOLD.format(make=make)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(secret.hex().encode() + b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"holding\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def _der(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


_LOAD = "from cryptography.hazmat.primitives.serialization import load_der_private_key as load\n"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_every_number_of_an_rsa_key_held_by_openssl_is_found(rsa_key: rsa.RSAPrivateKey) -> None:
    """The positive control: d, p, q, dp, dq, qinv as OpenSSL's little-endian limbs."""
    with holder(_LOAD + "held = load(secret, None)\nheld.sign", _der(rsa_key)) as pid:
        found = scan([pid], of_key("issuer", rsa_key))
    limbs = {finding.secret for finding in found.findings if finding.form == "little-endian"}
    assert {f"issuer {part}" for part in ("d", "p", "q", "dp", "dq", "qinv")} <= limbs
    assert found.bytes_read > 5 << 20


def test_the_scalar_of_an_ec_key_is_found(ec_key: ec.EllipticCurvePrivateKey) -> None:
    """P-256, held by OpenSSL."""
    with holder(_LOAD + "held = load(secret, None)", _der(ec_key)) as pid:
        found = scan([pid], of_key("ca", ec_key))
    assert ("ca d", "little-endian") in {(finding.secret, finding.form) for finding in found.findings}


@pytest.mark.parametrize(
    ("make", "form"),
    [
        ("held = int.from_bytes(secret, 'big')", "python int"),
        ("held = bytes(secret)", "bytes"),
        ("held = secret[::-1]", "little-endian"),
        ("import base64; held = b'x' + base64.b64encode(b'ab' + secret + b'c')", "base64"),
        ("import base64; held = base64.urlsafe_b64encode(b'a' + secret).decode()", "base64url"),
        ("held = secret.hex()", "hex"),
        ("held = secret.hex().upper()", "hex in capitals"),
        ("held = bytes(secret)[9:]", "bytes"),
    ],
)
def test_each_form_of_a_number_is_found(rsa_key: rsa.RSAPrivateKey, make: str, form: str) -> None:
    """Digits of a Python int, both byte orders, base64 at any alignment, hex, and a block that lost its first bytes."""
    number = rsa_key.private_numbers().d
    with holder(make, number.to_bytes(256, "big")) as pid:
        found = scan([pid], of_number("d", number), keys=False)
    assert form in {finding.form for finding in found.findings}


def test_pem_lines_and_whole_keys_are_found(rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> None:
    """PEM text, by the lines of a known key and, for a key nobody told of, as a whole with its fingerprint."""
    for key, name in ((rsa_key, "rsa"), (ec_key, "ec")):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with holder("held = bytes(secret)", pem) as pid:
            found = scan([pid], of_key(name, key))
            unknown = scan([pid], of_bytes("other", secrets.token_bytes(32)))
        assert f"{name} pem" in found.secrets()
        assert [(told.fingerprint, told.kind) for told in unknown.keys] == [(fingerprint(key), "PEM")]
        with holder("held = bytes(secret)", _der(key)) as pid:
            assert fingerprint(key) in {told.fingerprint for told in scan([pid], []).keys}


def test_a_client_secret_is_found_plain_and_inside_basic_credentials() -> None:
    """As bytes, and in the base64 of ``id:secret`` where it begins at any offset."""
    secret = secrets.token_urlsafe(24).encode()
    for name in (b"a", b"ab", b"abc"):
        with holder("import base64; held = base64.b64encode(secret)", name + b":" + secret) as pid:
            assert "base64" in {finding.form for finding in scan([pid], of_bytes("client", secret), keys=False).findings}


def test_a_process_without_the_secret_is_clean(rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> None:
    """It holds the public halves, another key, and the library: nothing is found, and plenty was read."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    needles = [*of_key("issuer", rsa_key), *of_key("ca", ec_key), *of_bytes("token", secrets.token_bytes(40))]
    public = rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    make = f"public = bytes.fromhex('{public.hex()}')\n" + _LOAD + "held = load(secret, None), public"
    with holder(make, _der(other)) as pid:
        found = scan([pid], needles)
        control = scan([pid], of_key("other", other))
    assert found.findings == ()
    assert found.bytes_read > 5 << 20
    assert control.secrets() >= {"other d", "other p", "other q"}


def test_what_cannot_be_searched_is_an_error() -> None:
    """A process that is gone is not a clean one; a short secret would be found everywhere."""
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    with pytest.raises(ScanError):
        scan([child.pid], of_bytes("x", os.urandom(32)))
    with pytest.raises(ValueError, match="under 8"):
        of_bytes("pin", b"1234")


def test_alignment_cuts_are_right() -> None:
    """Whatever stands around the secret, one needle of each encoding is inside the base64 of the whole."""
    secret = secrets.token_bytes(31)
    needles = [needle.bytes_ for needle in of_bytes("s", secret) if needle.form == "base64"]
    for lead in range(6):
        for tail in range(4):
            text = base64.b64encode(os.urandom(lead) + secret + os.urandom(tail))
            assert any(needle in text for needle in needles)
