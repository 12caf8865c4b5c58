"""The first hour beyond what transcripts show: terminals, modes of files, sealing, what is taken back, and the whole off switch."""

import json
import os
import pty
import select
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from control.binding.model import BasicSigner, BearerSigner, CookieSigner, HeaderSigner, QuerySigner, StaticSource
from control.binding.validate_io import validate
from control.cli import placeholder, preflight, program_io, secret_io, starter
from control.cli.failure import CommandError, Exit
from control.daemon import start_io
from control.secret import Secret
from tests.unit.cli.stage import Stage

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
INIT = ["init", "api-key", "billing", "--host", "api.example.org", "--exe", "/usr/bin/true", "--user", "61001", "--owner", "me@example.org"]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("way", "signer"),
    [
        (["--header", "X-Api-Key"], HeaderSigner("x-api-key")),
        (["--header", "Authorization", "--template", "Token {secret}"], HeaderSigner("authorization", "Token {secret}")),
        (["--bearer"], BearerSigner()),
        (["--basic", "me"], BasicSigner("me")),
        (["--query", "key"], QuerySigner("key")),
        (["--cookie", "sid"], CookieSigner("sid")),
    ],
)
def test_each_way_loads_as_what_was_asked(stage: Stage, way: list[str], signer: object) -> None:
    """What init writes is read by a reload as one identity, one static source and one observing binding of that signer."""
    code, _, err = stage.within([*INIT, *way, "--method", "GET", "--path", "/v1/*", "--network", "10.1.0.0/16"], b"key-4711\n")
    assert (code, err) == (0, "")
    file = stage.directory / "good" / "billing.yaml"
    (stage.directory / "good" / "oci.yaml").unlink()
    found, errors, _ = validate(file.parent, "corp.example")
    assert errors == []
    assert found is not None
    binding = found.bindings[0]
    assert (binding.signer, binding.mode, binding.identity) == (signer, "observe", "billing")
    to = binding.destinations[0]
    assert (to.hosts, to.methods, to.paths, to.networks) == (("api.example.org",), ("GET",), ("/v1/*",), ("10.1.0.0/16",))
    assert found.sources[0].of == StaticSource(str(stage.directory / "secrets" / "billing"))
    assert mode(file) == 0o644
    assert mode(stage.directory / "secrets" / "billing") == 0o600
    assert mode(stage.directory / "secrets") == 0o700
    text = file.read_text()
    assert starter.lines_of_yaml(text) <= 25
    assert "key-4711" not in text
    file.write_text(text.replace("mode: observe", "mode: enforce"))  # the one word
    found, _, _ = validate(file.parent, "corp.example")
    assert found is not None
    assert found.bindings[0].mode == "enforce"


def test_every_starter_stays_short() -> None:
    """25 lines of YAML at most, with everything that can be said and names as long as they may be."""
    who = starter.Who("/usr/bin/python3.11", "/opt/" + "s" * 200, 61001, "u" * 32, allow_root=True)
    where = starter.Where(("h" * 60 + ".example.org",) * 3, (443, 8443), ("GET", "PUT"), ("/v1/*",), ("10.0.0.0/8",), "/etc/roots.pem")
    common = starter.Common("n" * 63, "o" * 200, "prod", "enforce", "2026-11-22", "90d", who, "n" * 63, where)
    domain = starter.Domain("https://idcs.example.org", "c" * 200, "/etc/credwire/secrets/n", "a" * 200, "p" * 200)
    for text in (starter.api_key(common, "/etc/credwire/secrets/n", {"signer": "bearer"}), starter.oci(common, domain, "corp.example")):
        assert starter.lines_of_yaml(text) <= 25


