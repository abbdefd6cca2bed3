"""The operations of a step besides arithmetic and comparisons. Each takes symbols, tensors or numbers: with tensors the
same step is plain PyTorch, in which one can print and set breakpoints."""

from __future__ import annotations

from typing import Any

from . import trace
from .graph import Node, fail, make, node, number_of


def _apply(op: str, *values: Any) -> Any:
    if any(isinstance(v, Node) for v in values):
        return make(op, *values)
    from .. import reference  # torch is needed with tensors alone

    return reference.apply(op, *values)


def spike(u: Any, levels: int = 1) -> Any:
    """1 where ``u >= 0``, else 0, with the surrogate as derivative; with more ``levels`` the number of thresholds 0, 1,
    ..., levels - 1 that u has reached, and the surrogate at each. In ``where`` a spike is the condition that it is
    not 0. A step has one spike."""
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        fail(f"levels must be an integer from 1 on, got {levels!r}")
    if isinstance(u, Node):
        return trace.current().spike(number_of(u), levels)
    from .. import reference

    return reference.spike(u, levels)


def exp(a: Any) -> Any:
    """e to the power of a; below the range of normal numbers 0."""
    return _apply("exp", a)


def log(a: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    return _apply("log", a)


def sqrt(a: Any) -> Any:
    """The square root; NaN below 0."""
    return _apply("sqrt", a)


def tanh(a: Any) -> Any:
    """The hyperbolic tangent."""
    return _apply("tanh", a)


def sigmoid(a: Any) -> Any:
    """1/(1 + exp(-a))."""
    return _apply("sigmoid", a)


def abs(a: Any) -> Any:
    """The magnitude; its derivative at 0 is 0."""
    return _apply("abs", a)


def relu(a: Any) -> Any:
    """a where it is above 0, else 0; the derivative at 0 is 0."""
    return where(a <= 0, 0.0, a)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two; where they are equal, a, which then gets the gradient."""
    return where(a > b, b, a)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two; where they are equal, a, which then gets the gradient."""
    return where(a < b, b, a)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition (a comparison, a spike, or several with & | ~) holds, else b."""
    return _apply("where", condition, a, b)


def detach(a: Any) -> Any:
    """a, as a constant for the backward pass."""
    if isinstance(a, Node) and a.fired is not None:  # a spike of several levels
        out = node("detach", a)
        out.fired = detach(a.fired)
        return out
    if isinstance(a, Node) and a.op == "spike":
        return node("fired", a)
    return _apply("detach", a)
