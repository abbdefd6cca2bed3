"""Loads, stores and atomics of all simulated threads, in global, shared and local memory."""

import numpy as np

from . import launches
from .launches import AccessError, PTXError
from .registers import Registers

# Windows of the generic address space. Global memory lies below them.
LOCAL_BASE = 1 << 56
SHARED_BASE = 1 << 57


class Spaces(Registers):
    def spaces(self, ins, addr):
        """Yield (space, selection, addresses within the space); generic addresses are sorted
        out."""
        for space in ("global", "shared", "local"):
            if space in ins.mods:
                return [(space, slice(None), addr)]
        if "const" in ins.mods:
            return [("global", slice(None), addr)]
        top = int(addr.max())
        if top < LOCAL_BASE:
            return [("global", slice(None), addr)]
        out = []
        bounds = (
            ("global", 0, LOCAL_BASE),
            ("local", LOCAL_BASE, SHARED_BASE),
            ("shared", SHARED_BASE, 1 << 64),
        )
        for space, lo, hi in bounds:
            sel = np.nonzero((addr >= np.uint64(lo)) & (addr <= np.uint64(hi - 1)))[0]
            if sel.size:
                out.append((space, sel, addr[sel] - np.uint64(lo)))
        return out

    def on_chip(self, space, addr, size, sel):
        """Flat byte indices of a shared or local access, checked."""
        limit, owner = (self.shared_size, self.cta) if space == "shared" else (self.local_size, None)
        bad = addr + np.uint64(size) > np.uint64(limit)
        bad |= addr > np.uint64(1 << 55)
        if bad.any():
            lane = int(bad.argmax())
            raise AccessError(
                f"{space} memory out of bounds: byte {int(addr[lane])} of {limit}",
                lane if isinstance(sel, slice) else int(sel[lane]),
            )
        bad = (addr & np.uint64(size - 1)) != 0
        if bad.any():
            raise AccessError(f"misaligned {size}-byte {space} access", int(bad.argmax()))
        owner = self.lanes(owner if owner is not None else np.arange(self.n))[sel]
        return (owner * limit + addr.astype(np.int64))[:, None] + np.arange(size)

    def check_shared(self, index, sel, write, atomic=False):
        if not launches.CHECK_SHARED_RACES or self.padded == 32:
            return
        if self.shared_writer is None:
            self.shared_writer = np.full(self.shared.size, -1, np.int64)
            self.shared_reader = np.full(self.shared.size, -1, np.int64)
        stride = self.warp[-1] + 2
        epoch = self.lanes(self.epoch[self.cta])[sel][:, None]
        warp = self.lanes(self.warp)[sel][:, None]
        mine = epoch * stride + warp

        def conflict(codes):
            return ((codes // stride == epoch) & (codes % stride != warp)).any()

        if not atomic:
            hit = conflict(self.shared_writer[index])
            hit = hit or (write and conflict(self.shared_reader[index]))
            if hit:
                raise AccessError(
                    "shared-memory race: another warp touched this byte, with no barrier between "
                    "(set launches.CHECK_SHARED_RACES = False if that is intended)"
                )
        if atomic:
            self.shared_writer[index] = epoch * stride + stride - 1
        elif write:
            self.shared_writer[index] = mine
        else:
            self.shared_reader[index] = mine

    def read(self, ins, addr, dtype, count):
        """Load for the active lanes: array (lanes, count)."""
        size = dtype.itemsize * count
        out = None
        for space, sel, a in self.spaces(ins, addr):
            if space == "global":
                races = self.block_races and not self.kernel.fences
                item = self.mem.load(a, dtype, count, self.lanes(self.block_id)[sel], races)
                self.launch.bytes_loaded += a.size * size
            else:
                index = self.on_chip(space, a, size, sel)
                if space == "shared":
                    self.check_shared(index, sel, False)
                item = getattr(self, space)[index].view(dtype)
            if isinstance(sel, slice):
                return item
            if out is None:
                out = np.zeros((addr.size, count), dtype)
            out[sel] = item
        return out

    def write(self, ins, addr, data):
        """Store the rows of a uint8 array for the active lanes."""
        size = data.shape[1]
        for space, sel, a in self.spaces(ins, addr):
            if space == "global":
                self.mem.store(a, data[sel], self.lanes(self.block_id)[sel], self.block_races)
                self.launch.bytes_stored += a.size * size
            else:
                index = self.on_chip(space, a, size, sel)
                if space == "shared":
                    self.check_shared(index, sel, True)
                getattr(self, space)[index] = data[sel]

    def read_modify_write(self, ins, addr, dtype, update, ufunc=None, values=None):
        """Atomically apply update(old, lane_selection) -> new, lane after lane; returns old
        values."""
        size = dtype.itemsize
        old = np.zeros(addr.size, dtype)
        for space, sel, a in self.spaces(ins, addr):
            lanes = np.arange(addr.size)[sel]
            if space == "global":
                self.launch.bytes_atomic += a.size * size
                parts = self.mem.find(a, size, size, "atomic")
                for buf, part, off in parts:
                    if not buf.writable:
                        raise AccessError("atomic on a read-only buffer")
                    rows = buf.rows(dtype)
                    if rows is None:
                        raise AccessError("atomic on a buffer that is not aligned")
                    old[lanes[part]] = serialise(rows, off // size, lanes[part], update, ufunc, values)
            else:
                index = self.on_chip(space, a, size, sel)
                if space == "shared":
                    self.check_shared(index, sel, True, atomic=True)
                rows = getattr(self, space)
                flat = index[:, 0] // size
                limit = self.shared_size if space == "shared" else self.local_size
                if limit % size:
                    raise PTXError("atomic on shared memory of an odd size")
                old[lanes] = serialise(rows.view(dtype), flat, lanes, update, ufunc, values)
        return old


def serialise(rows, index, lanes, update, ufunc=None, values=None):
    """rows[i] = update(rows[i], lane) for each (i, lane) in lane order; returns the old values.

    Vectorised over distinct i, or along the lanes of one i where `ufunc` does the update.
    """
    old = np.empty(index.size, rows.dtype)
    order = np.argsort(index, kind="stable")
    sorted_index = index[order]
    starts = np.nonzero(np.r_[True, sorted_index[1:] != sorted_index[:-1]])[0]
    lengths = np.diff(np.r_[starts, index.size])
    if ufunc is not None and lengths.size < lengths.max():
        for start, length in zip(starts, lengths, strict=True):
            at = order[start : start + length]
            i = index[at[0]]
            steps = ufunc.accumulate(np.r_[rows[i : i + 1], values[lanes[at]]])
            old[at] = steps[:-1]
            rows[i] = steps[-1]
        return old
    for k in range(int(lengths.max())):
        at = order[starts[lengths > k] + k]
        values = rows[index[at]]
        old[at] = values
        rows[index[at]] = update(values, lanes[at])
    return old
