"""The graph of one time step: numbers that are not known yet, and what is done to them.

A step is called once with symbols instead of tensors. Each operation makes a node, or returns the one that already
stands for the same value; what is settled while tracing (0*a, a + 0) makes none. Conditions are nodes too. A hard spike
is a condition, so that a silent neuron's infinity never meets a 0; a soft spike is a number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
CONDITIONS = (*COMPARISONS, "and", "or", "not", "spike", "fired", "is_lowest")
# What a processor computes in tens of dependent instructions, and how many, roughly.
EXPENSIVE = {
    "exp": 14,
    "exp_negative": 12,
    "exp_or_zero": 13,
    "tanh": 20,
    "sigmoid": 20,
    "log": 16,
    "reciprocal": 6,
    "div": 6,
    "sqrt": 6,
    "atan": 22,
}


class DeclarationError(TypeError):
    """What a declaration does that a kernel cannot, and where: the message begins with file and line."""


def fail(message: str) -> NoReturn:
    raise DeclarationError(f"{place()}: {message}")


def place() -> str:
    """File and line of the innermost call that is not in this package."""
    here = str(Path(__file__).parent)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _operator(op: str, swapped: bool = False) -> Any:
    """A method of Node that makes the node of an operation on itself and what it is given."""
    if swapped:
        return lambda self, other: make(op, other, self)
    return lambda self, *other: make(op, self, *other)


class Node:
    """A value of the step. Arithmetic and comparisons make new ones; a decision about one is not possible."""

    __slots__ = ("args", "fired", "op", "value")
    __hash__ = object.__hash__
    __add__, __sub__, __mul__, __truediv__ = map(_operator, ("add", "sub", "mul", "div"))
    __radd__, __rsub__, __rmul__, __rtruediv__ = (_operator(op, True) for op in ("add", "sub", "mul", "div"))
    __neg__, __abs__, __and__, __or__, __invert__ = map(_operator, ("neg", "abs", "and", "or", "not"))
    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = map(_operator, COMPARISONS)

    op: str
    args: tuple[Node, ...]
    value: Any

    def __init__(self, op: str, args: tuple[Node, ...], value: Any) -> None:
        self.op, self.args, self.value = op, args, value
        self.fired: Node | None = None  # of a spike that is a sum of levels: whether there was one

    def __repr__(self) -> str:
        return f"<{self.op} {'' if self.value is None else self.value}>"

    def __pos__(self) -> Node:
        return number_of(self)

    def __pow__(self, power: Any) -> Node:
        if power != 2:
            fail(f"** is allowed with 2 alone, got {power!r}; write the product, or exp(p*log(a))")
        return make("mul", self, self)

    def __bool__(self) -> NoReturn:
        fail("a step cannot branch on a symbol (if, while, and, or, not, min, max): use where(condition, a, b), & | ~")

    def __float__(self) -> NoReturn:
        fail(
            "a symbol is not a number yet: functions of math and numpy cannot take it; use those of "
            "stdano_kernels.define"
        )

    __int__ = __index__ = __complex__ = __float__

    def __iter__(self, *index: Any) -> NoReturn:
        fail("a symbol is the value of one neuron: it has no elements")

    __getitem__ = __len__ = __iter__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        fail(f"a symbol has no method or attribute {name!r}; {ALLOWED}")

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Node:
        op = _OF_NUMPY.get(ufunc.__name__)
        if op is None or method != "__call__":
            fail(f"numpy's {ufunc.__name__} is not an operation of a step; {ALLOWED}")
        return make(op, *operands)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> NoReturn:
        fail(f"torch's {getattr(function, '__name__', function)} is not an operation of a step; {ALLOWED}")


ALLOWED = (
    "allowed are + - * / and comparisons, & | ~ of conditions, and spike, exp, log, sqrt, tanh, sigmoid, relu, abs, "
    "minimum, maximum, where and detach of stdano_kernels.define"
)

# What numpy's own numbers ask for in arithmetic with a symbol.
_OF_NUMPY = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div"}
_OF_NUMPY |= {
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
}

_known: dict[tuple, Node] = {}


def forget() -> None:
    """Begins a new graph; nodes of an earlier one stay valid, but are not found again."""
    _known.clear()


def node(op: str, *args: Node, value: Any = None) -> Node:
    """The node of an operation, as it is."""
    key = (op, value, *[id(a) for a in args])
    if key not in _known:
        _known[key] = Node(op, args, value)
    return _known[key]


def symbol(name: str) -> Node:
    return node("input", value=name)


def literal(value: float) -> Node:
    return node("literal", value=float(value))


def literal_of(a: Node) -> float | None:
    return a.value if a.op == "literal" else None


def is_condition(a: Node) -> bool:
    return a.op in CONDITIONS


def as_node(value: Any) -> Node:
    if isinstance(value, Node):
        return value
    if isinstance(value, (bool, int, float)) or (
        type(value).__module__ == "numpy" and getattr(value, "shape", 0) == ()
    ):
        return literal(float(value))
    fail(f"an operand must be a symbol or a number, got {value!r} of type {type(value).__name__}")


def number_of(value: Any) -> Node:
    """A node as a number: 1 and 0 for a condition."""
    a = as_node(value)
    return make("where", a, 1.0, 0.0) if is_condition(a) else a


def condition_of(value: Any) -> Node:
    a = as_node(value)
    a = a if a.fired is None else a.fired
    if not is_condition(a):
        fail("a condition must be a comparison or a spike")
    return a


def make(op: str, *values: Any) -> Node:
    """The node of an operation, after what can be settled now."""
    if op in ("and", "or", "not"):
        return node(op, *[condition_of(v) for v in values])
    if op == "where":
        return _where(*values)
    if op == "mul":
        return _product(*[as_node(v) for v in values])
    args = [number_of(v) for v in values]
    known = [literal_of(a) for a in args]
    if op == "add" and known[0] == 0:
        return args[1]
    if op in ("add", "sub") and known[1] == 0:
        return args[0]
    if op == "sub" and known[0] == 0:
        return make("neg", args[1])
    if op == "sub" and args[1].op == "neg":
        return make("add", args[0], args[1].args[0])
    if op == "add" and args[1].op == "neg":
        return make("sub", args[0], args[1].args[0])
    if op == "sub" and known[0] is not None and _selects(args[1]):
        condition, a, b = args[1].args
        return make("where", condition, args[0] - a, args[0] - b)
    if op == "neg":
        if args[0].op == "neg":
            return args[0].args[0]
        if known[0] is not None:
            return literal(-known[0])
    if op == "div" and known[1] == 1:
        return args[0]
    if op in ("add", "sub") and None not in known:
        return literal(known[0] + known[1] if op == "add" else known[0] - known[1])  # type: ignore[operator]
    return node(op, *args)


def _selects(a: Node) -> bool:
    """Whether a is one of two literals by a condition, as a spike in arithmetic is."""
    return a.op == "where" and all(b.op == "literal" for b in a.args[1:])


def _product(a: Node, b: Node) -> Node:
    for one, other in ((a, b), (b, a)):
        if is_condition(one):  # selected, not multiplied: a silent neuron's 0 then meets no infinity
            return make("where", one, other, 0.0)
        if literal_of(one) == 0:
            return literal(0)
        if literal_of(one) == 1:
            return number_of(other)
        if literal_of(one) == -1:
            return make("neg", other)
        if _selects(one) and {x.value for x in one.args[1:]} <= {0.0, 1.0}:
            condition, x, y = one.args
            return make("where", condition, x * other, y * other)
    known = [literal_of(a), literal_of(b)]
    if None not in known:
        return literal(known[0] * known[1])  # type: ignore[operator]
    return node("mul", a, b)


def _where(condition: Any, a: Any, b: Any) -> Node:
    chosen = as_node(condition)
    chosen = chosen if chosen.fired is None else chosen.fired
    one, other = number_of(a), number_of(b)
    if one is other:
        return one
    if chosen.op == "soft" or (chosen.op == "detach" and chosen.args[0].op == "soft"):
        return chosen * (one - other) + other
    return node("where", condition_of(chosen), one, other)


def in_order(
    roots: Iterable[Node], arguments: Callable[[Node], Sequence[Node]] = lambda a: a.args, known: Iterable[int] = ()
) -> list[Node]:
    """The nodes that the roots are made of, each behind its arguments; without those ``known`` by their ids."""
    out: list[Node] = []
    seen = set(known)
    stack = [(a, False) for a in reversed(list(roots))]  # not recursive: a step may be long
    while stack:
        a, entered = stack.pop()
        if entered:
            out.append(a)
        elif id(a) not in seen:
            seen.add(id(a))
            stack.append((a, True))
            stack.extend((b, False) for b in reversed(arguments(a)))
    return out


def rebuilt(roots: Sequence[Node], change: dict[int, Node]) -> list[Node]:
    """The roots with nodes replaced, and everything that hangs on them."""
    new = dict(change)
    for a in in_order(roots):
        if id(a) in new:
            continue
        args = tuple(new[id(b)] for b in a.args)
        same = all(b is c for b, c in zip(args, a.args, strict=True))
        new[id(a)] = a if same else node(a.op, *args, value=a.value)
    return [new[id(r)] for r in roots]


def fused(roots: Sequence[Node], frozen: Iterable[Node] = ()) -> list[Node]:
    """The roots with fma where a product is added to something and used for nothing else. Decided here, so that every
    backend rounds in the same places. Nodes that are ``frozen`` stay as they are, and products among them too."""
    kept = {id(a) for a in frozen}
    order = in_order(roots)
    uses: dict[int, int] = {}
    for a in order:
        for b in a.args:
            uses[id(b)] = uses.get(id(b), 0) + 1
    for r in roots:
        uses[id(r)] = uses.get(id(r), 0) + 1
    new: dict[int, Node] = {}
    for a in order:
        args = [new[id(b)] for b in a.args]
        if id(a) in kept:
            new[id(a)] = a
            continue
        fma = None
        if a.op in ("add", "sub"):
            for i in (0, 1):
                if fma is None and a.args[i].op == "mul" and uses[id(a.args[i])] == 1 and id(a.args[i]) not in kept:
                    p, q = args[i].args
                    other = args[1 - i]
                    if a.op == "sub" and i == 0:
                        other = make("neg", other)
                    elif a.op == "sub":
                        p = make("neg", p)
                    fma = node("fma", p, q, other)
        if fma is None:
            same = all(b is c for b, c in zip(args, a.args, strict=True))
            fma = a if same else node(a.op, *args, value=a.value)
        new[id(a)] = fma
    return [new[id(r)] for r in roots]
