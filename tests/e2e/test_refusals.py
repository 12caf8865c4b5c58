"""
Each refusal with its reason: at the client, in the audit, by ``credwire explain``; and nothing of ours at the cloud.  Needs root.

Beside each stands what works: the same request by the right process, or to the right place.
"""

import json
import shutil
from pathlib import Path

import pytest

from control.reason import ABOUT, Reason
from tests.e2e.lib.hand import HandError, head
from tests.e2e.lib.scene import IDENTITY, STORAGE, UNBOUND, USERS, Scene, refused
from tests.e2e.lib.stage import STRANGER_UID

# -- not the process


def test_another_user_gets_nothing(scene: Scene) -> None:
    """The same script by another uid reaches the cloud itself, unsigned; explain says which clause did not hold."""
    with scene.watch() as seen, scene.hand(uid=STRANGER_UID) as hand:
        answer = hand.request(IDENTITY, "GET", USERS)
        assert answer.status == 401
        assert not answer.id
        told = scene.stage.credwire("explain", "--pid", str(hand.pid), f"https://{IDENTITY}{USERS}", "-o", "json")
        explained = json.loads(told.stdout)
        assert explained["reason"] == Reason.IDENTITY_NONE
        assert "unix:uid" in json.dumps(explained)
        assert seen.nothing_given()
        assert [record.verdict for record in seen.records()] == ["unsigned"]


def test_a_program_from_before_its_selector_is_told_to_start_again(scene: Scene) -> None:
    """Its exec was not watched for, so it is nobody; explain says why, and the same program started again is somebody."""
    program = scene.script("late")
    document = scene.stage.resources / "late.yaml"
    url = f"https://{IDENTITY}{USERS}"
    try:
        with scene.run([program], "main") as early:
            scene.write("late")
            scene.reload()
            told = json.loads(scene.stage.credwire("explain", "--pid", str(early.pid), url, "-o", "json").stdout)
            assert told["reason"] == Reason.IDENTITY_OLDER_THAN_DAEMON
            assert str(program) in told["said"]
        with scene.run([program], "late") as again:
            told = json.loads(scene.stage.credwire("explain", "--pid", str(again.pid), url, "-o", "json").stdout)
            assert (told["reason"], told["identity"]) == (Reason.GRANTED, "late")
    finally:
        document.unlink()
        scene.reload()


def _copied_script(scene: Scene) -> list[str | Path]:
    copy = scene.stage.directory / "copied"
    shutil.copy(scene.bin / "main", copy)
    return [copy]


def _by_argv(scene: Scene) -> list[str | Path]:
    return ["/usr/bin/python3", scene.bin / "main"]


def _copied_python(scene: Scene) -> list[str | Path]:
    copy = scene.stage.directory / "python3-copy"
    shutil.copy(Path("/usr/bin/python3").resolve(), copy)
    return [copy, scene.bin / "main"]


def _script_of_nobody(scene: Scene) -> list[str | Path]:
    return [scene.bin / "stranger"]


@pytest.mark.parametrize("argv", [_copied_script, _by_argv, _copied_python, _script_of_nobody])
def test_what_only_resembles_the_program_gets_nothing(scene: Scene, argv: object) -> None:
    """A copy of the script, the script as an argument, a copy of python3, another script: the cloud itself, unsigned."""
    with scene.watch() as seen, scene.run(argv(scene)) as hand:  # type: ignore[operator]
        answer = hand.request(IDENTITY, "GET", USERS)
        assert (answer.status, answer.id) == (401, "")
        told = scene.stage.credwire("explain", "--pid", str(hand.pid), f"https://{IDENTITY}{USERS}", "-o", "json")
        assert json.loads(told.stdout)["reason"] == Reason.IDENTITY_NONE
        assert seen.nothing_given()
    with scene.hand() as genuine:
        assert genuine.request(IDENTITY, "GET", USERS).status == 200


