"""Reading a directory, and validating it as anybody on any machine."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.binding.load import load
from control.binding.load_io import load_directory, read_roots
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


def test_a_link_or_a_pipe_is_no_resource_file(write: Write, tmp_path: Path) -> None:
    """Neither is followed nor waited for; a CA file may be a link, as the distribution's are."""
    directory = write(a_yaml=GOOD, ca_pem=certificate(ca=True))
    (directory / "b.yaml").symlink_to("a.yaml")
    (directory / "c.yaml").symlink_to("nowhere")
    (directory / "d.yaml").symlink_to("d.yaml")
    os.mkfifo(directory / "e.yaml")
    (directory / "f.yaml").mkdir()
    errors = load_directory(directory, "corp.example", guarded=False).errors
    assert [(Path(e.place.file).name, e.message) for e in errors if e.place] == [
        ("b.yaml", "a symbolic link is no resource file"),
        ("c.yaml", "a symbolic link is no resource file"),
        ("d.yaml", "a symbolic link is no resource file"),
        ("e.yaml", "it is no plain file"),
        ("f.yaml", "it is no plain file"),
    ]
    assert all(error.hint for error in errors)
    (directory / "link.pem").symlink_to("ca.pem")
    assert read_roots(str(directory / "link.pem"), guarded=False).startswith("-----BEGIN")


def test_a_file_that_changes_while_it_is_read_is_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fstat after the read sees a writer that came between; the file system tells, not a mark of ours."""
    directory = write(a_yaml=GOOD)
    real, seen = os.fstat, []

    def meddling(fd: int) -> os.stat_result:
        if seen:  # the second look: somebody has written since the first
            with (directory / "a.yaml").open("a") as file:
                file.write("# more\n")
        seen.append(fd)
        return real(fd)

    monkeypatch.setattr("control.binding.load_io.os.fstat", meddling)
    (error,) = load_directory(directory, "corp.example", guarded=False).errors
    assert (error.message, "rename" in error.hint) == ("the file changed while it was read", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not read")
def test_what_may_not_be_read_is_named(write: Write) -> None:
    """A directory, then a file, of mode 0 for somebody else than root."""
    directory = write(a_yaml=GOOD)
    (directory / "a.yaml").chmod(0o600)
    program = (
        "import sys, os; from pathlib import Path; from control.binding.load_io import load_directory\n"
        "os.chroot(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(*(f'{e}; {e.hint}' for e in load_directory(Path('/'), 'corp.example').errors))"
    )
    for mode, says in ((0o755, "/a.yaml:1:1: permission denied"), (0o700, "/:1:1: permission denied")):
        directory.chmod(mode)
        told = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True).stdout
        assert told.strip() == f"{says}; check the path and its mode"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_half_written_file_is_found_wherever_a_line_is_cut(newline: str) -> None:
    """
    Cut at every byte: an error, unless the cut is exactly the end of a line and what stands before it is complete by itself.

    Such a cut is not found, and not always narrower: a selector object that loses its second line matches more (docs/limits.md).
    """
    text = GOOD.replace("\n", newline)
    accepted = []
    for end in range(len(text)):
        if load([("a.yaml", text[:end])], lambda _: "", "corp.example").found is not None:
            assert text[:end].endswith(newline) or not end
            accepted.append(text[:end].count("\n"))
    # nothing; the identity with one selector only, and without its default; the federation without its review; the source; the binding
    # without its two last lines, which say what the defaults say
    assert accepted == [0, 9, 11, 12, 13, 22, 23, 24, 25, 36, 37, 51, 52]


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


def test_only_a_ca_file_brings_the_certificate_library_and_the_agent_has_it_before_it_is_confined() -> None:
    """A command line without one does not wait for it; a confined process imports nothing late (docs/decisions/0010)."""
    for module, there in (("control.binding.load_io", False), ("control.daemon.agent_io", True)):
        program = f"import sys, {module}; print('cryptography.x509' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == f"{there}\n", module


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


def test_the_collector_runs_again_after_a_load(write: Write) -> None:
    """Whatever came out; and it stays off for whoever had switched it off."""
    directory = write(a_yaml=GOOD)
    assert load_directory(directory, "corp.example", guarded=False).found is not None
    assert gc.isenabled()
    write(a_yaml="kind: [\n")
    gc.disable()
    try:
        assert load_directory(directory, "corp.example", guarded=False).found is None
        assert not gc.isenabled()
    finally:
        gc.enable()
