"""I7, I15: other bytes at the trusted path, by mounts of one's own.  Neither path text nor a namespace lends an identity.  Needs root."""

import shutil
from pathlib import Path

import pytest

from control.reason import Reason
from tests.e2e.lib.hand import Hand, HandError
from tests.e2e.lib.scene import IDENTITY, USERS, Scene
from tests.e2e.lib.stage import USER_UID


def _gets_nothing(scene: Scene, hand: Hand) -> str:
    """Refused, or passed on unsigned; gives the reason of the refusal."""
    with scene.watch() as seen:
        try:
            assert hand.request(IDENTITY, "GET", USERS).status == 401
        except HandError:
            return str(seen.audit(event="connection-refused")["reason"])
        finally:
            assert seen.nothing_given()
    return ""


@pytest.mark.parametrize("what", ["exe", "script"])
def test_a_bind_mount_over_the_trusted_path_is_seen(scene: Scene, what: str) -> None:
    """A copy of python3, or another script, mounted over the genuine path in a private namespace: right text, wrong file."""
    python = Path("/usr/bin/python3").resolve()
    copy, over = scene.stage.directory / f"mounted-{what}", python if what == "exe" else scene.bin / "main"
    shutil.copy(python if what == "exe" else scene.bin / "stranger", copy)
    command = f"mount --bind {copy} {over} && exec setpriv --reuid {USER_UID} --regid {USER_UID} --clear-groups {scene.bin / 'main'}"
    with scene.run(["/usr/bin/unshare", "-m", "/bin/sh", "-c", command], uid=0) as hand:
        assert hand.python("result = os.readlink('/proc/self/exe'), os.getuid()") == [str(python), USER_UID]
        assert _gets_nothing(scene, hand) in ("", Reason.NAMESPACE_FOREIGN)


@pytest.mark.parametrize("flags", ["-U", "-Ur", "-Urm"])
def test_a_user_namespace_of_ones_own_is_foreign(scene: Scene, flags: str) -> None:
    """unshare by the bound user, then the genuine executable and script (I15)."""
    try:
        hand = scene.run(["/usr/bin/unshare", flags, str(scene.bin / "main")])
    except Exception as error:
        pytest.skip(f"this kernel gives the user no namespace: {error}")
    with hand:
        assert _gets_nothing(scene, hand) in ("", Reason.NAMESPACE_FOREIGN)
