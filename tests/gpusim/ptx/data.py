"""Opcodes that move data."""

import re

import numpy as np

from .instructions import literal, registers_of
from .launches import AccessError, PTXError
from .registry import operation
from .spaces import LOCAL_BASE, SHARED_BASE
from .types import DTYPE, PACKED, UINT, bf16_to_f32, f32_to_bf16


@operation("ld", "ldu")
def op_load(run, ins):
    registers = registers_of(ins.args[0])
    dtype = DTYPE[ins.type]
    if "param" in ins.mods:
        m = re.match(r"\[\s*([\w$%]+)", ins.args[1])
        if m[1] not in run.kernel.params and not m[1].startswith("%"):
            for r in registers:  # return value of a call
                run.put(r, np.zeros(1, dtype))
            return
        addr = run.address(ins.args[1]).astype(np.int64)
        if (addr == addr[0]).all():
            addr = addr[:1]
        size = dtype.itemsize
        for j, r in enumerate(registers):
            index = addr[:, None] + (j * size + np.arange(size))
            v = run.params[index].view(dtype)[:, 0]
            if v.size == 1:
                run.put(r, v)
            else:
                run.put_active(r, v)
        return
    values = run.read(ins, run.address(ins.args[1]), dtype, len(registers))
    for j, r in enumerate(registers):
        run.put_active(r, np.ascontiguousarray(values[:, j]))


@operation("st")
def op_store(run, ins):
    if "param" in ins.mods:
        return
    columns = []
    for r in registers_of(ins.args[1]):
        v = np.ascontiguousarray(run.lanes(run.get(r, ins.type)))
        columns.append(v)
    data = np.stack(columns, 1) if len(columns) > 1 else columns[0][:, None]
    data = np.ascontiguousarray(data).view(np.uint8)
    run.write(ins, run.address(ins.args[0]), data)


ATOMICS = {
    "add": lambda old, v, _: old + v,
    "min": lambda old, v, _: np.fmin(old, v),
    "max": lambda old, v, _: np.fmax(old, v),
    "and": lambda old, v, _: old & v,
    "or": lambda old, v, _: old | v,
    "xor": lambda old, v, _: old ^ v,
    "exch": lambda old, v, _: v,
    "inc": lambda old, v, _: np.where(old >= v, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, v, _: np.where((old == 0) | (old > v), v, old - old.dtype.type(1)),
    "cas": lambda old, v, new: np.where(old == v, new, old),
}


ATOMIC_UFUNC = {
    "add": np.add,
    "min": np.fmin,
    "max": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@operation("atom", "red")
def op_atomic(run, ins):
    result = ins.name == "atom"
    args = ins.args[1:] if result else ins.args
    name = next(o for o in ins.op[1:] if o in ATOMICS)
    t = ins.type
    if args[1][0] == "{":
        raise PTXError("vector atomics are not modelled")
    dtype = DTYPE[t]
    v = run.lanes(run.get(args[1], t))
    w = run.lanes(run.get(args[2], t)) if name == "cas" else v
    fn = ATOMICS[name]

    def update(old, lanes):
        if t == "bf16":
            return f32_to_bf16(fn(bf16_to_f32(old), bf16_to_f32(v[lanes]), None))
        if t in PACKED:
            part, size = PACKED[t]
            halves = [np.ascontiguousarray(x).view(UINT[size]) for x in (old, v[lanes])]
            if part == "bf16":
                new = f32_to_bf16(fn(bf16_to_f32(halves[0]), bf16_to_f32(halves[1]), None))
            else:
                new = fn(halves[0].view(DTYPE[part]), halves[1].view(DTYPE[part]), None)
            return np.ascontiguousarray(new).view(dtype)
        return fn(old, v[lanes], w[lanes])

    ufunc = None if t == "bf16" or t in PACKED else ATOMIC_UFUNC.get(name)
    old = run.read_modify_write(ins, run.address(args[0]), dtype, update, ufunc, v)
    if result:
        run.put_active(ins.args[0], old)


@operation("mov")
def op_mov(run, ins):
    dst, src, t = ins.args[0], ins.args[1], ins.type
    if t == "pred":
        run.put(dst, run.pred(src))
    elif dst[0] == "{" or src[0] == "{":
        to, source = registers_of(dst), registers_of(src)
        width = int(t[1:])
        if len(source) > 1:
            parts = np.broadcast_arrays(*[run.get(s, f"b{width // len(source)}") for s in source])
            packed = np.stack(parts, 1)
        else:
            packed = run.get(source[0], t)[:, None]
        raw = np.ascontiguousarray(packed).view(UINT[width // 8 // len(to)])
        for j, r in enumerate(to):
            run.put(r, np.ascontiguousarray(raw[:, j]))
    else:
        run.put(dst, run.get(src, t))


@operation("cvta")
def op_cvta(run, ins):
    v = run.get(ins.args[1], ins.type)
    base = SHARED_BASE if "shared" in ins.mods else LOCAL_BASE if "local" in ins.mods else 0
    base = v.dtype.type(base)
    run.put(ins.args[0], v - base if "to" in ins.mods else v + base)


@operation("isspacep")
def op_isspacep(run, ins):
    v = run.get(ins.args[1], "u64")
    local = (v >= np.uint64(LOCAL_BASE)) & (v < np.uint64(SHARED_BASE))
    shared = v >= np.uint64(SHARED_BASE)
    out = {"local": local, "shared": shared}.get(ins.op[1], ~(local | shared))
    run.put(ins.args[0], out)


@operation("cp")
def op_cp_async(run, ins):
    """Copied at once: the asynchrony of cp.async is not modelled."""
    if "shared" not in ins.mods:
        return  # commit_group, wait_group, wait_all
    if "bulk" in ins.mods:
        raise PTXError("bulk copies are not modelled")
    size = literal(ins.args[2])
    dst, src = run.address(ins.args[0]), run.address(ins.args[1])
    data = np.zeros((src.size, size), np.uint8)
    used = np.full(src.size, size)
    if len(ins.args) > 3:
        used = run.lanes(run.get(ins.args[3], "u32")).astype(np.int64)
    on = np.nonzero(used > 0)[0]
    if on.size:
        block = run.lanes(run.block_id)[on]
        data[on] = run.mem.load(src[on], UINT[1], size, block, False)
        data[np.arange(size)[None, :] >= used[:, None]] = 0
        run.launch.bytes_loaded += int(used.sum())
    index = run.on_chip("shared", dst, size, slice(None))
    run.check_shared(index, slice(None), True)
    run.shared[index] = data


@operation(
    "membar",
    "fence",
    "prefetch",
    "prefetchu",
    "discard",
    "applypriority",
    "nanosleep",
    "griddepcontrol",
    "pmevent",
)
@operation("bar", "barrier")
def op_nothing(run, ins):
    """No effect here; bar.warp.sync needs none because whole warps run in step."""


@operation("createpolicy")
def op_createpolicy(run, ins):
    run.put(ins.args[0], np.zeros(1, np.uint64))


@operation("call")
def op_call(run, ins):
    text = " ".join(ins.args)
    if "__assertfail" in text:
        raise AccessError("device-side assertion failed", 0)
    if "vprintf" not in text:
        raise PTXError("calls are not modelled")


@operation("trap", "brkpt")
def op_trap(run, ins):
    raise AccessError("trap", 0)
