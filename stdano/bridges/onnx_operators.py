"""stdano's operators as ONNX: what ``torch.onnx.export`` calls for each of them. Needs onnx_ir and onnxscript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import evaluator, opset18

from .onnx_scan import Member, Tape, scan, step_of


def table() -> dict[Callable, Callable]:
    """The translations, by operator."""
    operators = torch.ops.stdano
    return {
        operators.scan_forward.default: _scan_forward,
        operators.super_neuron_encode.default: _super_neuron_encode,
        operators.super_neuron_decode.default: _super_neuron_decode,
    }


def _tape(x: ir.Value) -> Tape:
    """For arithmetic on x, which half precision does in FLOAT."""
    return Tape(ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT)


def _emit(tape: Tape) -> None:
    """Adds the nodes to the graph that is being made."""
    evaluator.default().nodes.extend(tape.nodes)  # type: ignore[attr-defined]


def _rank(value: ir.Value) -> int:
    assert value.shape is not None
    return len(value.shape)


def _of_channels(tape: Tape, value: ir.Value, rank: int) -> ir.Value:
    """``[C]`` as it broadcasts against a step ``[B, C, ...]`` of an x of that rank."""
    return tape("Reshape", value, tape.tensor(np.array([-1, *[1] * (rank - 3)])))


def _list_of(values: Sequence[ir.Value]) -> ir.Value:
    """What torch calls a list of tensors; the exporter's optimiser takes it apart again."""
    return opset18.SequenceConstruct(*values) if values else opset18.SequenceEmpty()


def _scan_forward(
    x: Any,
    state: Sequence[Any],
    constants: Sequence[Any],
    affine: Any | None,
    which: Sequence[int],
    values: Sequence[float],
    alpha: float,
    kernel: str,
    save_checkpoints: bool,
    return_state: bool,
    sequences: Sequence[int],
) -> list[ir.Value]:
    tape, rank = _tape(x), _rank(x)
    given = [tape.number(value) for value in values]
    for k, value in zip(which, constants, strict=True):
        given[k] = _of_channels(tape, value, rank) if _rank(value) == 1 and rank >= 3 else value
    member = Member(tape, kernel, given, alpha)
    states = list(state) or member.at_rest(tape, tape("Shape", x, start=1))
    rows: list[ir.Value] = []
    if affine is not None:
        rows = [_of_channels(tape, tape("Gather", affine, tape.tensor(np.array(k))), rank) for k in range(3)]

    def before(body: Tape, xt: ir.Value) -> ir.Value:
        xt = body.cast(xt, body.dtype)
        if not rows:
            return xt
        centre, scale, shift = rows
        return body("Add", body("Mul", scale, body("Sub", xt, centre)), shift)

    def results(body: Tape, spikes: list[ir.Value], after: list[ir.Value]) -> list[ir.Value]:
        return [body("Cast", value, to=x.dtype) for value in (*spikes, *(after[k] for k in sequences))]

    final, (spikes, *found) = scan(tape, x, [member], states, before, results)
    _emit(tape)
    checkpoints = opset18.Identity(spikes)  # which backward alone takes: the optimiser removes it
    return [spikes, _list_of(final if return_state else []), _list_of(found), checkpoints]


def _super_neuron_encode(x: Any, kernels: Sequence[str], values: Sequence[float]) -> list[ir.Value]:
    """A code for each neuron and step, whose bit k is the spike of the k-th neuron; and counts, for training alone."""
    tape = _tape(x)
    members, rest = [], list(values)
    for kernel in kernels:
        count = len(step_of(kernel).constants)
        own, alpha, rest = rest[:count], rest[count], rest[count + 1 :]
        members.append(Member(tape, kernel, [tape.number(value) for value in own], alpha))
    shape = tape("Shape", x, start=1)
    states = [state for member in members for state in member.at_rest(tape, shape)]

    def results(body: Tape, spikes: list[ir.Value], after: list[ir.Value]) -> list[ir.Value]:
        code = body.number(0.0)
        for k, spike in enumerate(spikes):
            code = body("Add", code, body("Where", spike, body.number(2.0**k), body.number(0.0)))
        return [body("Cast", code, to=ir.DataType.UINT8)]

    _, (codes,) = scan(tape, x, members, states, lambda body, xt: body.cast(xt, body.dtype), results)
    _emit(tape)
    return [codes, opset18.Identity(codes)]


def _super_neuron_decode(codes: Any, numbers: Any, like: Any) -> ir.Value:
    """From codes ``[T, B, C, ...]`` to the offset of each channel and, of each neuron that has fired, its scale:
    ``numbers`` is ``[1 + K, C]``."""
    assert numbers.shape is not None
    tape, rank = _tape(like), _rank(codes)
    rows = [
        _of_channels(tape, tape("Gather", numbers, tape.tensor(np.array(k))), rank) for k in range(int(numbers.shape[0]))
    ]
    y = rows[0]
    for k, scale in enumerate(rows[1:]):
        bit = tape("BitwiseAnd", codes, tape.tensor(np.array(2**k, np.uint8)))
        fired = tape("Cast", bit, to=ir.DataType.BOOL)
        y = tape("Add", y, tape("Where", fired, scale, tape.number(0.0)))
    y = tape("Cast", y, to=like.dtype)
    _emit(tape)
    return y
