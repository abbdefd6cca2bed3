"""Simulated global memory, in which every access is checked."""

import bisect

import numpy as np

from .launches import AccessError
from .types import COMPLEX, UINT


class Buffer:
    __slots__ = ("base", "end", "raw", "shadow", "views", "writable", "written")

    def __init__(self, base, raw, writable=True, uninit=False):
        self.base = base
        self.end = base + raw.size
        self.raw = raw
        self.writable = writable
        self.written = np.zeros(raw.size, bool) if uninit else None
        self.shadow = None  # block that stored each byte in the current launch, -1 for none
        self.views = {}

    def rows(self, dtype):
        """The buffer as items of dtype, or None if its base is not aligned for that."""
        size = dtype.itemsize
        if self.base % size:
            return None
        if dtype not in self.views:
            self.views[dtype] = self.raw[: self.raw.size // size * size].view(dtype)
        return self.views[dtype]


class Memory:
    """Simulated global memory: buffers at addresses, with unmapped gaps between them."""

    GAP = 4096

    def __init__(self):
        self.buffers = []
        self.bases = []
        self.next = 0x10000000

    def add(self, base, raw, writable=True, uninit=False):
        """Map the uint8 array `raw` at address `base`."""
        i = bisect.bisect(self.bases, base)
        self.bases.insert(i, base)
        self.buffers.insert(i, Buffer(base, raw, writable, uninit))

    def alloc(self, array, writable=True, uninit=False, offset=0):
        """Map a contiguous array and return its address.

        uninit: reading a byte before the kernel has written it is an error.
        offset: shift of the address in bytes, to test misaligned storage offsets.
        """
        raw = array.reshape(-1).view(np.uint8)
        base = self.next + offset
        self.add(base, raw, writable, uninit)
        self.next = (base + raw.size + self.GAP + 255) // 256 * 256
        return base

    def find(self, addr, size, align, what):
        """Check an access and yield (buffer, selection of lanes, offsets)."""
        if align > 1:
            bad = (addr & np.uint64(align - 1)) != 0
            if bad.any():
                lane = int(bad.argmax())
                raise AccessError(f"misaligned {align}-byte {what}", lane)
        i = bisect.bisect(self.bases, int(addr.min())) - 1
        if i >= 0 and int(addr.max()) + size <= self.buffers[i].end:
            buf = self.buffers[i]
            return [(buf, slice(None), (addr - np.uint64(buf.base)).astype(np.int64))]
        if not self.bases:
            raise AccessError(f"{what} without any buffer", 0)
        bases = np.array(self.bases, np.uint64)
        ends = np.array([b.end for b in self.buffers], np.uint64)
        which = np.searchsorted(bases, addr, "right").astype(np.int64) - 1
        bad = (which < 0) | (addr + np.uint64(size) > ends[which])
        if bad.any():
            lane = int(bad.argmax())
            at = int(addr[lane])
            near = min(self.buffers, key=lambda b: min(abs(at - b.base), abs(at - b.end)))
            raise AccessError(
                f"{what} out of bounds in {int(bad.sum())} thread(s): {at - near.base:+d} bytes "
                f"from the start of a {near.raw.size}-byte buffer",
                lane,
            )
        parts = []
        for i in np.unique(which):
            buf = self.buffers[i]
            sel = np.nonzero(which == i)[0]
            parts.append((buf, sel, (addr[sel] - np.uint64(buf.base)).astype(np.int64)))
        return parts

    def load(self, addr, dtype, count, block, races):
        """Load `count` items of dtype per lane: an array of shape (lanes, count)."""
        size = dtype.itemsize * count
        out = None
        for buf, sel, off in self.find(addr, size, size, "load"):
            if buf.written is not None and not buf.written[off[:, None] + np.arange(size)].all():
                raise AccessError("load of never-written memory")
            if races and buf.shadow is not None:
                who = buf.shadow[off]
                bad = (who >= 0) & (who != block[sel])
                if bad.any():
                    raise AccessError(
                        f"load of a value that block {int(who[bad.argmax()])} stores in the same "
                        "launch (set launches.CHECK_BLOCK_RACES = False if that is intended)"
                    )
            item = gather(buf, off, size).view(dtype).reshape(-1, count)
            if isinstance(sel, slice):
                return item
            if out is None:
                out = np.empty((addr.size, count), dtype)
            out[sel] = item
        return out

    def store(self, addr, data, block, races):
        """Store the rows of the uint8 array `data`."""
        size = data.shape[1]
        if addr.size > 1 and not (addr[1:] > addr[:-1]).all():
            order = np.argsort(addr, kind="stable")
            same = addr[order[1:]] == addr[order[:-1]]
            if same.any():
                first, second = order[:-1][same], order[1:][same]
                differ = (data[first] != data[second]).any(1)
                if differ.any():
                    lane = int(second[differ.argmax()])
                    raise AccessError("two threads store different values to one address", lane)
        for buf, sel, off in self.find(addr, size, size, "store"):
            if not buf.writable:
                raise AccessError("store to a read-only buffer")
            if races:
                if buf.shadow is None:
                    buf.shadow = np.full(buf.raw.size, -1, np.int32)
                rows, index = buf.shadow, off[:, None] + np.arange(size)
                if buf.base % size == 0:
                    rows, index = rows[: rows.size // size * size].reshape(-1, size), off // size
                who = rows[index]
                bad = (who >= 0) & (who != block[sel][:, None])
                if bad.any():
                    raise AccessError(
                        f"block {int(who[bad][0])} stores to the same address "
                        "(set launches.CHECK_BLOCK_RACES = False if that is intended)",
                        int(np.arange(addr.size)[sel][bad.any(1).argmax()]),
                    )
                rows[index] = block[sel][:, None]
            scatter(buf, off, size, np.ascontiguousarray(data[sel]))
            if buf.written is not None:
                buf.written[off[:, None] + np.arange(size)] = True

    def forget_blocks(self):
        for buf in self.buffers:
            buf.shadow = None


def item_dtype(size):
    return UINT.get(size) or (COMPLEX if size == 16 else np.dtype(f"V{size}"))


def gather(buf, off, size):
    """Bytes of every access, as a 1-d array of items."""
    dtype = item_dtype(size)
    rows = buf.rows(dtype)
    if rows is not None:
        return rows[off // size]
    return buf.raw[off[:, None] + np.arange(size)]


def scatter(buf, off, size, data):
    rows = buf.rows(item_dtype(size))
    if rows is not None:
        rows[off // size] = data.view(item_dtype(size))[:, 0]
    else:
        buf.raw[off[:, None] + np.arange(size)] = data
