"""I5: a process calls itself something else.  comm and argv are shown, never matched.  Needs root."""

import json

from tests.e2e.lib.scene import IDENTITY, USERS, Scene

_RENAME = """
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(15, b"main", 0, 0, 0)
result = open("/proc/self/comm").read().strip()
"""


def test_a_name_is_no_identity(scene: Scene) -> None:
    """comm set to the script's name, argv[0] to its path: nothing is given.  Beside it a renamed genuine one is served."""
    with scene.watch() as seen:
        program = f"import os; os.execv('{scene.bin / 'stranger'}', ['{scene.bin / 'main'}'])"
        with scene.run(["/usr/bin/python3", "-c", program]) as hand:
            assert hand.python(_RENAME) == "main"
            assert hand.request(IDENTITY, "GET", USERS).status == 401
            told = scene.stage.credwire("explain", "--pid", str(hand.pid), f"https://{IDENTITY}{USERS}", "-o", "json")
            assert json.loads(told.stdout)["reason"] == "identity-none"
        assert seen.nothing_given()
        with scene.hand("main") as genuine:
            genuine.python(_RENAME.replace("main", "kworker"))
            assert genuine.request(IDENTITY, "GET", USERS).status == 200