def test_what_is_refused_leaves_nothing(stage: Stage) -> None:
    """A set that would be refused is taken back: no file, no secret; with --force the old file stands again, byte for byte."""
    before = sorted(stage.directory.rglob("*"))
    code, out, _ = stage.within([*INIT, "--bearer", "--host", "api"], b"key\n")
    assert (code, out, sorted(stage.directory.rglob("*"))) == (Exit.REFUSED, "", before)
    assert stage.within([*INIT, "--bearer"], b"key-1\n")[0] == 0
    files = [stage.directory / "good" / "billing.yaml", stage.directory / "secrets" / "billing"]
    contents = [path.read_bytes() for path in files]
    code, out, _ = stage.within([*INIT, "--bearer", "--host", "api", "--force"], b"key-2\n")
    assert (code, out) == (Exit.REFUSED, "")
    assert [path.read_bytes() for path in files] == contents
    (stage.directory / "good" / "broken.yaml").write_text("kind: [\n")
    code, _, err = stage.within([*INIT, "--bearer", "--force"], b"key-2\n")
    assert code == Exit.REFUSED
    assert "would refuse what is there already" in err
    assert [path.read_bytes() for path in files] == contents


def test_second_binding_that_would_take_from_the_first_is_refused(stage: Stage) -> None:
    """The same program and user again, its name before or behind the first's, or the same requests for one identity: nothing is written."""
    assert stage.within([*INIT, "--bearer"], b"key-1\n")[0] == 0
    before = sorted(stage.directory.rglob("*"))
    words = [*INIT[3:], "--bearer"]
    for name in ("aa", "zz"):
        code, out, err = stage.within(["init", "api-key", name, *words, "--host", "other.example.org"], b"key-2\n")
        assert (code, out, sorted(stage.directory.rglob("*"))) == (Exit.REFUSED, "", before)
        assert 'identity "billing" matches this program and user already' in err
        assert "--identity billing instead of --exe and --user" in err
    more = ["--identity", "billing", "--owner", "me@example.org", "--bearer", "--host", "api.example.org"]
    code, out, err = stage.within(["init", "api-key", "second", *more], b"key-2\n")
    assert (code, out, sorted(stage.directory.rglob("*"))) == (Exit.REFUSED, "", before)
    assert 'bindings "billing" and "second" of identity "billing" tie at' in err
    assert stage.within(["init", "api-key", "second", *more, "--path", "/v2/*"], b"key-2\n")[0] == 0
    assert stage.within(["init", "api-key", "third", *INIT[3:7], "--user", "61002", *INIT[9:], "--bearer"], b"key-3\n")[0] == 0


@pytest.mark.parametrize(
    ("typed", "option"),
    [
        ("https://api.example.org/v1", "--host api.example.org"), ("api.example.org:8443", "--host api.example.org --port 8443"),
        ("api.example.org.", "--host api.example.org"), ("https://me@api.example.org:443?a=b", "--host api.example.org"),
    ],
)  # fmt: skip
def test_url_for_a_host_is_told_as_options(stage: Stage, typed: str, option: str) -> None:
    """Who types a URL hears before anything else which options it would be."""
    code, out, err = stage.within(["init", "api-key", "billing", "--host", typed, *INIT[5:], "--bearer"], b"key\n")
    assert (code, out) == (Exit.USAGE, "")
    assert err == f'credwire: error: host "{typed}" is more than a name\ncredwire: hint: {option}\n'


def test_programs_that_cannot_run_and_root_are_refused(stage: Stage) -> None:
    """A file without an x bit, a script without interpreter, and root without --allow-root each say what they are."""
    stage.directory.chmod(0o755)
    plain, script = stage.directory / "plain", stage.directory / "script"
    plain.write_text("x")
    plain.chmod(0o644)
    script.write_text("#!/nonexistent/python\n")
    script.chmod(0o755)
    cases = (
        (str(plain), "61001", "is a file that nobody may execute"),
        (str(script), "61001", "there is no such interpreter as its #! line names"),
        ("/usr/bin/true", "root", "say --allow-root"),
        ("/usr/bin/true", "²", "there is no user"),
        ("/usr/bin/true", "9" * 5000, "there is no user"),
    )
    for exe, user, says in cases:
        words = ["--host", "api.example.org", "--exe", exe, "--user", user, "--owner", "me@example.org", "--bearer"]
        code, _, err = stage.within(["init", "api-key", "billing", *words], b"key\n")
        assert code == Exit.REFUSED
        assert says in err


