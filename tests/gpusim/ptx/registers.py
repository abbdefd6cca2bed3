"""The registers of all simulated threads: each is an array with an item for every thread, or with one item where all
threads have the same."""

import re

import numpy as np

from .instructions import literal
from .launches import PTXError
from .types import DTYPE, PACKED, UINT, bf16_to_f32, f32_to_bf16, flush_subnormals


class Registers:
    def operand(self, name):
        """Value of something that is not a written register."""
        v = self.special.get(name)
        if v is not None:
            return v
        if name in self.kernel.widths:
            width = self.kernel.widths[name]
            return np.full(1, (1 << 8 * width) - 1, UINT[width]) if width else np.zeros(1, bool)
        if name[:1].isdigit() or (name[:1] == "-" and name[1:2].isdigit()):
            return None
        if name.startswith(("%clock", "%globaltimer")):
            return np.zeros(1, np.uint64)
        raise PTXError(f"unknown operand {name}")

    def get(self, name, t):
        """Operand as an array of type t, of shape (lanes,), or (1,) where it is the same for
        all."""
        dtype = DTYPE[t]
        v = self.regs.get(name)
        if v is None:
            v = self.literals.get((name, t))
            if v is not None:
                return v
            if name[0] == "-" and name[1] == "%":
                return -self.get(name[1:], t)
            v = self.operand(name)
            if v is None:
                bits = literal(name) & ((1 << 8 * dtype.itemsize) - 1)
                v = np.array([bits], UINT[dtype.itemsize]).view(dtype)
                self.literals[name, t] = v
                return v
        if v.dtype.itemsize != dtype.itemsize:
            v = v.astype(UINT[dtype.itemsize])
        return v.view(dtype)

    def pred(self, name):
        if name[0] == "!":
            return ~self.pred(name[1:])
        v = self.regs.get(name)
        if v is None:
            if name.lstrip("-").isdigit():  # LLVM writes true as -1
                return np.array([int(name) != 0])
            return np.zeros(1, bool)
        return v

    def put(self, name, v):
        """Assign the active lanes of a register; narrow values are extended to its width."""
        if name == "_":
            return
        if v.dtype != bool:
            width = self.kernel.widths.get(name, v.dtype.itemsize)
            if v.dtype.kind == "i" and v.dtype.itemsize < width:
                v = v.astype(f"i{width}")
            if v.dtype.kind not in "u":
                v = np.ascontiguousarray(v).view(UINT[v.dtype.itemsize])
            if v.dtype.itemsize != width:
                v = v.astype(UINT[width])
        if self.mask is not None:
            old = self.regs.get(name)
            if old is None:
                old = np.array([-1]).astype(v.dtype) if v.dtype != bool else np.zeros(1, bool)
            v = np.where(self.mask, v, old)
        self.regs[name] = v

    def put_active(self, name, v):
        """Assign from an array that has one item per active lane."""
        if self.mask is not None and name != "_":
            full = np.zeros(self.n, v.dtype)
            full[self.mask] = v
            v = full
        self.put(name, v)

    def full(self, v):
        return v if v.shape[0] == self.n else np.broadcast_to(v, (self.n,))

    def lanes(self, v):
        """Restrict to the active lanes."""
        v = self.full(v)
        return v if self.mask is None else v[self.mask]

    def floats(self, name, t, ins=None):
        """Components of a floating-point operand (two for packed types) in a numpy float type."""
        if t in PACKED:
            part, size = PACKED[t]
            raw = self.get(name, t)
            pair = np.ascontiguousarray(raw).view(UINT[size]).reshape(-1, 2)
            parts = [np.ascontiguousarray(pair[:, i]) for i in (0, 1)]
        else:
            part, parts = t, [self.get(name, t)]
        if part == "bf16":
            parts = [bf16_to_f32(p) for p in parts]
        else:
            parts = [p.view(DTYPE[part]) for p in parts]
        if ins is not None and "ftz" in ins.mods:
            parts = [flush_subnormals(p) for p in parts]
        return parts

    def put_floats(self, name, t, parts, ins=None):
        part = PACKED[t][0] if t in PACKED else t
        if ins is not None:
            if "sat" in ins.mods:
                parts = [np.where(p > 0, np.minimum(p, p.dtype.type(1)), p.dtype.type(0)) for p in parts]
            if "relu" in ins.mods:
                parts = [np.where(p < 0, p.dtype.type(0), p) for p in parts]
            if "ftz" in ins.mods:
                parts = [flush_subnormals(p) for p in parts]
        if part == "bf16":
            parts = [f32_to_bf16(p) for p in parts]
        else:
            parts = [p.astype(DTYPE[part], copy=False) for p in parts]
        if t in PACKED:
            pair = np.stack(
                np.broadcast_arrays(*[np.ascontiguousarray(p).view(UINT[PACKED[t][1]]) for p in parts]),
                1,
            )
            self.put(name, np.ascontiguousarray(pair).view(DTYPE[t])[:, 0])
        else:
            self.put(name, parts[0])

    def map_floats(self, ins, fn, count):
        """dst = fn(src...), component by component."""
        types = ins.sources or (ins.type,) * count
        args = ins.args[1 : 1 + count]
        sources = [self.floats(a, t, ins) for a, t in zip(args, types, strict=True)]
        self.put_floats(ins.args[0], ins.type, [fn(*p) for p in zip(*sources, strict=True)], ins)

    def address(self, arg):
        """Addresses of the active lanes for an operand such as [%rd1+4] or [symbol]."""
        m = re.fullmatch(r"\[\s*([^\s+\]]+)\s*(?:\+\s*(-?\w+)\s*)?\]", arg)
        name = m[1]
        v = self.regs.get(name)
        if v is None:
            v = self.operand(name)
            if v is None:
                v = np.array([literal(name)], np.uint64)
        a = v.astype(np.uint64) + np.uint64(int(m[2] or "0", 0) & ((1 << 64) - 1))
        return self.lanes(a)
