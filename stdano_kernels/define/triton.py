"""The printer to Triton: a neuron as functions of one step, for the kernels of ``stdano_kernels/triton/scan.py``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from .graph import Node, in_order
from .plan import Gradients, Plan
from .printing import Statements, depends

SYNTAX = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "tl.div_rn({}, {})",
    "neg": "-1.0 * {}",  # before Triton 3.8 a minus sign subtracts from 0, which loses the sign of 0
    "fma": "tl.fma({}, {}, {})",
    "abs": "tl.abs({})",
    "exp": "exp({})",
    "exp_negative": "exp_negative({})",
    "exp_or_zero": "exp_or_zero({})",
    "log": "log({})",
    "sqrt": "tl.sqrt_rn({})",
    "tanh": "tanh({})",
    "sigmoid": "sigmoid({})",
    "atan": "atan({})",
    "reciprocal": "reciprocal({})",
    "limit": "limited({})",
    "is_lowest": "{} < LOWEST",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "not": "~{}",
    "where": "tl.where({}, {}, {})",
    "spike": "{} >= 0",
}


def _number(value: float) -> str:
    """A literal as the float32 that it is. What is below the normal numbers Triton takes for a double."""
    try:
        value = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        value = float("inf") if value > 0 else float("-inf")
    if value - value != 0:
        return f'float("{value}")'
    return repr(value) if value == 0 or abs(value) >= 2.0**-126 else f"tl.cast({value!r}, tl.float32)"


class _Function:
    """One printed function.

    Args:
        signature: its name and arguments.
        doc: what it returns.
        arguments: nodes by the name of the argument whose elements they are; alone, the argument itself.
    """

    def __init__(self, signature: str, doc: str, **arguments: Node | Sequence[Node]) -> None:
        self.signature, self.doc = signature, doc
        self.names: dict[int, str] = {}
        for argument, nodes in arguments.items():
            if isinstance(nodes, Node):
                self.names[id(nodes)] = argument
            else:
                self.names |= {id(node): f"{argument}[{k}]" for k, node in enumerate(nodes)}
        self.statements = Statements(
            {op: text.format for op, text in SYNTAX.items()},
            lambda condition, name, text: f"{name} = {text}",
            _number,
            operands={"spike": 1, "soft": 1},
        )

    def values(self, roots: Sequence[Node], varying: Sequence[Node] = ()) -> list[str]:
        """The roots' names; as one value a neuron what does not depend on those that vary."""
        names = self.statements.add(roots, self.names)
        if not varying:
            return names
        known = depends(in_order(roots), varying)
        return [name if id(a) in known else f"spread({name}, x)" for a, name in zip(roots, names, strict=True)]

    def text(self, *returned: str) -> str:
        lines = [f'"""{self.doc}"""', *self.statements.lines, f"return {', '.join(returned)}"]
        return f"@triton.jit\ndef {self.signature}:\n" + "".join(f"    {line}\n" for line in lines)


def _tuple(values: Sequence[str]) -> str:
    return f"({', '.join(values)}{',' if len(values) == 1 else ''})"


def _constants(plan: Plan) -> list[str]:
    """The functions of what is computed once a neuron."""
    step = plan.step
    constants = list(step.constants.values())
    derive = _Function("derive(constants)", "What depends on constants alone.", constants=constants)
    rest = _Function("rest(constants)", "Where each state begins.")
    numbers = {name: f"constants[{k}]" for k, name in enumerate(step.constants)}
    rests = [numbers[r] if isinstance(r, str) else _number(r) for r in step.rest_names()]
    finish = _Function(
        "finish(constants, sums)",
        "The gradients of constants, from those of what derive() returns.",
        constants=constants,
        sums=plan.sums,
    )
    return [
        derive.text(_tuple(derive.values(step.makers))),
        rest.text(_tuple(rests)),
        finish.text(_tuple(finish.values(plan.grad_constants))),
    ]


def _step(plan: Plan) -> list[str]:
    step = plan.step
    states = list(step.states.values())
    seeds = [plan.seeds[name] for name in step.states]
    varying = [step.x, *states, *plan.seeds.values()]
    inputs: dict[str, Any] = dict(gs=plan.seeds["gs"], x=step.x, state=states, derived=step.derived)

    def adjoint(function: _Function, gradients: Gradients) -> str:
        of_x, *others = function.values(gradients.all, varying)
        return function.text(of_x, _tuple(others[: len(states)]), _tuple(others[len(states) :]))

    forward = _Function("step(x, state, derived, alpha)", "The spike, and the states after the step.", **inputs)
    (spike,) = forward.values(step.outputs[:1])
    doc = "The gradients of x, of the states before the step, and of what derive() returns"
    return [
        forward.text(spike, _tuple(forward.values(step.outputs[1:], varying))),
        adjoint(
            _Function("adjoint(gs, grads, x, state, derived, alpha)", f"{doc}.", grads=seeds, **inputs), plan.gradients
        ),
        adjoint(
            _Function("last_adjoint(gs, x, state, derived, alpha)", f"{doc}, if none comes from behind.", **inputs),
            plan.last,
        ),
    ]


def neuron_source(plan: Plan) -> str:
    """The neuron as a module."""
    head = "import triton\nimport triton.language as tl\n\nfrom stdano_kernels.triton.math import *\n"
    return "\n\n".join([head, *_constants(plan), *_step(plan)])
