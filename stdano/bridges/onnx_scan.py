"""The printer to ONNX: a neuron's time loop as one Scan, whose body is the step in standard operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from stdano_kernels.define.graph import Node, in_order
from stdano_kernels.define.printing import PASSED_ON, depends
from stdano_kernels.define.trace import Step
from stdano_kernels.spec import KERNELS, traced

_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
}
_UNARY = {
    "neg": "Neg",
    "abs": "Abs",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "atan": "Atan",
    "sigmoid": "Sigmoid",
    "reciprocal": "Reciprocal",
    "not": "Not",
}
# Beyond these the kernels take a constant: of exp per dtype, of time constants (neuron_math.h).
_LOWEST_EXPONENT = {ir.DataType.FLOAT: -87.3, ir.DataType.DOUBLE: -708.0}
_LIMITS = (1e-19, 1e30)
_NUMPY = {ir.DataType.FLOAT: np.float32, ir.DataType.DOUBLE: np.float64}


class Tape:
    """Collects nodes of a graph.

    Args:
        dtype: of arithmetic, FLOAT or DOUBLE.
        prefix: of the values' names; none: whoever takes the nodes gives them names.
    """

    def __init__(self, dtype: ir.DataType, prefix: str = "") -> None:
        self.dtype, self.prefix = dtype, prefix
        self.nodes: list[ir.Node] = []
        self._literals: dict[float, ir.Value] = {}

    def several(self, op: str, *inputs: ir.Value, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        node = ir.node(op, inputs, attributes, num_outputs=outputs)
        if self.prefix:
            for k, value in enumerate(node.outputs):
                value.name = f"{self.prefix}{len(self.nodes)}_{k}"
        self.nodes.append(node)
        return node.outputs

    def __call__(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        (out,) = self.several(op, *inputs, outputs=1, **attributes)
        return out

    def tensor(self, value: Any) -> ir.Value:
        """A constant from what numpy takes."""
        return self("Constant", value=ir.tensor(value))

    def number(self, value: float) -> ir.Value:
        """A number in the dtype of arithmetic."""
        if value not in self._literals:
            with np.errstate(over="ignore"):
                self._literals[value] = self.tensor(np.asarray(value, _NUMPY[self.dtype]))
        return self._literals[value]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return value if value.dtype == dtype else self("Cast", value, to=dtype)

    def print(self, roots: Sequence[Node], names: dict[int, ir.Value], exact: bool = False) -> list[ir.Value]:
        """The roots' values; ``names`` has those of inputs and gets those of all other nodes.

        ``exact``: exp is computed in double precision and rounded, for what decays are made of: a runtime's exp in the
        last bit would be an error in each step.
        """
        for a in in_order(roots, _operands, names):
            if a.op == "literal":
                names[id(a)] = self.number(a.value)
            else:
                names[id(a)] = self._operation(a.op, [names[id(b)] for b in _operands(a)], exact)
        return [names[id(root)] for root in roots]

    def _operation(self, op: str, given: list[ir.Value], exact: bool) -> ir.Value:
        if op in PASSED_ON:
            return given[0]
        if op in _BINARY or op in _UNARY:
            return self((_BINARY | _UNARY)[op], *given)
        if op == "where":
            return self("Where", *given)
        if op == "fma":
            return self("Add", self("Mul", *given[:2]), given[2])
        if op == "ne":
            return self("Not", self("Equal", *given))
        if op == "spike":
            return self("GreaterOrEqual", given[0], self.number(0.0))
        if op == "limit":
            return self("Clip", given[0], *map(self.number, _LIMITS))
        (a,) = given
        lowest = self.number(_LOWEST_EXPONENT[self.dtype])
        if op == "exp_negative":
            return self._exp(self("Max", a, lowest), exact)
        assert op in ("exp", "exp_or_zero"), op
        return self("Where", self("Less", a, lowest), self.number(0.0), self._exp(a, exact))

    def _exp(self, a: ir.Value, exact: bool) -> ir.Value:
        if exact and self.dtype != ir.DataType.DOUBLE:
            wide = self("Exp", self("Cast", a, to=ir.DataType.DOUBLE))
            return self("Cast", wide, to=self.dtype)
        return self("Exp", a)


def _operands(a: Node) -> tuple[Node, ...]:
    """Of a spike u alone, of a soft one its value: no slopes."""
    return a.args[:1] if a.op in ("spike", "soft") else a.args


def step_of(kernel: str) -> Step:
    """The graph of a neuron, by the name by which operators know it in its settings."""
    neuron, variant = KERNELS[kernel]
    return traced(neuron, variant)


class Member:
    """One neuron of a scan, prepared outside of it.

    Args:
        tape: of the graph that the scan stands in.
        kernel: see :func:`step_of`.
        constants: of the neuron, in its order, as they broadcast against a step of x.
        alpha: of the surrogate, which soft spikes depend on.
    """

    def __init__(self, tape: Tape, kernel: str, constants: Sequence[ir.Value], alpha: float) -> None:
        self.step = step_of(kernel)
        self.alpha = alpha
        self.given = dict(zip(self.step.constants, constants, strict=True))
        names = {id(node): self.given[name] for name, node in self.step.constants.items()}
        self.derived = tape.print(self.step.makers, names, exact=True)

    def at_rest(self, tape: Tape, shape: ir.Value) -> list[ir.Value]:
        """The states at the beginning of a sequence."""
        rests = [self.given[rest] if isinstance(rest, str) else tape.number(rest) for rest in self.step.rest_names()]
        return [tape("Expand", rest, shape) for rest in rests]

    def print(self, tape: Tape, x: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
        """In the scan's body: the spike, a condition where it is one, and the states after the step."""
        step = self.step
        names = {id(step.x): x} | dict(zip(map(id, step.states.values()), states, strict=True))
        names |= dict(zip(map(id, step.derived), self.derived, strict=True))
        order = in_order(step.outputs)
        names |= {id(a): tape.number(self.alpha) for a in order if a.op == "input" and a.value == "alpha"}
        values = tape.print(step.outputs, names)
        varying = depends(order, [step.x, *step.states.values()])
        return [
            # What is one value for all neurons, or one a channel, becomes one a neuron.
            value if id(root) in varying else tape("Expand", value, tape("Shape", x))
            for root, value in zip(step.outputs, values, strict=True)
        ]


