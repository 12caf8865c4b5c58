"""What people read when they are refused: real clients print reason, id and hint, and a printed command mends what it says.  Needs root."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from control.reason import ABOUT, Reason
from tests.e2e.lib import aws_cli, oci_cli
from tests.e2e.lib.scene import IDENTITY, PARTS, USERS, Scene
from tests.e2e.lib.stage import USER_UID, Stage

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="BPF and namespaces need root"), pytest.mark.timeout(240)]

_PYTHON = Path("/usr/bin/python3").resolve()
_GIT = Path("/usr/lib/git-core/git-remote-https")
_REFUSED = "/20160918/policies"
_ASKS = """#!{python}
import requests, sys
answer = requests.get(sys.argv[1], timeout=20)
print(answer.status_code, answer.text, end="")
"""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A scene with an identity for each real client."""
    clients = ("curl", "git", "aws", "requests")
    with Stage("texts", subjects={f"ops/{part}": f"svc-{part}" for part in (*PARTS, *clients)}) as stage:
        made = Scene(stage)
        script = made.bin / "requests"
        script.write_text(_ASKS.format(python=sys.executable))
        script.chmod(0o755)
        _identity(made, "curl", exe=Path("/usr/bin/curl"))
        _identity(made, "git", exe=_GIT.resolve())
        _identity(made, "aws", script=aws_cli.install(say=stage.say))
        _identity(made, "requests", exe=Path(sys.executable).resolve(), script=script)
        credwire = made.bin / "credwire"
        credwire.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m control.cli.main --config {stage.config} "$@"\n')
        credwire.chmod(0o755)
        stage.start_daemon()
        yield made


def _identity(scene: Scene, part: str, *, exe: Path = _PYTHON, script: Path | None = None) -> None:
    """Write the documents of ``part`` with another program than the hand's."""
    scene.write(part)
    path = scene.stage.resources / f"{part}.yaml"
    text = path.read_text().replace(f"unix:exe:path: {_PYTHON}", f"unix:exe:path: {exe}")
    line = f"      script:path: {scene.bin / part}\n"
    assert line in text
    path.write_text(text.replace(line, f"      script:path: {script}\n" if script is not None else ""))


def _environment(scene: Scene, part: str) -> Mapping[str, str]:
    """The environment of a user whose clients trust the bundle of ``part``."""
    bundle = scene.stage.state / "ca" / f"{part}.pem"
    if part == "aws":
        return aws_cli.environment(scene.stage.home, bundle, USER_UID)
    trust = dict.fromkeys(("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE"), str(bundle))
    return {"PATH": "/usr/bin:/bin", "HOME": str(scene.stage.home), "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", **trust}


def _run(scene: Scene, part: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return scene.stage.client(argv, env=_environment(scene, part))


def _told(scene: Scene, text: str, reason: Reason = Reason.PATH_NOT_ALLOWED) -> str:
    """Check what a client printed, and what ``credwire explain`` says of it now that the client is gone.  Gives the id."""
    assert reason in text, text
    assert ABOUT[reason].hint in text, text
    found = re.search(r"\bcw-[a-z0-9]+", text)
    assert found, text
    scene.stage.wait_until(lambda: any(line.get("id") == found[0] for line in scene.stage.audit()), 5, "the audit line")
    explained = scene.stage.credwire("explain", found[0])
    assert reason in explained.stdout, explained
    return found[0]


# -- what each client prints


def test_curl_prints_one_line(scene: Scene) -> None:
    """Plain text with a line end; JSON for who asks for it; the headers alone for HEAD."""
    url = f"https://{IDENTITY}{_REFUSED}"
    plain = _run(scene, "curl", "curl", "-sS", url)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith("credwire: ")
    assert plain.stdout.endswith(")\n")
    assert plain.stdout.count("\n") == 1
    _told(scene, plain.stdout)
    asked = json.loads(_run(scene, "curl", "curl", "-sS", "-H", "Accept: application/json", url).stdout)
    assert (asked["code"], asked["hint"]) == (Reason.PATH_NOT_ALLOWED, ABOUT[Reason.PATH_NOT_ALLOWED].hint)
    _told(scene, asked["message"])
    head = _run(scene, "curl", "curl", "-sSI", url).stdout
    assert head.startswith("HTTP/1.1 403 Forbidden")
    _told(scene, head)


def test_git_prints_it_as_the_remotes_word(scene: Scene) -> None:
    """Git shows plain text of a server line by line behind ``remote:``."""
    done = _run(scene, "git", "git", "ls-remote", f"https://{IDENTITY}{_REFUSED}")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("remote: credwire: ")]
    _told(scene, line)


