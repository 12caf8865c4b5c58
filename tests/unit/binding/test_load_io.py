"""Reading a directory, and validating it as anybody on any machine."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.binding.load_io import load_directory
from control.binding.roots import check_roots
from control.binding.validate_io import validate
from control.errors import ResourceError
from tests.unit.binding.docs import GOOD, changed

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*, ca: bool) -> bytes:
    """A self-signed certificate, PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    return (
        builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files into a directory and give the directory."""

    def put(**files: str | bytes) -> Path:
        for name, content in files.items():
            path = tmp_path / name.replace("_", ".")
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o644)
        return tmp_path

    return put


def test_every_example_is_a_good_set(tmp_path: Path) -> None:
    """Each file under docs/examples by itself, with neither errors nor warnings."""
    examples = sorted(EXAMPLES.glob("*.yaml"))
    assert examples
    for number, example in enumerate(examples):
        alone = tmp_path / str(number)
        alone.mkdir()
        shutil.copy(example, alone)
        found, errors, warnings = validate(alone, "corp.example")
        assert [str(e) for e in errors] == []
        assert [str(w) for w in warnings if "review was due" not in w.message] == []
        assert found is not None
        assert found.bindings


def test_yaml_and_yml_are_read_in_order_and_the_rest_is_not(write: Write) -> None:
    """Hidden files are an editor's; other names are warned of; sub-directories are left alone."""
    directory = write(b_yml="apiVersion: x\n", a_yaml="kind: y\n", **{"_hidden_yaml": "{", "c_yaml_bak": "{"})
    (directory / "sub.yaml.d").mkdir()
    found, errors, warnings = load_directory(directory, "corp.example", guarded=False)
    assert found is None
    assert [Path(e.place.file).name for e in errors if e.place] == sorted(Path(e.place.file).name for e in errors if e.place)
    assert {Path(e.place.file).name for e in errors if e.place} == {"a.yaml", "b.yml"}
    assert [Path(w.place.file).name for w in warnings if w.place] == ["c.yaml.bak"]


def test_bytes_that_are_not_utf8_are_placed(write: Write) -> None:
    """Line and column of the first bad byte; a byte order mark is named."""
    _, errors, _ = load_directory(write(a_yaml=b"a: 1\nb: \xff\n", b_yaml=b"\xef\xbb\xbfa: 1\n"), "t", guarded=False)
    assert [(str(e.place).rsplit("/", 1)[-1], e.message) for e in errors] == [
        ("a.yaml:2:4", "the file is not UTF-8"),
        ("b.yaml:1:1", "a byte order mark is not allowed"),
    ]


def test_a_missing_directory_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    """As is a file in its place."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path / "file"):
        found, errors, _ = load_directory(path, "t")
        assert found is None
        assert len(errors) == 1
    dangling = tmp_path / "d"
    dangling.mkdir()
    (dangling / "x.yaml").symlink_to("nowhere")
    assert load_directory(dangling, "t", guarded=False).errors[0].message == "no such file or directory"


def test_the_digest_is_that_of_the_content(write: Write) -> None:
    """The same twice, another after a change of a document or of a CA file that it names."""
    directory = write(a_yaml=GOOD, ca_pem=certificate(ca=True))
    first = load_directory(directory, "corp.example", guarded=False).found
    assert first is not None
    assert load_directory(directory, "corp.example", guarded=False).found == first
    text = changed("      ports: [443]", f"      upstreamRoots: {directory}/ca.pem")
    second = load_directory(write(a_yaml=text), "corp.example", guarded=False).found
    third = load_directory(write(ca_pem=certificate(ca=True)), "corp.example", guarded=False).found
    assert second is not None
    assert third is not None
    assert second.bindings[0].destinations[0].upstream_roots.startswith("-----BEGIN CERTIFICATE-----")
    assert len({first.digest, second.digest, third.digest}) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no certificate"),
        (b"hello", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (certificate(ca=False), "is no CA certificate"),
        (certificate(ca=True) + certificate(ca=False), "is no CA certificate"),
        (certificate(ca=True) + b"-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
        (b"\xff", "no certificate"),
    ],
)
def test_a_ca_file_holds_ca_certificates_only(content: bytes, says: str) -> None:
    """Leaves, keys and garbage are refused."""
    with pytest.raises(ResourceError, match=says):
        check_roots("/x.pem", content)
    assert check_roots("/x.pem", certificate(ca=True)).startswith("-----BEGIN")


def test_a_bad_ca_file_is_an_error_at_the_field_that_names_it(write: Write) -> None:
    """Missing or garbage: the document's place, the file's name."""
    directory = write(ca_pem=b"garbage")
    for name, says in (("ca.pem", "no certificate"), ("none.pem", "no such file")):
        directory = write(a_yaml=changed("      ports: [443]", f"      upstreamRoots: {directory}/{name}"))
        (error,) = load_directory(directory, "corp.example", guarded=False).errors
        assert str(error.place).endswith("a.yaml:48:22")
        assert says in error.message
        assert name in error.message


def test_guarded_files_must_be_roots_alone(write: Write) -> None:
    """As the daemon reads them: writable by group is an error that names the file."""
    directory = write(a_yaml=GOOD)
    (directory / "a.yaml").chmod(0o664)
    errors = load_directory(directory, "corp.example", guarded=True).errors
    assert len(errors) == 1
    assert "others than root may change it" in errors[0].message
    (directory / "a.yaml").chmod(0o644)
    errors = load_directory(directory, "corp.example", guarded=True).errors
    assert bool(errors) == (os.geteuid() != 0)


def test_validate_warns_of_an_empty_directory_and_of_the_default_trust_domain(write: Write) -> None:
    """Neither is wrong; both are likely not meant."""
    assert ["no resources" in w.message for w in validate(write()).warnings] == [True]
    text = GOOD.replace("corp.example", "credwire.local")
    found, errors, warnings = validate(write(a_yaml=text))
    assert errors == []
    assert found is not None
    assert any('still "credwire.local"' in w.message for w in warnings)


def test_validate_here_looks_at_this_machine(write: Write) -> None:
    """Missing programs are warned of only when asked."""
    directory = write(a_yaml=GOOD.replace("/opt/oci/bin/oci", "/opt/no/such/script"))
    assert not any("is not there" in w.message for w in validate(directory, "corp.example").warnings)
    assert any("is not there" in w.message for w in validate(directory, "corp.example", here=True).warnings)
