"""
Show the supervisor that the event loop turns.

In: the write end of an inherited pipe.  Out: one byte every 0.2 s; when they stop the supervisor starts the process anew.
"""

import asyncio
import os

BEAT_S = 0.2


async def beat(fd: int) -> None:
    """Write a byte every BEAT_S until the pipe's far end is gone."""
    os.set_blocking(fd, False)
    while True:
        try:
            os.write(fd, b".")
        except BlockingIOError:
            pass  # the supervisor has enough unread bytes to know that we live
        await asyncio.sleep(BEAT_S)
