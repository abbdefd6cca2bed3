"""Opcodes by which the threads of a warp exchange values."""

import numpy as np

from .instructions import registers_of
from .launches import AccessError, PTXError
from .registry import operation
from .spaces import SHARED_BASE


@operation("shfl")
def op_shfl(run, ins):
    dst = ins.args[0].split("|")
    value = run.full(run.get(ins.args[1], "b32"))
    b = run.full(run.get(ins.args[2], "u32")).astype(np.int64) & 31
    c = run.full(run.get(ins.args[3], "u32")).astype(np.int64)
    lane = np.arange(run.n) % 32
    segment, clamp = (c >> 8) & 31, c & 31
    highest = (lane & segment) | (clamp & ~segment)
    lowest = lane & segment
    if "up" in ins.mods:
        source = lane - b
        inside = source >= highest
    elif "down" in ins.mods:
        source = lane + b
        inside = source <= highest
    elif "bfly" in ins.mods:
        source = lane ^ b
        inside = source <= highest
    else:
        source = lowest | (b & ~segment)
        inside = source <= highest
    source = np.arange(run.n) - lane + np.where(inside, source, lane)
    if run.mask is not None:
        bad = run.mask & ~run.mask[source]
        if bad.any():
            lane = int(np.count_nonzero(run.mask[: int(bad.argmax())]))
            raise AccessError("shuffle from a thread that does not take part", lane)
    run.put(dst[0].strip(), value[source])
    if len(dst) > 1:
        run.put(dst[1].strip(), inside)


def ballot(run, p):
    """Bit mask of the active lanes with p, per warp."""
    p = np.broadcast_to(p, (run.n,))
    if run.mask is not None:
        p = p & run.mask
    bits = p.reshape(-1, 32).astype(np.uint32) << np.arange(32, dtype=np.uint32)
    return np.bitwise_or.reduce(bits, 1)


@operation("vote")
def op_vote(run, ins):
    yes = ballot(run, run.pred(ins.args[1]))
    everyone = ballot(run, np.ones(1, bool))
    if "ballot" in ins.mods:
        out = yes
    elif "all" in ins.mods:
        out = yes == everyone
    elif "any" in ins.mods:
        out = yes != 0
    else:
        out = (yes == everyone) | (yes == 0)
    run.put(ins.args[0], out[run.warp])


@operation("activemask")
def op_activemask(run, ins):
    run.put(ins.args[0], ballot(run, np.ones(1, bool))[run.warp])


@operation("redux")
def op_redux(run, ins):
    v = run.full(run.get(ins.args[1], ins.type)).reshape(-1, 32)
    on = np.ones((run.n // 32, 32), bool) if run.mask is None else run.mask.reshape(-1, 32)
    name = ins.op[2]
    if "abs" in ins.mods or (ins.type == "f32" and name not in ("min", "max")):
        raise PTXError("modifier not modelled")
    if ins.type == "f32":
        nan = "NaN" in ins.mods
        ufunc = {"min": np.minimum if nan else np.fmin, "max": np.maximum if nan else np.fmax}
        neutral = {"min": np.inf, "max": -np.inf}
    else:
        ufunc = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and}
        ufunc.update({"or": np.bitwise_or, "xor": np.bitwise_xor})
        limits = np.iinfo(v.dtype)
        ones = -1 if v.dtype.kind == "i" else limits.max
        neutral = {"min": limits.max, "max": limits.min, "and": ones}
    v = np.where(on, v, v.dtype.type(neutral.get(name, 0)))
    run.put(ins.args[0], ufunc[name].reduce(v, axis=1, dtype=v.dtype)[run.warp])


@operation("ldmatrix", "stmatrix")
def op_matrix(run, ins):
    if "m8n8" not in ins.mods or ins.type != "b16" or run.mask is not None:
        raise PTXError("only m8n8 .b16 for complete warps is modelled")
    load = ins.name == "ldmatrix"
    registers = registers_of(ins.args[0 if load else 1])
    a = run.address(ins.args[1 if load else 0]).astype(np.int64).reshape(-1, 32)
    a = a % SHARED_BASE
    lane = np.arange(32)
    for j, r in enumerate(registers):
        # lane 8 * j + row holds the address of that row of matrix j
        row = a[:, 8 * j : 8 * j + 8]
        if (row < 0).any() or (row + 16 > run.shared_size).any() or (row % 16).any():
            raise PTXError("matrix row out of bounds or misaligned")
        if "trans" in ins.mods:
            halves = [row[:, lane % 4 * 2 + e] + lane // 4 * 2 for e in (0, 1)]
            offset = np.concatenate([np.stack([h, h + 1], 2) for h in halves], 2)
        else:
            offset = (row[:, lane // 4] + lane % 4 * 4)[:, :, None] + np.arange(4)
        index = run.cta.reshape(-1, 32)[:, :, None] * run.shared_size + offset
        flat = index.reshape(-1, 4)
        run.check_shared(flat, slice(None), not load)
        if load:
            run.put(r, np.ascontiguousarray(run.shared[flat]).view(np.uint32)[:, 0])
        else:
            data = np.ascontiguousarray(run.full(run.get(r, "u32")))
            run.shared[flat] = data.view(np.uint8).reshape(-1, 4)
