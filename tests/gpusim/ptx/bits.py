"""Opcodes on bits."""

import numpy as np

from .instructions import literal
from .launches import PTXError
from .registry import operation
from .types import UINT

BITWISE = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.bitwise_not}


@operation(*BITWISE)
def op_bitwise(run, ins):
    fn = BITWISE[ins.name]
    if ins.type == "pred":
        run.put(ins.args[0], fn(*[run.pred(a) for a in ins.args[1:]]))
    else:
        run.put(ins.args[0], fn(*[run.get(a, ins.type) for a in ins.args[1:]]))


@operation("cnot")
def op_cnot(run, ins):
    v = run.get(ins.args[1], ins.type)
    run.put(ins.args[0], (v == 0).astype(v.dtype))


@operation("shl", "shr")
def op_shift(run, ins):
    v, by = run.get(ins.args[1], ins.type), run.get(ins.args[2], "u32")
    bits = v.dtype.itemsize * 8
    clamped = np.minimum(by, np.uint32(bits - 1)).astype(v.dtype)
    if ins.name == "shl":
        out = np.where(by >= bits, v.dtype.type(0), v << clamped)
    else:
        out = v >> clamped
        if v.dtype.kind == "u":
            out = np.where(by >= bits, v.dtype.type(0), out)
    run.put(ins.args[0], out)


@operation("shf")
def op_funnel_shift(run, ins):
    lo, hi = run.get(ins.args[1], "u32"), run.get(ins.args[2], "u32")
    by = run.get(ins.args[3], "u32")
    by = by & np.uint32(31) if "wrap" in ins.mods else np.minimum(by, np.uint32(32))
    both = (hi.astype(np.uint64) << np.uint64(32)) | lo.astype(np.uint64)
    by = by.astype(np.uint64)
    if "l" in ins.mods:
        out = (both << by) >> np.uint64(32)
    else:
        out = both >> by
    run.put(ins.args[0], (out & np.uint64(0xFFFFFFFF)).astype(np.uint32))


@operation("lop3")
def op_lop3(run, ins):
    a, b, c = (run.get(x, "b32") for x in ins.args[1:4])
    table = literal(ins.args[4])
    out = np.zeros(1, np.uint32)
    for i in range(8):
        if table >> i & 1:
            out = out | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
    run.put(ins.args[0], out)


@operation("bfe")
def op_bit_extract(run, ins):
    v = run.get(ins.args[1], ins.type)
    wide = v.astype(np.int64 if v.dtype.kind == "i" else np.uint64)
    bits = v.dtype.itemsize * 8
    start = run.get(ins.args[2], "u32").astype(np.int64) & 255
    length = run.get(ins.args[3], "u32").astype(np.int64) & 255
    end = np.minimum(start + length, bits)
    if v.dtype.kind == "i":
        left = np.clip(64 - end, 0, 63)
        out = (wide << left) >> np.clip(left + np.minimum(start, bits - 1), 0, 63)
        out = np.where(length == 0, 0, out)
    else:
        kept = np.clip(end - start, 0, 64).astype(np.uint64)
        mask = np.where(kept >= 64, ~np.uint64(0), (np.uint64(1) << (kept & np.uint64(63))) - np.uint64(1))
        out = (wide >> np.minimum(start, 63).astype(np.uint64)) & mask
    run.put(ins.args[0], out.astype(v.dtype))


@operation("bfi")
def op_bit_insert(run, ins):
    a, b = run.get(ins.args[1], ins.type), run.get(ins.args[2], ins.type)
    start = run.get(ins.args[3], "u32").astype(np.uint64) & np.uint64(255)
    length = run.get(ins.args[4], "u32").astype(np.uint64) & np.uint64(255)
    bits = np.uint64(a.dtype.itemsize * 8)
    ones = np.where(length >= 64, ~np.uint64(0), (np.uint64(1) << (length & np.uint64(63))) - np.uint64(1))
    shift = np.minimum(start, np.uint64(63))
    mask = np.where(start >= bits, np.uint64(0), ones << shift).astype(a.dtype)
    moved = (a.astype(np.uint64) << shift).astype(a.dtype)
    run.put(ins.args[0], (moved & mask) | (b & ~mask))


@operation("popc", "clz", "brev", "bfind")
def op_bit_count(run, ins):
    v = run.get(ins.args[1], ins.type)
    if ins.name == "bfind" and v.dtype.kind == "i":
        v = np.where(v < 0, ~v, v)
    v = np.ascontiguousarray(v).view(UINT[v.dtype.itemsize])
    size = v.dtype.itemsize * 8
    big = v.astype(v.dtype.newbyteorder(">")).view(np.uint8).reshape(v.size, -1)
    bits = np.unpackbits(big, axis=1)
    if ins.name == "popc":
        out = bits.sum(1).astype(np.uint32)
    elif ins.name == "brev":
        flipped = np.packbits(bits[:, ::-1], axis=1)
        out = np.ascontiguousarray(flipped).view(v.dtype.newbyteorder(">"))[:, 0].astype(v.dtype)
    else:
        lead = np.where(v == 0, size, bits.argmax(1)).astype(np.uint32)
        if ins.name == "clz" or "shiftamt" in ins.mods:
            out = lead
        else:
            out = np.uint32(size - 1) - lead
    run.put(ins.args[0], out)


@operation("prmt")
def op_prmt(run, ins):
    if ins.type != "b32":
        raise PTXError("prmt mode not modelled")
    a, b, sel = np.broadcast_arrays(*[run.get(x, "b32") for x in ins.args[1:4]])
    both = np.stack([a, b], 1).copy().view(np.uint8)
    out = np.empty((sel.size, 4), np.uint8)
    for j in range(4):
        nibble = (sel >> np.uint32(4 * j)) & np.uint32(15)
        byte = both[np.arange(sel.size), nibble & np.uint32(7)]
        sign = np.where(byte & 0x80, np.uint8(0xFF), np.uint8(0))
        out[:, j] = np.where(nibble & np.uint32(8), sign, byte)
    run.put(ins.args[0], out.view(np.uint32)[:, 0])
