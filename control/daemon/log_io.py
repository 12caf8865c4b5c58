"""
Write what happens for the one who runs the machine.

In: an event and its fields, never a secret.  Out: one JSON line on stderr, where journald or the terminal picks it up.
"""

import json
import sys
import time


def log(speaker: str, event: str, **fields: object) -> None:
    """Write one event of the process ``speaker``."""
    print(json.dumps({"at": round(time.time(), 3), "event": event, "speaker": speaker, **fields}), file=sys.stderr, flush=True)
