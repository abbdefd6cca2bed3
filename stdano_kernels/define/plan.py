"""How a step is cut for processors that look a few hundred instructions ahead.

What takes tens of dependent instructions (tanh, exp, a reciprocal) is computed in loops of its own in front of the rest
of a step, each short enough that several of its iterations overlap; in one loop with the rest, a vector unit waits. The
results are kept for the adjoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .adjoint import adjoint, shortened
from .graph import EXPENSIVE, Node, in_order, literal, symbol
from .printing import depends
from .trace import Step

# In operations: what is worth a loop of its own (not a lone tanh, whose loop would only wait for memory that the rest
# then uses too), and how long the chain of one may be (a tanh, or a reciprocal and an exp).
_WORTH_A_LOOP = 25
_LONGEST_CHAIN = 26


@dataclass
class Gradients:
    """What one step's adjoint gives."""

    x: Node
    states: list[Node]
    derived: list[Node]

    @property
    def all(self) -> list[Node]:
        return [self.x, *self.states, *self.derived]

    def shortened(self) -> Gradients:
        """The same numbers with fewer decisions, for who has no use of slopes as nodes of their own."""
        x, *others = shortened(self.all)
        return Gradients(x, others[: len(self.states)], others[len(self.states) :])


@dataclass
class Plan:
    """A step and its adjoint as they are printed."""

    step: Step
    gradients: Gradients
    last: Gradients  # of a step behind which nothing is wanted
    grad_constants: list[Node]
    seeds: dict[str, Node]  # gs, and the gradient of each state after the step
    sums: list[Node]  # the sums of gradients.derived, from which grad_constants follow
    early: list[list[Node]] = field(default_factory=list)  # what each early loop computes
    early_x: bool = False  # whether that takes x
    early_state: bool = False  # whether it takes the state, so that a step must wait for the one before it
    last_needs_early: bool = False  # whether the last step takes it if nothing is wanted behind it
    of_x: list[Node] = field(default_factory=list)  # what is expensive and follows from x alone

    @property
    def kept(self) -> list[Node]:
        return [a for loop in self.early for a in loop]


def plan(step: Step) -> Plan:
    seeds = [symbol("gs"), *[symbol(f"grad_{name}") for name in step.states]]
    sums = [symbol(f"sum{k}") for k in range(len(step.derived))]
    nothing = [seeds[0], *[literal(0)] * len(step.states)]
    out = Plan(
        step,
        gradients=_gradients(step, seeds),
        last=_gradients(step, nothing),
        grad_constants=adjoint(step.makers, sums, list(step.constants.values())),
        seeds=dict(zip(["gs", *step.states], seeds, strict=True)),
        sums=sums,
    )
    out.early = _early(step)
    order = forward_order(step.outputs)
    with_x, with_state = depends(order, [step.x]), depends(order, step.states.values())
    out.early_x = any(id(a) in with_x for a in out.kept)
    out.early_state = any(id(a) in with_state for a in out.kept)
    out.of_x = [a for a in order if a.op in EXPENSIVE and id(a) in with_x - with_state]
    kept = {id(a) for a in out.kept}
    out.last_needs_early = any(id(a) in kept for a in forward_order([step.spike, out.last.x, *out.last.states]))
    return out


def _gradients(step: Step, seeds: list[Node]) -> Gradients:
    states = len(step.states)
    x, *others = adjoint(step.outputs, seeds, [step.x, *step.states.values(), *step.derived])
    return Gradients(x, others[:states], others[states:])


def forward_order(roots: Iterable[Node]) -> list[Node]:
    """The nodes that are computed for the roots: in_order without the slopes of spikes."""
    return in_order(roots, lambda a: a.args[:1] if a.op in ("spike", "soft") else a.args)


def _early(step: Step) -> list[list[Node]]:
    """The expensive operations of a step, in loops. None where spikes are soft, which serves checks."""
    if step.variant.soft:
        return []
    order = forward_order(step.outputs)
    varying = depends(order, [step.x, *step.states.values()])
    expensive = [a for a in order if a.op in EXPENSIVE and id(a) in varying]
    if sum(EXPENSIVE[a.op] for a in expensive) < _WORTH_A_LOOP:
        return []
    loops: list[list[Node]] = []
    length: dict[int, int] = {}
    for a in order:
        if id(a) not in varying or a.op == "input":
            continue
        length[id(a)] = EXPENSIVE.get(a.op, 1) + max((length.get(id(b), 0) for b in a.args), default=0)
        if a.op in EXPENSIVE:
            if not loops or length[id(a)] > _LONGEST_CHAIN:
                loops.append([])
                length[id(a)] = EXPENSIVE[a.op]
            loops[-1].append(a)
    return loops
