"""Opcodes that calculate."""

import numpy as np

from .conversion import rounding
from .exact import float_min_max, fma64, fma_narrow, int_divide, mul_hi, narrow, to_odd, two_sum
from .launches import PTXError
from .registry import operation
from .types import DTYPE, is_float


def directed(fn, mode, dtype):
    """Wrap an exact binary operation with a directed rounding."""

    def add(a, b):
        s, err = two_sum(a.astype(np.float64), b.astype(np.float64))
        return narrow(s, err, dtype, mode)

    def mul(a, b):
        s = a.astype(np.float64) * b.astype(np.float64)
        return narrow(s, np.zeros_like(s), dtype, mode)

    return {"add": add, "sub": lambda a, b: add(a, -b), "mul": mul}[fn]


FLOAT2 = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


@operation("add", "sub")
def op_add(run, ins):
    t = ins.type
    if "cc" in ins.mods:
        raise PTXError("carry arithmetic is not modelled")
    if is_float(t):
        op_float2(run, ins)
        return
    a, b = run.get(ins.args[1], t), run.get(ins.args[2], t)
    if "sat" in ins.mods:
        wide = a.astype(np.int64) + (b.astype(np.int64) if ins.name == "add" else -b.astype(np.int64))
        limits = np.iinfo(a.dtype)
        run.put(ins.args[0], np.clip(wide, limits.min, limits.max).astype(a.dtype))
    else:
        run.put(ins.args[0], a + b if ins.name == "add" else a - b)


def op_float2(run, ins):
    mode = rounding(ins)
    fn = FLOAT2[ins.name]
    if mode != "rn":
        if ins.type not in ("f32", "f16") or ins.name == "div":
            raise PTXError("directed rounding is not modelled here")
        fn = directed(ins.name, mode, DTYPE[ins.type])
    run.map_floats(ins, fn, 2)


@operation("mul")
def op_mul(run, ins):
    t = ins.type
    if is_float(t):
        op_float2(run, ins)
        return
    a, b = run.get(ins.args[1], t), run.get(ins.args[2], t)
    run.put(ins.args[0], int_product(ins, a, b))


def int_product(ins, a, b):
    if "wide" in ins.mods:
        wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        return a.astype(wide) * b.astype(wide)
    return mul_hi(*np.broadcast_arrays(a, b)) if "hi" in ins.mods else a * b


@operation("fma", "mad")
def op_fma(run, ins):
    t = ins.type
    if is_float(t):
        mode = rounding(ins)
        if t == "f64":
            if mode != "rn":
                raise PTXError("directed rounding of f64 is not modelled")
            run.map_floats(ins, lambda a, b, c: fma64(*np.broadcast_arrays(a, b, c)), 3)
        elif "bf16" in t:

            def fma_bf16(a, b, c):
                # round to odd in float32 (8 + 2 bits are enough), put_floats then rounds to bf16
                s, err = two_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
                s = to_odd(s, np.where(np.isfinite(s), err, 0.0))
                f = s.astype(np.float32)
                up = np.abs(f.astype(np.float64)) > np.abs(s)
                f = np.where(up, np.nextafter(f, np.float32(0)), f)
                inexact = (f.astype(np.float64) != s) & np.isfinite(f)
                return (f.view(np.uint32) | inexact.astype(np.uint32)).view(np.float32)

            run.map_floats(ins, fma_bf16, 3)
        else:
            dtype = np.dtype("f4") if "f32" in t else np.dtype("f2")
            run.map_floats(ins, lambda a, b, c: fma_narrow(a, b, c, dtype, mode), 3)
        return
    if "cc" in ins.mods or "sat" in ins.mods:
        raise PTXError("carry and saturation are not modelled")
    product = int_product(ins, run.get(ins.args[1], t), run.get(ins.args[2], t))
    run.put(ins.args[0], product + run.get(ins.args[3], f"{t[0]}{8 * product.dtype.itemsize}"))


@operation("div")
def op_div(run, ins):
    if is_float(ins.type):
        op_float2(run, ins)
        return
    a, b = np.broadcast_arrays(run.get(ins.args[1], ins.type), run.get(ins.args[2], ins.type))
    run.put(ins.args[0], int_divide(a, b)[0])


@operation("rem")
def op_rem(run, ins):
    a, b = np.broadcast_arrays(run.get(ins.args[1], ins.type), run.get(ins.args[2], ins.type))
    run.put(ins.args[0], int_divide(a, b)[1])


@operation("min", "max")
def op_min_max(run, ins):
    largest = ins.name == "max"
    if "xorsign" in ins.mods or "abs" in ins.mods:
        raise PTXError("modifier not modelled")
    if is_float(ins.type):

        def pick(a, *rest):
            for b in rest:
                a = float_min_max(a, b, largest, "NaN" in ins.mods)
            return a

        run.map_floats(ins, pick, len(ins.args) - 1)
        return
    fn = np.maximum if largest else np.minimum
    run.put(ins.args[0], fn(run.get(ins.args[1], ins.type), run.get(ins.args[2], ins.type)))


@operation("neg", "abs")
def op_neg_abs(run, ins):
    fn = np.negative if ins.name == "neg" else np.abs
    if is_float(ins.type):
        run.map_floats(ins, fn, 1)
    else:
        run.put(ins.args[0], fn(run.get(ins.args[1], ins.type)))


@operation("copysign")
def op_copysign(run, ins):
    run.map_floats(ins, lambda sign, magnitude: np.copysign(magnitude, sign), 2)


UNARY = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "rcp": lambda x: 1.0 / x,
}


@operation(*UNARY)
def op_unary(run, ins):
    """Correctly rounded (almost always), also where PTX allows an approximation."""
    fn = UNARY[ins.name]
    mode = rounding(ins)
    if mode != "rn" and ins.type != "f32":
        raise PTXError("directed rounding is not modelled here")

    def apply(x):
        wide = fn(x.astype(np.float64))
        if mode == "rn":
            return wide if ins.type == "f64" else wide.astype(np.float32)
        return narrow(wide, np.zeros_like(wide), np.dtype("f4"), mode)

    run.map_floats(ins, apply, 1)


@operation("sad")
def op_sad(run, ins):
    a, b, c = (run.get(x, ins.type) for x in ins.args[1:4])
    run.put(ins.args[0], c + np.where(a > b, a - b, b - a))
