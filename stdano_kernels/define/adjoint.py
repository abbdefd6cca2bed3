"""Reverse mode on the graph of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .graph import Node, fused, in_order, literal, literal_of, make, node

# Where exp(-1/tau) has come to its end it is a constant; include/neuron_math.h has the numbers.
_BOUNDED = {"tanh", "sigmoid", "spike", "fired", "soft", "levels", "exp_negative", "exp_or_zero", "atan"}


def weighted(weight: Node, a: Node) -> Node:
    """weight*a; a vanishing weight removes a value even if that is infinite."""
    if literal_of(weight) is not None:
        return weight * a
    return make("where", weight != 0, weight * a, 0.0)


def adjoint(outputs: Sequence[Node], seeds: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """The gradients of ``inputs``, literal 0 where nothing arrives, from those of ``outputs``."""
    order = in_order(outputs)
    bounded = _bounded(order, inputs)
    needed = {id(a) for a in inputs}
    for a in order:
        if any(id(b) in needed for b in a.args):
            needed.add(id(a))
    gradient: dict[int, Node] = {}

    def add(a: Node, g: Node) -> None:
        if id(a) in needed:
            gradient[id(a)] = gradient[id(a)] + g if id(a) in gradient else g

    def times(g: Node, factor: Node) -> Node:
        """g*factor, where a gradient of 0 stays 0 even if the factor is infinite."""
        return g * factor if id(factor) in bounded or factor.op == "literal" else weighted(g, factor)

    for out, seed in zip(outputs, seeds, strict=True):
        add(out, seed)
    for a in reversed(order):
        if id(a) in gradient and literal_of(gradient[id(a)]) != 0:
            _propagate(a, gradient[id(a)], add, times)
    zero = literal(0)
    return fused([gradient.get(id(a), zero) for a in inputs], frozen=order)


def shortened(roots: Sequence[Node]) -> list[Node]:
    """The roots, where a weight that is z, but 0 where z is below 0, asks once instead of twice; the same numbers."""
    new: dict[int, Node] = {}
    for a in in_order(roots):
        args = tuple(new[id(b)] for b in a.args)
        same = all(b is c for b, c in zip(args, a.args, strict=True))
        new[id(a)] = a if same else node(a.op, *args, value=a.value)
        if a.op == "where" and args[0].op == "ne" and args[1].op == "mul" and args[0].args[0] is args[1].args[0]:
            weight, value = args[1].args
            z = _above_zero(weight)
            if z is not None:
                new[id(a)] = node("where", node("le", z, literal(0)), args[2], node("mul", z, value))
    return [new[id(r)] for r in roots]


def _above_zero(a: Node) -> Node | None:
    """z where a is ``z < 0 ? 0 : z``."""
    if a.op == "where" and a.args[0].op == "lt" and literal_of(a.args[1]) == 0:
        below, zero = a.args[0].args
        return below if below is a.args[2] and literal_of(zero) == 0 else None
    return None


def _bounded(order: Sequence[Node], inputs: Sequence[Node]) -> set[int]:
    """What is finite for any input of the step: what has limits of its own, and what depends on constants alone."""
    out: set[int] = set()
    for a in order:
        varies = a.op == "input" and not str(a.value).startswith(("derived", "alpha"))
        if (
            a.op in _BOUNDED
            or (not varies and a.op != "exp" and all(id(b) in out for b in a.args))
            or (a.op == "where" and all(id(b) in out for b in a.args[1:]))
        ):
            out.add(id(a))
    return out


def _propagate(a: Node, g: Node, add: Callable, times: Callable) -> None:
    x = a.args
    if a.op == "add":
        add(x[0], g)
        add(x[1], g)
    elif a.op == "sub":
        add(x[0], g)
        add(x[1], -g)
    elif a.op == "neg":
        add(x[0], -g)
    elif a.op in ("mul", "fma"):
        add(x[0], times(g, x[1]))
        add(x[1], times(g, x[0]))
        if a.op == "fma":
            add(x[2], g)
    elif a.op == "div":
        add(x[0], g / x[1])
        add(x[1], -times(g / x[1], a))
    elif a.op == "reciprocal":
        add(x[0], -(g * (a * a)))
    elif a.op in ("exp", "exp_or_zero"):
        add(x[0], times(g, a))
    elif a.op == "exp_negative":
        add(x[0], make("where", make("is_lowest", x[0]), 0.0, times(g, a)))
    elif a.op == "log":
        add(x[0], g / x[0])
    elif a.op == "sqrt":
        add(x[0], g / (2 * a))
    elif a.op == "tanh":
        add(x[0], weighted(1 - a * a, g))
    elif a.op == "sigmoid":
        add(x[0], weighted(a * (1 - a), g))
    elif a.op == "abs":
        add(x[0], make("where", x[0] > 0, g, make("where", x[0] < 0, -g, 0.0)))
    elif a.op == "where":
        condition, one, other = x
        if condition.op == "spike":
            add(condition, g * (one - other))
        add(one, make("where", condition, g, 0.0))
        add(other, make("where", condition, 0.0, g))
    elif a.op == "spike":
        add(x[0], weighted(x[1], g))
    elif a.op == "soft":
        add(x[1], weighted(x[2], g))
    elif a.op in ("limit", "levels"):
        add(x[0], g)
    # inputs, literals, conditions, detach, fired: nothing goes further
