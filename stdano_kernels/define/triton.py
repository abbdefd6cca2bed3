"""The printer to Triton: a neuron as functions of one step, which the kernels in ``stdano_kernels/triton`` call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from .graph import Node
from .plan import Plan
from .printing import Statements, depends

SYNTAX = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "tl.div_rn({}, {})",
    "neg": "-1.0 * {}",  # before Triton 3.8 the minus sign subtracts from 0, which loses the sign of 0
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
    "is_lowest": "{} < -87.3",
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
    """A literal as the float32 that it is; Triton takes one that is not a normal number for a double."""
    try:
        rounded = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        rounded = float("inf") if value > 0 else float("-inf")
    text = repr(rounded)
    if text in ("inf", "-inf", "nan"):
        return f'float("{text}")'
    return text if rounded == 0 or abs(rounded) >= 2.0**-126 else f"tl.cast({text}, tl.float32)"


def _statements() -> Statements:
    return Statements(
        {op: text.format for op, text in SYNTAX.items()},
        lambda condition, name, text: f"{name} = {text}",
        _number,
        operands={"spike": 1, "soft": 1},
    )


def _elements(argument: str, nodes: Sequence[Node]) -> dict[int, str]:
    return {id(node): f"{argument}[{k}]" for k, node in enumerate(nodes)}


def _tuple(values: Sequence[str]) -> str:
    return f"({', '.join(values)}{',' if len(values) == 1 else ''})"


def _function(
    signature: str,
    doc: str,
    names: dict[int, str],
    returns: Sequence[Sequence[Node]],
    finish: Callable[[Node, str], str] = lambda node, name: name,
    single: int = 0,
) -> str:
    """A function that returns tuples of nodes; the first ``single`` of them as values."""
    statements = _statements()
    groups = [[finish(a, name) for a, name in zip(nodes, statements.add(nodes, names), strict=True)] for nodes in returns]
    texts = [values[0] if k < single else _tuple(values) for k, values in enumerate(groups)]
    body = [f'"""{doc}"""', *statements.lines, f"return {', '.join(texts)}"]
    return f"@triton.jit\ndef {signature}:\n" + "".join(f"    {line}\n" for line in body)


def _varying(roots: Sequence[Node], sources: Sequence[Node]) -> Callable[[Node, str], str]:
    """Makes a value of every neuron of what does not depend on the sources."""
    from .graph import in_order

    varying = depends(in_order(roots), sources)
    return lambda node, name: name if id(node) in varying else f"spread({name}, x)"


def kept_nodes(step) -> list[Node]:
    return list(step.states.values())


def neuron_source(plan: Plan, keep: Sequence[Node] = ()) -> str:
    step = plan.step
    constants, states = list(step.constants.values()), list(step.states.values())
    seeds = [plan.seeds[name] for name in step.states]
    of_derived = _elements("derived", step.derived)
    rests = [f"constants[{list(step.constants).index(r)}]" if isinstance(r, str) else _number(r) for r in step.rest_names()]
    before = {id(step.x): "x", **_elements("state", states), **of_derived}
    gradients = plan.gradients.all
    texts = [
        "import triton\nimport triton.language as tl\n\n"
        "from stdano_kernels.triton.math import atan, exp, exp_negative, exp_or_zero, limited, reciprocal, sigmoid, spread, tanh\n",
        _function("derive(constants)", "What depends on constants alone.", _elements("constants", constants), [step.makers]),
        "@triton.jit\ndef rest(constants):\n"
        f'    """Where each state begins."""\n    return {_tuple(rests)}\n',
    ]
    outputs = _varying(step.outputs, [step.x, *states])
    varied = _varying(gradients, [step.x, *states, *plan.seeds.values()])
    if not keep:
        texts.append(
            _function("step(x, state, derived, alpha)", "The spike, and the states after the step.", dict(before), [step.outputs[:1], step.outputs[1:]], lambda a, n: n if a is step.spike else outputs(a, n), 1)
        )
        names = {**before, id(plan.seeds["gs"]): "gs", **_elements("grads", seeds)}
        texts.append(
            _function("adjoint(gs, grads, x, state, derived, alpha)", "The gradients.", names, [[plan.gradients.x], plan.gradients.states, plan.gradients.derived], varied, 1)
        )
    else:
        texts.append(_function("charge(x, state, derived, alpha)", "What is kept.", dict(before), [keep], outputs))
        after = {id(step.x): "x", **of_derived, **_elements("kept", keep)}
        texts.append(
            _function("update(x, kept, derived, alpha)", "The spike, and the states after the step.", dict(after), [step.outputs[:1], step.outputs[1:]], lambda a, n: n if a is step.spike else outputs(a, n), 1)
        )
        names = {**before, **after, id(plan.seeds["gs"]): "gs", **_elements("grads", seeds)}
        texts.append(
            _function("adjoint(gs, grads, x, kept, state, derived, alpha)", "The gradients.", names, [[plan.gradients.x], plan.gradients.states, plan.gradients.derived], varied, 1)
        )
    lasts = _varying(plan.last.all, [step.x, *states, *plan.seeds.values()])
    texts.append(_function("last_adjoint(gs, x, state, derived, alpha)", "The gradients where nothing comes from behind.", {**before, id(plan.seeds["gs"]): "gs"}, [[plan.last.x], plan.last.states, plan.last.derived], lasts, 1))
    names = {**_elements("constants", constants), **_elements("sums", plan.sums)}
    texts.append(_function("finish(constants, sums)", "The gradients of constants from those of what derive() gives.", names, [plan.grad_constants]))
    return "\n\n".join(texts)
