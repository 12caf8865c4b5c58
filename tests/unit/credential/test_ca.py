"""A binding's CA and its leaves, judged by OpenSSL and by cryptography's verifier, which we did not write (attacks: H15)."""

import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from control.credential import ca
from control.errors import Refusal

NOW = dt.datetime.now(dt.UTC).timestamp()
KEY = ec.generate_private_key(ec.SECP256R1())


def public_der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def authority(*hosts: str, now: float = NOW, serial: int = 7) -> ca.Authority:
    return ca.make("oci-cli-prod", ca.constrained_to(hosts), ec.generate_private_key(ec.SECP256R1()), now=now, serial=serial)


def leaf_of(made: ca.Authority, name: str) -> x509.Certificate:
    minted = ca.leaf(made, name, public_der(KEY), now=NOW, serial=99)
    assert not isinstance(minted, Refusal)
    return x509.load_pem_x509_certificate(minted[0])


def by_hand(made: ca.Authority, san: list[x509.GeneralName], *, as_ca: bool = False) -> x509.Certificate:
    """A certificate that a thief of the CA's key would make."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stolen")]))
        .issuer_name(made.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(5)
        .not_valid_before(dt.datetime.fromtimestamp(NOW - 60, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(NOW + 3600, dt.UTC))
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .add_extension(x509.BasicConstraints(ca=as_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(made.key.public_key()), critical=False)
    )
    if as_ca:
        builder = builder.add_extension(ca._KEY_USAGE_CA, critical=True)
    return builder.sign(made.key, hashes.SHA256())


def handshake(trusted: bytes, chain: list[x509.Certificate], key: ec.EllipticCurvePrivateKey, name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Play both ends of a TLS handshake in memory; raises what OpenSSL raises."""
    files = tmp_path / "chain.pem"
    files.write_bytes(
        b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(files)
    client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_tls.verify_flags |= ssl.VERIFY_X509_STRICT
    client_tls.load_verify_locations(cadata=trusted.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_tls.wrap_bio(down, up, server_hostname=name)
    server = server_tls.wrap_bio(up, down, server_side=True)
    done: set[str] = set()
    for _ in range(20):
        for who, end in (("client", client), ("server", server)):
            try:
                end.do_handshake()
                done.add(who)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("name", ["identity.test-1.cloud.test", "a.b.test-1.cloud.test", "x" * 60 + ".test-1.cloud.test"])
def test_a_leaf_verifies_for_exactly_its_name(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """OpenSSL in strict mode accepts it for the name and for no other name of the same binding."""
    made = authority("*.test-1.cloud.test", "other.example")
    leaf = leaf_of(made, name)
    handshake(made.pem(), [leaf], KEY, name, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.pem(), [leaf], KEY, "other.example", tmp_path)


def test_a_stolen_ca_is_worth_its_bindings_hosts_only(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Other names, addresses, e-mail and URI names and a CA below it are all refused; a bound name shows that the test can succeed."""
    made = authority("*.test-1.cloud.test")
    within = x509.DNSName("identity.test-1.cloud.test")
    handshake(made.pem(), [by_hand(made, [within])], KEY, "identity.test-1.cloud.test", tmp_path)
    for stolen, name, why in [
        ([x509.DNSName("bank.example")], "bank.example", "permitted subtree violation"),
        ([x509.DNSName("cloud.test")], "cloud.test", "permitted subtree violation"),
        ([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], "127.0.0.1", "excluded subtree violation"),
        ([x509.IPAddress(ipaddress.ip_address("::1"))], "::1", "excluded subtree violation"),
        ([within, x509.RFC822Name("root@bank.example")], "identity.test-1.cloud.test", "permitted subtree violation"),
        ([within, x509.UniformResourceIdentifier("spiffe://corp.example/x")], "identity.test-1.cloud.test", "permitted subtree violation"),
    ]:
        with pytest.raises(ssl.SSLCertVerificationError, match=why):
            handshake(made.pem(), [by_hand(made, stolen)], KEY, name, tmp_path)  # type: ignore[arg-type]
    below = by_hand(made, [within], as_ca=True)
    child_key = ec.generate_private_key(ec.SECP256R1())
    child = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(below.subject).public_key(child_key.public_key()).serial_number(6)
        .not_valid_before(dt.datetime.fromtimestamp(NOW - 60, dt.UTC)).not_valid_after(dt.datetime.fromtimestamp(NOW + 3600, dt.UTC))
        .add_extension(x509.SubjectAlternativeName([within]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(child_key.public_key()), critical=False).sign(KEY, hashes.SHA256())
    )  # fmt: skip
    with pytest.raises(ssl.SSLCertVerificationError, match="path length constraint exceeded"):
        handshake(made.pem(), [child, below], child_key, "identity.test-1.cloud.test", tmp_path)


def test_a_leaf_says_what_it_must() -> None:
    """One DNS name, at most 24 hours, serverAuth, no CA, both key identifiers."""
    made = authority("*.test-1.cloud.test")
    leaf = leaf_of(made, "identity.test-1.cloud.test")
    extension = leaf.extensions.get_extension_for_class
    assert list(extension(x509.SubjectAlternativeName).value) == [x509.DNSName("identity.test-1.cloud.test")]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= dt.timedelta(hours=24)
    assert list(extension(x509.ExtendedKeyUsage).value) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]
    assert extension(x509.BasicConstraints).value.ca is False
    own = made.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extension(x509.AuthorityKeyIdentifier).value.key_identifier == own.digest
    assert extension(x509.SubjectKeyIdentifier).value.digest
    basic = made.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert made.certificate.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_only_p256_keys_get_a_leaf() -> None:
    """Garbage and other kinds of keys are refused, not signed."""
    made = authority("a.example")
    for wrong in (b"", b"garbage", public_der(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
                  public_der(ec.generate_private_key(ec.SECP384R1()))):  # fmt: skip
        assert isinstance(ca.leaf(made, "a.example", wrong, now=NOW, serial=1), Refusal)


def test_rotation_overlaps_and_signs_with_the_older_one() -> None:
    """At half life a second CA joins the bundle; the first signs until two days before its end."""
    domains = ca.constrained_to(["a.example"])
    old = authority("a.example", serial=1)
    half, end = (old.starts_at + old.expires_at) / 2, old.expires_at
    assert not ca.wants_another([old], domains, half - 1)
    assert ca.wants_another([old], domains, half)
    new = authority("a.example", now=half, serial=2)
    both = [old, new]
    assert not ca.wants_another(both, domains, half + 1)
    assert ca.alive(both, domains, half + 1) == [old, new]
    assert ca.signing(both, domains, "a.example", half + 1) is old
    assert ca.signing(both, domains, "a.example", end - ca.SIGN_UNTIL_S + 1) is new
    assert ca.alive(both, domains, end) == [new]


def test_a_gained_host_keeps_the_old_ca_and_a_lost_one_retires_it() -> None:
    """Adding disturbs nobody; what the binding no longer names is no longer trusted."""
    narrow = authority("a.example", serial=1)
    wide = authority("a.example", "b.example", serial=2)
    more, fewer = ca.constrained_to(["a.example", "b.example"]), ca.constrained_to(["a.example"])
    assert ca.wants_another([narrow], more, NOW)
    assert ca.alive([narrow, wide], more, NOW) == [narrow, wide]
    assert ca.signing([narrow, wide], more, "b.example", NOW) is wide
    assert ca.alive([wide], fewer, NOW) == []
    assert ca.signing([wide], fewer, "a.example", NOW) is None


def test_subtrees_are_as_narrow_as_the_hosts() -> None:
    """A wildcard becomes its parent, and a name below another adds nothing."""
    assert ca.constrained_to(["*.x.example", "a.x.example", "y.example"]) == {"x.example", "y.example"}
    with pytest.raises(ValueError, match="no host"):
        ca.make("b", frozenset(), KEY, now=NOW, serial=1)