def test_python_requests_prints_it(scene: Scene) -> None:
    """``answer.text`` is the line."""
    done = _run(scene, "requests", str(scene.bin / "requests"), f"https://{IDENTITY}{_REFUSED}")
    assert done.stdout.startswith("403 credwire: "), done
    _told(scene, done.stdout)


def test_the_oci_cli_prints_it(scene: Scene) -> None:
    """As a service error of Oracle's own: code, message and request id are the reason, the line and the id."""
    profile = scene.stage.profile()
    done = scene.stage.client(
        [*profile.argv, "iam", "policy", "list", "--compartment-id", oci_cli.TENANCY], env=profile.environment
    )  # fmt: skip
    assert done.returncode != 0
    refusal_id = _told(scene, done.stderr)
    document = json.loads(done.stderr[done.stderr.index("{") :])
    assert (document["code"], document["status"], document["opc-request-id"]) == (Reason.PATH_NOT_ALLOWED, 403, refusal_id)


@pytest.mark.parametrize(
    ("words", "protocol"),
    [
        (("s3api", "list-objects-v2", "--bucket", "bucket"), "REST XML of S3"),
        (("sts", "get-caller-identity"), "query"),
        (("ec2", "describe-regions"), "query of EC2"),
        (("dynamodb", "list-tables"), "JSON 1.0"),
        (("logs", "describe-log-groups"), "JSON 1.1"),
        (("lambda", "list-functions"), "REST JSON"),
        (("route53", "list-hosted-zones"), "REST XML"),
        (("cloudwatch", "list-metrics"), "whichever it prefers: CBOR, JSON or query"),
    ],
)  # fmt: skip
def test_the_aws_cli_prints_it(scene: Scene, words: Sequence[str], protocol: str) -> None:
    """In every protocol of AWS: the code is the reason and the message the line."""
    done = _run(scene, "aws", str(aws_cli.DIRECTORY / "bin" / "aws"), "--endpoint-url", f"https://{IDENTITY}", *words)
    assert done.returncode != 0
    assert f"({Reason.PATH_NOT_ALLOWED})" in done.stderr or f"({Reason.METHOD_NOT_ALLOWED})" in done.stderr, done.stderr
    assert "credwire: " in done.stderr
    _told(scene, done.stderr)


# -- the printed command mends it


def _without_trust(scene: Scene) -> dict[str, str]:
    return {"PATH": f"{scene.bin}:/usr/bin:/bin", "HOME": str(scene.stage.home), "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}


@pytest.mark.parametrize("client", ["curl", "git", "requests"])
@pytest.mark.parametrize("how", ["eval", "run"])
def test_a_client_that_does_not_trust_us_is_mended_by_the_printed_command(scene: Scene, client: str, how: str) -> None:
    """The audit's hint is pasted as it stands: the same client, the same URL, and now the request is answered."""
    url = f"https://{IDENTITY}{USERS}"
    argv = {
        "curl": ["curl", "-sSf", url],
        "git": ["git", "ls-remote", url],
        "requests": [str(scene.bin / "requests"), url],
    }[client]
    with scene.watch() as seen:
        failed = scene.stage.client(argv, env=_without_trust(scene))
        assert failed.returncode != 0
        line = seen.audit(event="connection-failed", reason=Reason.CLIENT_DOES_NOT_TRUST_CA, identity=client)
        assert not seen.records()
        explained = scene.stage.credwire("explain", line["id"])
        assert line["hint"] in explained.stdout.replace("\n      ", " ")
    pasted, _, wrapped = line["hint"].partition(" or ")
    assert pasted == f'eval "$(credwire ca env --identity {client})"'
    assert wrapped == f"credwire run --identity {client} -- CMD"
    script = f"{pasted}\nexec {' '.join(argv)}" if how == "eval" else f"exec {wrapped.replace('CMD', ' '.join(argv))}"
    with scene.watch() as seen:
        mended = scene.stage.client(["/bin/sh", "-euc", script], env=_without_trust(scene))
        answered = seen.audit(event="request-answered", identity=client)
        assert answered["status"] < 500
        assert seen.valid()
        assert client == "git" or mended.returncode == 0, mended.stderr  # what it reads there is no repository
