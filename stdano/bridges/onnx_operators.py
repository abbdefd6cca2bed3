"""stdano's operators as ONNX: what ``torch.onnx.export`` calls for each of them. Needs onnx_ir and onnxscript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import evaluator

from .onnx_scan import Member, Tape, scan, step_of


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translations, by operator."""
    operators = torch.ops.stdano
    return {
        operators.scan_forward.default: _scan_forward,
        operators.super_neuron_encode.default: _super_neuron_encode,
        operators.super_neuron_decode.default: _super_neuron_decode,
    }


def _translation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Takes the annotations away, which the exporter would read as ONNX types."""
    function.__annotations__ = {}
    return function


def _tape(x: ir.Value) -> Tape:
    """For arithmetic on x, which half precision does in FLOAT."""
    return Tape(ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT)


def _emit(tape: Tape) -> None:
    """Adds the nodes to the graph that is being made."""
    recorder: Any = evaluator.default()
    recorder.nodes.extend(tape.nodes)


def _rank(value: ir.Value) -> int:
    assert value.shape is not None
    return len(value.shape)


def _size(value: ir.Value) -> int:
    """Of the first axis, where that is fixed."""
    assert value.shape is not None
    size = value.shape[0]
    assert isinstance(size, int)
    return size


def _of_channels(tape: Tape, value: ir.Value, rank: int) -> ir.Value:
    """``[C]`` as it broadcasts against a step ``[B, C, ...]`` of an x of that rank."""
    return tape("Reshape", value, tape.tensor(np.array([-1, *[1] * (rank - 3)])))


def _rows(tape: Tape, numbers: ir.Value, count: int, rank: int) -> list[ir.Value]:
    """The rows of ``[count, C]``, as :func:`_of_channels`."""
    return [_of_channels(tape, tape("Gather", numbers, tape.tensor(np.array(k))), rank) for k in range(count)]


def _list_of(tape: Tape, values: Sequence[ir.Value]) -> ir.Value:
    """What torch calls a list of tensors; the exporter's optimiser takes it apart again."""
    return tape("SequenceConstruct", *values) if values else tape("SequenceEmpty")


@_translation
def _scan_forward(
    x: ir.Value,
    state: Sequence[ir.Value],
    constants: Sequence[ir.Value],
    affine: ir.Value | None,
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
        rows = _rows(tape, affine, 3, rank)

    def before(body: Tape, xt: ir.Value) -> ir.Value:
        xt = body.cast(xt, body.dtype)
        if not rows:
            return xt
        centre, scale, shift = rows
        return body("Add", body("Mul", scale, body("Sub", xt, centre)), shift)

    def results(body: Tape, spikes: list[ir.Value], after: list[ir.Value]) -> list[ir.Value]:
        return [body("Cast", value, to=x.dtype) for value in (*spikes, *(after[k] for k in sequences))]

    final, (spikes, *found) = scan(tape, x, [member], states, before, results)
    checkpoints = tape("Identity", spikes)  # which backward alone takes: the optimiser removes it
    lists = [_list_of(tape, final if return_state else []), _list_of(tape, found)]
    _emit(tape)
    return [spikes, *lists, checkpoints]


@_translation
def _super_neuron_encode(x: ir.Value, kernels: Sequence[str], values: Sequence[float]) -> list[ir.Value]:
    """A code for each place in x, whose bit k is the spike of the k-th neuron, and the spikes of each in a channel."""
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
    codes.dtype = ir.DataType.UINT8
    counts = _channel_rows(tape, [_bit(tape, codes, k) for k in range(len(members))], _rank(x))
    _emit(tape)
    return [codes, counts]


def _bit(tape: Tape, codes: ir.Value, k: int) -> ir.Value:
    """Whether the k-th neuron has fired."""
    bit = tape("BitwiseAnd", codes, tape.tensor(np.array(2**k, np.uint8)))
    return tape("Cast", bit, to=ir.DataType.BOOL)


def _channel_rows(tape: Tape, values: Sequence[ir.Value], rank: int) -> ir.Value:
    """The sums of values ``[T, B, C, ...]`` in each channel, in double precision, a row each: ``[len(values), C]``."""
    axes = tape.tensor(np.array([axis for axis in range(rank) if axis != 2]))
    first = tape.tensor(np.array([0]))
    rows = [tape("ReduceSum", tape("Cast", v, to=ir.DataType.DOUBLE), axes, keepdims=0) for v in values]
    return tape("Concat", *[tape("Unsqueeze", row, first) for row in rows], axis=0)


@_translation
def _super_neuron_decode(codes: ir.Value, numbers: ir.Value, like: ir.Value) -> ir.Value:
    """From codes ``[T, B, C, ...]`` to the offset of each channel and, of each neuron that has fired, its scale:
    ``numbers`` is ``[1 + K, C]``."""
    tape = _tape(like)
    y, *scales = _rows(tape, numbers, _size(numbers), _rank(codes))
    for k, scale in enumerate(scales):
        y = tape("Add", y, tape("Where", _bit(tape, codes, k), scale, tape.number(0.0)))
    y = tape("Cast", y, to=like.dtype)
    _emit(tape)
    return y
