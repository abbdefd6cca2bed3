"""Opcodes that convert, compare and select."""

import numpy as np

from .exact import narrow
from .launches import PTXError
from .registry import operation
from .types import DTYPE, PACKED, bf16_to_f32, f32_to_bf16, is_float

ROUND_TO_INT = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def rounding(ins):
    return next((m for m in ins.op if m in ("rn", "rz", "rm", "rp", "rna")), "rn")


def round_float(v, t, mode):
    """Float array to the float type t (bf16 as float32 holding a bf16 value)."""
    if t == "bf16":
        if mode == "rz":
            return (v.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        if v.dtype == np.float64:
            v = narrow(v, np.zeros_like(v), np.dtype("f4"), "rn")
        return bf16_to_f32(f32_to_bf16(v))
    if v.dtype.itemsize <= DTYPE[t].itemsize or mode in ("rn", "rna"):
        return v.astype(DTYPE[t])
    wide = v.astype(np.float64)
    return narrow(wide, np.zeros_like(wide), DTYPE[t], mode)


@operation("cvt")
def op_cvt(run, ins):
    dst, src = ins.op[-2], ins.op[-1]
    if dst in PACKED:
        if src != "f32":
            raise PTXError("conversion not modelled")
        part = PACKED[dst][0]
        values = [run.floats(a, "f32", ins)[0] for a in (ins.args[2], ins.args[1])]
        values = [round_float(v, part, rounding(ins)) for v in values]
        run.put_floats(ins.args[0], dst, values, ins)
        return
    if dst not in DTYPE or src not in DTYPE:
        raise PTXError("conversion not modelled")
    if is_float(src):
        v = run.floats(ins.args[1], src, ins)[0]
        to_int = next((ROUND_TO_INT[m] for m in ins.op if m in ROUND_TO_INT), None)
        if is_float(dst):
            if to_int is not None:
                v = to_int(v)
            v = round_float(v, dst, rounding(ins))
            run.put_floats(ins.args[0], dst, [v], ins)
            return
        limits = np.iinfo(DTYPE[dst])
        r = to_int(v.astype(np.float64))
        low, high = r <= limits.min, r >= float(limits.max)
        bad = low | high | np.isnan(r)
        out = np.where(bad, 0.0, r).astype(DTYPE[dst])
        out = np.where(low, DTYPE[dst].type(limits.min), out)
        run.put(ins.args[0], np.where(high, DTYPE[dst].type(limits.max), out))
        return
    v = run.get(ins.args[1], src)
    if is_float(dst):
        if dst in ("f64", "f32") and rounding(ins) == "rn":
            run.put(ins.args[0], v.astype(DTYPE[dst]))
        else:
            wide = v.astype(np.float64)
            value = round_float(wide, dst, rounding(ins))
            run.put_floats(ins.args[0], dst, [value], ins)
        return
    if "sat" in ins.mods:
        limits = np.iinfo(DTYPE[dst])
        own = np.iinfo(v.dtype)
        v = np.clip(v, v.dtype.type(max(limits.min, own.min)), v.dtype.type(min(limits.max, own.max)))
    run.put(ins.args[0], v.astype(DTYPE[dst]))


COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
BOOLEAN = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def compare(name, a, b):
    if a.dtype.kind != "f":
        return COMPARE[name](a, b)
    unordered = np.isnan(a) | np.isnan(b)
    if name == "num":
        return ~unordered
    if name == "nan":
        return unordered
    if name in COMPARE:
        return COMPARE[name](a, b) & ~unordered
    return COMPARE[name[:-1]](a, b) | unordered  # equ, neu, ltu, ...


def operands(run, ins, t, args):
    if is_float(t):
        return zip(*[run.floats(a, t, ins) for a in args], strict=True)
    return [[run.get(a, t) for a in args]]


@operation("setp")
def op_setp(run, ins):
    out = [compare(ins.op[1], a, b) for a, b in operands(run, ins, ins.type, ins.args[1:3])]
    if len(ins.args) > 3:
        c = run.pred(ins.args[3])
        out = [BOOLEAN[ins.op[2]](r, c) for r in out]
    dst = [d.strip() for d in ins.args[0].split("|")]
    run.put(dst[0], out[0])
    if len(dst) > 1:
        run.put(dst[1], out[1] if len(out) > 1 else ~out[0])


@operation("set")
def op_set(run, ins):
    dst, src = ins.op[-2], ins.op[-1]
    if src in PACKED:
        raise PTXError("set on packed types is not modelled")
    ((a, b),) = operands(run, ins, src, ins.args[1:3])
    out = compare(ins.op[1], a, b)
    if len(ins.args) > 3:
        out = BOOLEAN[ins.op[2]](out, run.pred(ins.args[3]))
    if is_float(dst):
        run.put_floats(ins.args[0], dst, [out.astype(np.float32)])
    else:
        run.put(ins.args[0], np.where(out, np.array(-1).astype(DTYPE[dst]), DTYPE[dst].type(0)))


@operation("selp")
def op_selp(run, ins):
    a, b = run.get(ins.args[1], ins.type), run.get(ins.args[2], ins.type)
    run.put(ins.args[0], np.where(run.pred(ins.args[3]), a, b))


@operation("slct")
def op_slct(run, ins):
    a, b = run.get(ins.args[1], ins.op[-2]), run.get(ins.args[2], ins.op[-2])
    run.put(ins.args[0], np.where(run.get(ins.args[3], ins.type) >= 0, a, b))


@operation("testp")
def op_testp(run, ins):
    (v,) = run.floats(ins.args[1], ins.type)
    tiny = np.finfo(v.dtype).tiny
    normal = np.isfinite(v) & (np.abs(v) >= tiny)
    out = {
        "finite": np.isfinite(v),
        "infinite": np.isinf(v),
        "number": ~np.isnan(v),
        "notanumber": np.isnan(v),
        "normal": normal,
        "subnormal": np.isfinite(v) & (v != 0) & ~normal,
    }[ins.op[1]]
    run.put(ins.args[0], out)
