"""
Consume a BPF ring buffer.

In: its descriptor.  Out: the bytes of each element.  The kernel writes behind one page of positions; its data area is mapped twice in a
row, so that no element is ever torn.  Source: kernel/bpf/ringbuf.c.
"""

import ctypes
import mmap

_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER_BYTES = 8


class Ring:
    """One consumer; there must be no other."""

    def __init__(self, fd: int, data_bytes: int) -> None:
        """Map the buffer; it is polled by the descriptor of the map."""
        page = mmap.PAGESIZE
        self._mask = data_bytes - 1
        self._ours = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(fd, page + 2 * data_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._data_at = page
        self._consumed = ctypes.c_uint64.from_buffer(self._ours)

    def _produced(self) -> int:
        return int.from_bytes(self._theirs[:8], "little")

    def drain(self, most: int) -> list[bytes]:
        """Take up to ``most`` complete elements: programs may write faster than we read, and whoever reads has other work too."""
        found: list[bytes] = []
        at = self._consumed.value
        while len(found) < most and at < self._produced():
            start = self._data_at + (at & self._mask)
            header = int.from_bytes(self._theirs[start : start + 4], "little")
            if header & _BUSY:
                break  # a program is still writing this one
            size = header & ~(_BUSY | _DISCARD)
            if not header & _DISCARD:
                found.append(self._theirs[start + _HEADER_BYTES : start + _HEADER_BYTES + size])
            at += (size + _HEADER_BYTES + 7) & ~7
            self._consumed.value = at
        return found

    def close(self) -> None:
        """Unmap."""
        del self._consumed
        self._ours.close()
        self._theirs.close()