def scan(
    tape: Tape,
    x: ir.Value,
    members: Sequence[Member],
    states: Sequence[ir.Value],
    before: Callable[[Tape, ir.Value], ir.Value],
    results: Callable[[Tape, list[ir.Value], list[ir.Value]], list[ir.Value]],
) -> tuple[Sequence[ir.Value], Sequence[ir.Value]]:
    """Adds the Scan of neurons on one input.

    Args:
        tape: of the graph that it stands in.
        x: ``[T, ...]``.
        members: the neurons.
        states: of all neurons, before the first step.
        before: adds to the body what is between a step of x and the neurons.
        results: from the spikes of all neurons and their states to what is kept of each step.

    Returns:
        The states after the last step; the results, ``[T, ...]``.
    """
    shape: Any = None if x.shape is None else x.shape[1:]
    # No name within may be one of the graph around it: tools that know values by their names would mix them up.
    prefix = f"{x.name}.step{len(x.uses())}."
    body = Tape(tape.dtype, prefix)
    carried = [ir.val(f"{prefix}state{k}", tape.dtype, shape) for k in range(len(states))]
    xt = ir.val(f"{prefix}x", x.dtype, shape)
    given = before(body, xt)
    spikes: list[ir.Value] = []
    after: list[ir.Value] = []
    for member in members:
        own = carried[len(after) : len(after) + len(member.step.states)]
        spike, *values = member.print(body, given, own)
        spikes.append(spike)
        after += values
    # Each output has a node and a name of its own, which runtimes ask for.
    outputs = [body("Identity", value) for value in (*after, *results(body, spikes, after))]
    graph = ir.Graph([*carried, xt], outputs, nodes=body.nodes, name=f"{prefix}graph")
    out = tape.several("Scan", *states, x, outputs=len(outputs), body=graph, num_scan_inputs=1)
    return out[: len(states)], out[len(states) :]