def test_two_identities_that_claim_one_process_are_refused(scene: Scene) -> None:
    """Neither gets it: the connection ends, the audit names the reason, validate had warned, explain still knows by id."""
    with scene.watch() as seen, scene.hand("twin") as hand:
        with pytest.raises(HandError) as met:
            hand.open(IDENTITY)
        assert met.value.kind in ("SSLError", "SSLZeroReturnError", "ConnectionResetError")
        line = seen.audit(event="connection-refused", reason=Reason.IDENTITY_AMBIGUOUS)
        assert line["pid"] == hand.pid
        assert line["hint"] == ABOUT[Reason.IDENTITY_AMBIGUOUS].hint
        assert seen.records() == []
    told = json.loads(scene.stage.credwire("explain", line["id"], "-o", "json").stdout)
    assert told["reason"] == Reason.IDENTITY_AMBIGUOUS
    assert told["facts"]["script"].endswith("/bin/twin")
    warned = scene.stage.credwire("validate", str(scene.stage.resources))
    assert "twin" in warned.stdout + warned.stderr


# -- not the place


def test_host_of_another_name_is_misdirected(scene: Scene) -> None:
    """SNI of one bound host, Host of another bound one (domain fronting, H1): 421, and the connection ends."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.open(IDENTITY)
        answer = hand.asks(number, head(STORAGE, "GET", "/n/"))
        refused(scene, seen, answer, 421, Reason.HOST_MISMATCH, explained=True)
        assert hand.do("drain", number=number)["end"] == "eof"
        assert hand.request(STORAGE, "GET", "/n/").status == 200


def test_another_path_or_method_is_refused_and_the_connection_goes_on(scene: Scene) -> None:
    """403 with the reason for each; what the binding allows works on the same connection."""
    with scene.hand() as hand:
        number = hand.open(IDENTITY)
        for method, target, reason in (
            ("GET", "/20160918/policies", Reason.PATH_NOT_ALLOWED),
            ("DELETE", "/20160918/users/ocid1", Reason.METHOD_NOT_ALLOWED),
        ):
            with scene.watch() as seen:
                refused(scene, seen, hand.asks(number, head(IDENTITY, method, target), method), 403, reason, explained=True)
        assert hand.asks(number, head(IDENTITY, "GET", USERS)).status == 200


def test_an_unbound_name_is_spliced_through(scene: Scene) -> None:
    """Untouched: the cloud's own certificate, its own answer; the audit says that it was passed, and by whom."""
    with scene.watch() as seen, scene.hand() as hand:
        number = hand.connect()
        assert "test cloud" in hand.tls(number, UNBOUND)["issuer"].lower()
        answer = hand.asks(number, head(UNBOUND, "GET", "/20160918/instances"))
        assert (answer.status, answer.id) == (401, "")
        line = seen.audit(event="connection-spliced", reason=Reason.DESTINATION_UNKNOWN)
        assert (line["host"], line["pid"]) == (UNBOUND, hand.pid)
        assert seen.nothing_given()


def test_bound_only_means_bound_names_only(scene: Scene) -> None:
    """An identity with egress bound-only is refused elsewhere, and served at its own host."""
    with scene.watch() as seen, scene.hand("narrow") as hand:
        with pytest.raises(HandError):
            hand.open(UNBOUND)
        line = seen.audit(event="connection-failed", reason=Reason.DESTINATION_UNKNOWN)
        assert (line["host"], line["identity"]) == (UNBOUND, "narrow")
        assert seen.records() == []
        assert hand.request(STORAGE, "GET", "/n/").status == 200


def test_a_private_network_answers_only_where_the_binding_names_it(scene: Scene) -> None:
    """The name is bound, but it lies at a private address that nobody named (H2): 403, nobody was asked."""
    with scene.watch() as seen, scene.hand("nowhere") as hand:
        refused(scene, seen, hand.request(IDENTITY, "GET", USERS), 403, Reason.NETWORK_NOT_ALLOWED, explained=True)
        assert not seen.records(lambda record: record.kind == "api")


def test_an_id_is_explained_after_its_process_is_gone(scene: Scene) -> None:
    """Who, what, why and what to try next; for people and as JSON."""
    with scene.watch() as seen:
        with scene.hand() as hand:
            answer = hand.request(IDENTITY, "GET", "/20160918/policies")
            pid = hand.pid
        seen.audit(id=answer.id)
    assert not Path(f"/proc/{pid}").exists()
    told = scene.stage.credwire("explain", answer.id)
    assert told.returncode in (0, 1)
    for word in (Reason.PATH_NOT_ALLOWED, "main", str(pid), "/bin/main", ABOUT[Reason.PATH_NOT_ALLOWED].hint):
        assert word in told.stdout
    unknown = scene.stage.credwire("explain", "cw-aaaaaaaaaa")
    assert unknown.returncode != 0
    assert unknown.stderr
