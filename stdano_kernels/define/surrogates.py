"""The surrogates: for ``u``, the distance to the threshold, a value (what a soft spike emits) and a slope (what stands
in for the spike's derivative), in the operations of a step. The formulas are in :mod:`stdano_kernels.surrogate`.

Slopes are finite for every u, infinite ones included, and NaN for NaN: a comparison that decides is written so that
NaN falls to the side of u.
"""

from __future__ import annotations

from collections.abc import Callable

from .graph import Node, make

HALF_PI = 1.5707963267948966
FAR = 1e15  # its square is still in the reciprocal's range


def _where(condition: Node, a: object, b: object) -> Node:
    return make("where", condition, a, b)


def _reciprocal(a: Node) -> Node:
    return make("reciprocal", a)


def _sign(u: Node) -> Node:
    return _where(u < 0, -1.0, 1.0)


def _triangle(u: Node, alpha: Node) -> tuple[Node, Node]:
    a = abs(u)
    z = _where(alpha * a > 1, 1.0, alpha * a)
    d = alpha - alpha * (alpha * a)  # alpha*alpha may overflow
    return 0.5 + _sign(u) * (z - 0.5 * z * z), _where(d < 0, 0.0, d)


def _rectangle(u: Node, alpha: Node) -> tuple[Node, Node]:
    a = abs(u)
    z = _where(alpha * a > 0.5, 0.5, alpha * a)
    inside = _where(alpha * a < 0.5, alpha, 0.0)
    return 0.5 + _sign(u) * z, _where(a == a, inside, a)


def _sigmoid(u: Node, alpha: Node) -> tuple[Node, Node]:
    a = -alpha * abs(u)
    e, d = make("exp_negative", a), make("exp_or_zero", a)
    inverse = _reciprocal(1 + d)
    return _where(u < 0, e, 1.0) / (1 + e), alpha * d * inverse * inverse


def _atan(u: Node, alpha: Node) -> tuple[Node, Node]:
    z = HALF_PI * alpha * abs(u)
    value = 0.5 + 0.3183098861837907 * make("atan", HALF_PI * alpha * u)
    return value, _where(z > FAR, 0.0, 0.5 * alpha * _reciprocal(z * z + 1))


def _piecewise_exp(u: Node, alpha: Node) -> tuple[Node, Node]:
    a = -alpha * abs(u)
    e = 0.5 * make("exp_negative", a)
    return _where(u < 0, e, 1 - e), 0.5 * alpha * make("exp_or_zero", a)


def _fast_sigmoid(u: Node, alpha: Node) -> tuple[Node, Node]:
    a = abs(u)
    d = alpha * a + 1
    limit, z = 1 / alpha, a / d  # the limit where |u| is too large for the quotient (inf/inf)
    value = 0.5 + _sign(u) * _where((z < limit) | (u != u), z, limit)
    return value, _where(d > FAR, 0.0, _reciprocal(d * d))


SHAPES: dict[str, Callable[[Node, Node], tuple[Node, Node]]] = {
    "triangle": _triangle,
    "rectangle": _rectangle,
    "sigmoid": _sigmoid,
    "atan": _atan,
    "piecewise_exp": _piecewise_exp,
    "fast_sigmoid": _fast_sigmoid,
}