def test_sealing_needs_root_before_a_secret_is_asked_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may not seal hears so at once: nothing reads their secret."""
    config = stage.directory / "credwired.yaml"
    config.write_text(config.read_text().replace("seal: {with: none}", "seal: {with: auto}"))
    assert "auto" in config.read_text()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(secret_io, "read", lambda *_: pytest.fail("a secret was asked for"))
    for words in ([*INIT, "--bearer"], ["seal", "billing"]):
        code, _, err = stage.within(words, b"key\n")
        assert code == Exit.NOT_ALLOWED
        assert "sealing needs root: uid 1000 may not" in err


def test_detaching_is_roots(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An ordinary user who detaches hears one sentence, not a traceback."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        start_io.detach_all(stage.directory / "credwired.yaml")
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().err == "credwired: error: detaching needs root\ncredwired: hint: sudo credwired detach\n"


@pytest.mark.parametrize("secret", [b"", b"\n", b"two\nlines\n", b"nul\0", b"x" * (secret_io.MOST_BYTES + 1)])
def test_what_is_no_secret_is_refused(stage: Stage, secret: bytes) -> None:
    """Empty, of several lines or endless: refused without a byte of it in the answer."""
    code, out, err = stage.within([*INIT, "--bearer"], secret)
    assert (code, out) == (Exit.REFUSED, "")
    assert not (stage.directory / "secrets").exists()
    assert "lines" not in err
    assert "nul" not in err
    assert len(err) < 300


def test_silent_input_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe into which nobody writes ends in an error, not in waiting."""
    reading, writing = os.pipe()
    monkeypatch.setattr(secret_io, "SILENCE_S", 0.05)
    with os.fdopen(reading) as silent, os.fdopen(writing, "w"):
        monkeypatch.setattr(sys, "stdin", silent)
        with pytest.raises(CommandError, match="is silent"):
            secret_io.read("-", "secret")


def test_terminal_is_asked_and_the_secret_is_not_shown(stage: Stage) -> None:
    """On a terminal init asks for what is missing; what is typed as the secret never comes back."""
    answers = [
        ("host", "https://api.example.org/v1"), ("--host api.example.org", "api.example.org"),
        ("how it is sent", "header"), ("header", "X-Api-Key"), ("program", "/nope"), ("no program", "/usr/bin/true"),
        ("user", "no-such-user"), ("no user", "61001"),
        ("owner", "me@example.org"), ("secret", "key-4711"),
    ]  # fmt: skip
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "control.cli.main", "init", "api-key", "billing"]
    with subprocess.Popen(
        command, env=stage.environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    ) as child:
        os.close(follower)
        seen = ""
        try:
            for question, answer in answers:
                seen += until(leader, question, ": ")
                os.write(leader, answer.encode() + b"\n")
            seen += until(leader, "then credwire reload")
        finally:
            child.kill() if child.poll() is None and "then credwire reload" not in seen else None
        assert child.wait(10) == 0
    os.close(leader)
    assert "key-4711" not in seen
    assert (stage.directory / "secrets" / "billing").read_bytes() == b"key-4711\n"


def until(terminal: int, *words: str) -> str:
    """Read until the words came, one behind the other."""
    seen = ""
    while True:
        rest = seen
        for word in words:
            _, found, rest = rest.partition(word)
            if not found:
                break
        else:
            return seen
        assert select.select([terminal], [], [], 10)[0], seen
        seen += os.read(terminal, 4096).decode()


