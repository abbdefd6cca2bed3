"""How a step is cut for processors that look a few hundred instructions ahead.

A step whose state comes back through a long chain of dependent operations (SLIF: tanh, 1/tau, exp) leaves a vector unit
waiting. What such a chain computes from the state alone is done before the rest of the step, in loops of their own, each
short enough that several iterations overlap. Its results are kept for the adjoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .adjoint import adjoint
from .graph import EXPENSIVE, Node, in_order, literal, symbol
from .printing import depends
from .trace import Step

# In operations, each about four cycles. SLIF's steps taken four at a time have 180; an early loop may have a tanh, or a
# reciprocal and an exp.
_LONGEST_UNIT = 60
_LONGEST_EARLY = 26


@dataclass
class Plan:
    """A step and its adjoint as they are printed."""

    step: Step
    early: list[list[Node]] = field(default_factory=list)  # what each early loop computes
    grad_x: Node = field(default_factory=lambda: literal(0))
    grad_states: list[Node] = field(default_factory=list)
    grad_derived: list[Node] = field(default_factory=list)
    grad_constants: list[Node] = field(default_factory=list)
    seeds: dict[str, Node] = field(default_factory=dict)  # gs, and the gradient of each state after the step
    sums: list[Node] = field(default_factory=list)  # the sums of grad_derived, from which grad_constants follow

    @property
    def kept(self) -> list[Node]:
        return [a for loop in self.early for a in loop]


def plan(step: Step) -> Plan:
    out = Plan(step)
    states = list(step.states.values())
    seeds = [symbol("gs"), *[symbol(f"grad_{name}") for name in step.states]]
    out.seeds = dict(zip(["gs", *step.states], seeds, strict=True))
    inputs = [step.x, *states, *step.derived]
    gradients = adjoint(step.outputs, seeds, inputs)
    out.grad_x, rest = gradients[0], gradients[1:]
    out.grad_states, out.grad_derived = rest[: len(states)], rest[len(states) :]
    out.sums = [symbol(f"sum{k}") for k in range(len(step.derived))]
    out.grad_constants = adjoint(step.makers, out.sums, list(step.constants.values()))
    out.early = _early(step)
    return out


def _early(step: Step) -> list[list[Node]]:
    order = [a for a in in_order(step.outputs) if a is not step.x]
    states = list(step.states.values())
    if 4 * _longest(order, states, step.outputs[1:]) <= _LONGEST_UNIT:
        return []
    with_x, with_state = depends(order, [step.x]), depends(order, states)
    loops: list[list[Node]] = []
    length: dict[int, int] = {}
    for a in order:
        if id(a) in with_x or id(a) not in with_state or a.op == "input":
            continue
        length[id(a)] = EXPENSIVE.get(a.op, 1) + max((length.get(id(b), 0) for b in a.args), default=0)
        if a.op in EXPENSIVE:
            if not loops or length[id(a)] > _LONGEST_EARLY:
                loops.append([])
                length[id(a)] = EXPENSIVE[a.op]
            loops[-1].append(a)
    return loops


def _longest(order: list[Node], sources: list[Node], ends: list[Node]) -> int:
    """Operations of the longest chain from a source to an end."""
    length = {id(a): 0 for a in sources}
    for a in order:
        before = [length[id(b)] for b in a.args if id(b) in length]
        if before:
            length[id(a)] = EXPENSIVE.get(a.op, 1) + max(before)
    return max((length.get(id(e), 0) for e in ends), default=0)
