"""The printer to Triton: a neuron as functions of one step, for the kernels of ``stdano_kernels/triton/scan.py``."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float
from functools import partial
from typing import Any

from .cpp import SYNTAX as CPP
from .graph import Node, in_order
from .plan import Plan
from .printing import Statements, depends

SYNTAX = {
    **CPP,
    **{function: f"{function}({{}})" for function in ("exp", "log", "tanh", "sigmoid", "atan")},
    "div": "tl.div_rn({}, {})",
    "neg": "-1.0 * {}",  # before Triton 3.8 a minus sign subtracts from 0, which loses the sign of 0
    "fma": "tl.fma({}, {}, {})",
    "abs": "tl.abs({})",
    "sqrt": "tl.sqrt_rn({})",
    "is_lowest": "{} < LOWEST",
    "not": "~{}",
    "where": "tl.where({}, {}, {})",
    "spike": "{} >= 0",
}


def _number(value: float) -> str:
    """A literal as the float32 that it is. What is below the normal numbers Triton takes for a double."""
    value = c_float(value).value
    if value - value != 0:
        return f'float("{value}")'
    return repr(value) if value == 0 or abs(value) >= 2.0**-126 else f"tl.cast({value!r}, tl.float32)"


def _tuple(values: Sequence[str]) -> str:
    return f"({', '.join(values)}{',' if len(values) == 1 else ''})"


def _function(
    signature: str,
    doc: str,
    *returned: Node | Sequence[Node] | str,
    varying: Sequence[Node] = (),
    **arguments: Node | Sequence[Node],
) -> str:
    """One printed function.

    Args:
        signature: its name and arguments.
        doc: what it returns.
        returned: the values, several as a tuple.
        varying: what does not depend on these is returned as one value a neuron all the same; none: as it is.
        arguments: nodes by the name of the argument whose elements they are; alone, the argument itself.
    """
    names: dict[int, str] = {}
    for argument, nodes in arguments.items():
        if isinstance(nodes, Node):
            names[id(nodes)] = argument
        else:
            names |= {id(node): f"{argument}[{k}]" for k, node in enumerate(nodes)}
    syntax = {op: text.format for op, text in SYNTAX.items()}
    statements = Statements(syntax, lambda _, name, text: f"{name} = {text}", _number, {"spike": 1, "soft": 1})

    def value(roots: Node | Sequence[Node] | str) -> str:
        if isinstance(roots, str):
            return roots
        if not isinstance(roots, Node):
            return _tuple([value(root) for root in roots])
        (name,) = statements.add([roots], names)
        return name if not varying or id(roots) in depends(in_order([roots]), varying) else f"spread({name}, x)"

    values = ", ".join(map(value, returned))
    lines = [f'"""{doc}"""', *statements.lines, f"return {values}"]
    return f"@triton.jit\ndef {signature}:\n" + "".join(f"    {line}\n" for line in lines)


def neuron_source(plan: Plan) -> str:
    """The neuron as a module."""
    step, seeds = plan.step, plan.seeds
    constants, states = list(step.constants.values()), list(step.states.values())
    numbers = {name: f"constants[{k}]" for k, name in enumerate(step.constants)}
    rests = _tuple([numbers[r] if isinstance(r, str) else _number(r) for r in step.rest_names()])
    finish, of_constants = "finish(constants, sums)", "The gradients of constants, from those of what derive() returns."
    once = [
        _function("derive(constants)", "What depends on constants alone.", step.makers, constants=constants),
        _function("rest(constants)", "Where each state begins.", rests),
        _function(finish, of_constants, plan.grad_constants, constants=constants, sums=plan.sums),
    ]

    given: dict[str, Any] = dict(gs=seeds["gs"], grads=[seeds[name] for name in step.states], x=step.x, state=states)
    of_step: Any = partial(_function, varying=[step.x, *states, *seeds.values()], derived=step.derived, **given)
    forward = step.spike, step.outputs[1:]
    adjoint, last = ((g.x, g.states, g.derived) for g in (plan.gradients.shortened(), plan.last.shortened()))
    doc = "The gradients of x, of the states before the step, and of what derive() returns"
    return "\n\n".join(
        [
            "import triton\nimport triton.language as tl\n\nfrom stdano_kernels.triton.math import *\n",
            *once,
            of_step("step(x, state, derived, alpha)", "The spike, and the states after the step.", *forward),
            of_step("adjoint(gs, grads, x, state, derived, alpha)", f"{doc}.", *adjoint),
            of_step("last_adjoint(gs, x, state, derived, alpha)", f"{doc}, if none comes from behind.", *last),
        ]
    )