@ROOT
def test_secret_is_sealed_for_its_name(stage: Stage) -> None:
    """With sealing on, neither init nor seal leaves the secret readable; it opens here, under its name."""
    from control.credential.seal import SealError
    from control.daemon.config_io import load_config
    from control.daemon.seal_io import open_seals, read_secret

    path = stage.directory / "credwired.yaml"
    (stage.directory / "key").write_bytes(os.urandom(32))
    (stage.directory / "key").chmod(0o600)
    path.write_text(path.read_text().replace("{with: none}", f"{{with: file, keyFile: {stage.directory}/key}}"))
    assert stage.within([*INIT, "--bearer"], b"key-4711\n")[0] == 0
    config, _ = load_config(path)
    assert config is not None
    seals = open_seals(config)
    try:
        file = stage.directory / "secrets" / "billing"
        for secret in (b"key-4711", b"key-4712"):
            raw = file.read_bytes()
            assert secret not in raw
            assert read_secret(raw, "billing", seals.secrets_fd) == Secret(secret)
            with pytest.raises(SealError):
                read_secret(raw, "another", seals.secrets_fd)
            assert stage.within(["seal", "billing"], b"key-4712\n")[:2] == (0, f"replaced {file}: sealed, mode 0600\n")
        code, out, _ = stage.within(["seal", "billing", "--to", "-"], b"key-4713\n")
        assert (code, read_secret(out.encode("utf-8", "surrogateescape"), "billing", seals.secrets_fd)) == (0, Secret(b"key-4713"))
        assert mode(file) == 0o600
        lying = stage.directory / "client-secret"
        lying.write_bytes(b"key-4714\n")
        assert stage.within(["seal", str(lying)])[:2] == (0, f"replaced {lying}: sealed, mode 0600\n")
        assert read_secret(lying.read_bytes(), "client-secret", seals.secrets_fd) == Secret(b"key-4714")
        code, out, err = stage.within(["seal", str(lying)])
        assert (code, out) == (Exit.REFUSED, "")
        assert "is sealed already" in err
    finally:
        os.close(seals.keys_fd)
        os.close(seals.secrets_fd)


@ROOT
def test_whole_switch_is_remembered_with_who_and_until(stage: Stage) -> None:
    """Off and on work without a daemon; what was said stands where the next start finds it."""
    code, out, _ = stage.within(["off", "--for", "15m", "-o", "json"])
    told = json.loads(out)
    assert (code, told["off"]["everything"], told["attached"], told["faults"]) == (0, True, False, [])
    kept = json.loads((stage.state / "off.json").read_text())
    assert kept["until"] == told["until"] == told["off"]["until"]
    assert kept["until"] - kept["at"] == pytest.approx(900, abs=1)
    assert kept["by"].startswith("uid 0")
    assert stage.within(["on"])[0] == 0
    assert not (stage.state / "off.json").exists()


