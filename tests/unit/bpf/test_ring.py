"""
The ring buffer's reader, over memory laid out as kernel/bpf/ringbuf.c lays it out.

In: a memfd in place of the map.  Out: how much one call takes.
"""

import mmap
import os
import struct

from bpf.ring_io import Ring

DATA_BYTES = mmap.PAGESIZE


def ring_of(elements: list[bytes]) -> Ring:
    """Lay out the consumer's page, the producer's page and the data, twice."""
    data = b"".join(struct.pack("<II", len(e), 0) + e.ljust((len(e) + 7) & ~7, b"\0") for e in elements)
    fd = os.memfd_create("ring")
    os.truncate(fd, 2 * mmap.PAGESIZE + 2 * DATA_BYTES)
    os.pwrite(fd, struct.pack("<Q", len(data)), mmap.PAGESIZE)
    os.pwrite(fd, data, 2 * mmap.PAGESIZE)
    ring = Ring(fd, DATA_BYTES)
    os.close(fd)
    return ring


def test_one_call_takes_no_more_than_it_was_told_and_the_next_one_goes_on() -> None:
    """Programs may write for ever as fast as we read; whoever reads must get back to its other work."""
    elements = [b"event %d" % n for n in range(10)]
    ring = ring_of(elements)
    assert ring.drain(4) == elements[:4]
    assert ring.drain(4) == elements[4:8]
    assert ring.drain(4) == elements[8:]
    assert ring.drain(4) == []
    ring.close()