def test_whole_switch_is_roots(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody else hears what they may do instead; nothing is touched."""
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    for word in ("off", "on"):
        code, out, err = stage.within([word])
        assert (code, out) == (Exit.NOT_ALLOWED, "")
        assert "needs root: uid 1001 may not" in err
        assert f"sudo credwire {word}" in err
    assert not (stage.state / "off.json").exists()


def test_refreshed_digest_changes_its_line_alone(stage: Stage) -> None:
    """A pinned digest that is no longer the file's is shown, then written, and nothing else in the document changes."""
    program = stage.directory / "program"
    program.write_bytes(b"\x7fELF new")
    file = stage.directory / "good" / "oci.yaml"
    text = file.read_text().replace(
        "unix:exe:path: /usr/bin/python3.11\n", f"unix:exe:path: {program}\n      unix:exe:sha256: {'a' * 64}\n"
    )
    text = text.replace("      script:path: /opt/oci/bin/oci\n", "")
    file.write_text(text)
    code, out, _ = stage.within(["identity", "refresh-digest", "oci-cli", "--diff"])
    assert (code, file.read_text()) == (0, text)
    assert f"-      unix:exe:sha256: {'a' * 64}\n" in out
    assert stage.within(["identity", "refresh-digest", "--write"])[0] == 0
    changed = file.read_text()
    assert changed != text
    assert [line for line in changed.splitlines() if "sha256" not in line] == [line for line in text.splitlines() if "sha256" not in line]
    assert stage.within(["identity", "refresh-digest"])[1] == "every pinned digest is that of its file\n"


def test_program_is_found_as_the_kernel_will_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executable is itself, a script its interpreter with the script's path, a script of a script the last interpreter."""

    def script(name: str, line: str) -> str:
        path = tmp_path / name
        path.write_text(line)
        path.chmod(0o755)
        return str(path)

    shell = os.path.realpath("/bin/sh")
    plain = script("plain", "#!/bin/sh -e\n")
    assert program_io.find(plain) == (plain, shell, plain, False)
    spaced = script("spaced", "#! \t/bin/sh\texit")
    assert program_io.find(spaced) == (spaced, shell, spaced, False)
    outer = script("outer", f"#!{plain}\n")
    assert program_io.find(outer) == (outer, shell, outer, False)
    by_env = program_io.find(script("by-env", "#!/usr/bin/env python3\n"))
    assert by_env is not None
    assert by_env.by_env
    assert program_io.find(script("dangling", "#!/no/such/interpreter\n")) is None
    assert program_io.find(script("itself", f"#!{tmp_path}/itself\n")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_io.find("plain") == (plain, shell, plain, False)
    assert program_io.find("sh") is None
    assert program_io.find("/usr/bin/true") == ("/usr/bin/true", os.path.realpath("/usr/bin/true"), "", False)


@ROOT
def test_closed_directory_of_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of PATH that the user may not search ends nothing, as with execvp(3)."""
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}/closed:/usr/bin")
    os.seteuid(61001)
    try:
        found = program_io.find("true")
    finally:
        os.seteuid(0)
    assert found is not None
    assert found.given == "/usr/bin/true"


@ROOT
def test_who_may_not_write_hears_where() -> None:
    """Without rights: which file, as whom, and exit code 4; nothing is left behind."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        stage = Stage(Path(name))
        os.seteuid(61001)
        try:
            code, out, err = stage.within([*INIT, "--bearer"], b"key\n")
            sealing = stage.within(["seal", "billing"], b"key\n")
        finally:
            os.seteuid(0)
        assert (code, out) == (Exit.NOT_ALLOWED, "")
        assert f"{name}/good/billing.yaml may not be written by uid 61001" in err
        assert sealing[0] == Exit.NOT_ALLOWED
        assert [path.name for path in (stage.directory / "good").iterdir()] == ["oci.yaml"]


def test_wishes_of_a_command_line() -> None:
    """URLs are found wherever they stand, once each, without what may be secret; the method as curl is told it."""
    found = preflight.wishes
    assert found(["https://me:pw@api.example.org/v1?key=s#x"]) == [("https://api.example.org/v1", "GET")]
    assert found(["--url=https://a.example:8443/x", "-X", "PUT", "https://a.example:8443/x"]) == [("https://a.example:8443/x", "PUT")]
    assert found(["-XPOST", "http://[fd00::1]/"]) == [("http://[fd00::1]/", "POST")]
    assert found(["--request=DELETE", "https://a.example", "-d", "x"]) == [("https://a.example/", "DELETE")]
    assert found(["-I", "https://a.example/"]) == [("https://a.example/", "HEAD")]
    assert found(["https://[bad", "https://a:port/", "https://"]) == []
    assert len(found([f"https://a.example/{number}" for number in range(99)])) == preflight.MAX_URLS


def test_placeholders_are_what_clients_take() -> None:
    """Lengths and forms that the clients check; nothing in them could be taken for a credential of somebody's."""
    assert (len(placeholder.ACCESS_KEY), len(placeholder.SECRET_KEY)) == (20, 40)
    text = placeholder.joined("[a]\nx=1\n", placeholder.aws("b"))
    assert placeholder.profiles(text) == ["a", "b"]
    assert placeholder.section(text, "a") == "[a]\nx=1\n"
    assert placeholder.section(text, "c") == ""


def test_real_profile_that_is_a_link_stays_one(stage: Stage) -> None:
    """A home directory under version control keeps its links: the file behind is the one that grows."""
    home = stage.directory / "home"
    (home / ".aws").mkdir(parents=True)
    behind = stage.directory / "dotfiles"
    behind.write_text("[real]\naws_access_key_id=AKIAREAL\n")
    (home / ".aws" / "credentials").symlink_to(behind)
    assert stage.within(["placeholder", "aws", "--write"])[0] == 0
    assert (home / ".aws" / "credentials").is_symlink()
    assert placeholder.profiles(behind.read_text()) == ["real", "default"]
