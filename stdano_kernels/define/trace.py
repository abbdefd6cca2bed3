"""From a declaration to graphs: a call of its step with symbols."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .graph import DeclarationError, Node, fail, forget, fused, in_order, is_condition, node, number_of, rebuilt, symbol
from .surrogates import SHAPES

if TYPE_CHECKING:
    from .neuron import Neuron


@dataclass(frozen=True)
class Variant:
    """What is settled when a kernel is compiled.

    Args:
        reset: ``"hard"``, ``"zero"`` (hard, to 0: leaves out what adding 0 would cost) or ``"soft"``.
        options: values of the neuron's options by name.
        surrogate: a name of :data:`SHAPES`, or "own" where the declaration has a surrogate.
        soft: spikes are soft.
    """

    reset: str = "zero"
    options: tuple[tuple[str, Any], ...] = ()
    surrogate: str = "triangle"
    soft: bool = False

    @property
    def plain(self) -> tuple[Any, ...]:
        """Its values: what torch.compile hands on to functions that it does not trace."""
        return self.reset, self.options, self.surrogate, self.soft


@dataclass
class Step:
    """The graph of a step.

    ``derived`` are the values that depend on constants alone and that the step uses: they are computed once a neuron,
    not once a step, and stand as the inputs ``derived0, derived1, ...`` in ``outputs`` (the spike, then the states
    after the step). ``makers`` are their graphs, from the constants.
    """

    neuron: type[Neuron]
    variant: Variant
    constants: dict[str, Node]  # those that are used, in the order of their declaration
    states: dict[str, Node]
    outputs: list[Node] = field(default_factory=list)
    makers: list[Node] = field(default_factory=list)
    derived: list[Node] = field(default_factory=list)
    x: Node = field(default_factory=lambda: symbol("x"))
    used: set[str] = field(default_factory=set)  # names of constants and options, and "surrogate"
    times: set[str] = field(default_factory=set)  # constants from which n.decay is made

    @property
    def spike(self) -> Node:
        return self.outputs[0]

    def rests(self, constants: Mapping[str, Any]) -> list[Any]:
        """Where each state begins, with the constants of a call."""
        return [constants[rest] if isinstance(rest, str) else rest for rest in self.rest_names()]

    def rest_names(self) -> list[str | float]:
        """The same, a constant by its name."""
        of_v = "v_reset" if self.variant.reset == "hard" else 0.0
        return [of_v if s.rest is None else s.rest for s in self.neuron.states.values()]


class _Tracer:
    """What the operations of a step ask while it is traced."""

    def __init__(self, neuron: type[Neuron], n: Any, variant: Variant, alpha: Node) -> None:
        self.neuron, self.n, self.variant, self.alpha = neuron, n, variant, alpha
        self.spikes: list[Node] = []
        self.slopes: dict[int, Node] = {}
        self.used: set[str] = set()

    def _shape(self, u: Node) -> tuple[Node, Node]:
        if hasattr(self.neuron, "surrogate"):
            value, slope = self.neuron.surrogate(self.n, u)
            return number_of(value), number_of(slope)
        self.used.add("surrogate")
        return SHAPES[self.variant.surrogate](u, self.alpha)

    def spike(self, u: Node, levels: int) -> Node:
        if self.spikes:
            fail("a step has one spike; this is the second")
        parts = [self._one(u - float(k) if k else u) for k in range(levels)]
        if levels == 1:
            self.spikes = parts
            return parts[0]
        total = number_of(parts[0])
        for part in parts[1:]:
            total = total + part
        # A node of its own, so that nothing else is taken for the spike.
        out = node("levels", total)
        out.fired = parts[0]
        self.spikes = [out]
        return out

    def _one(self, u: Node) -> Node:
        value, slope = self._shape(u)
        return node("soft", value, u, slope) if self.variant.soft else node("spike", u, slope)


_stack: list[_Tracer] = []


def current() -> _Tracer:
    if not _stack:
        fail("spike of a symbol outside of a step")
    return _stack[-1]


def trace(neuron: type[Neuron], variant: Variant) -> Step:
    """The graph of ``neuron.step`` in a variant."""
    forget()
    options = {name: o.default for name, o in neuron.options.items()} | dict(variant.options)
    constants: dict[str, Any] = {name: symbol(name) for name in neuron.constants}
    if variant.reset != "hard":
        constants["v_reset"] = None if variant.reset == "soft" else 0.0
    for name, c in neuron.constants.items():
        if c.above is not None and constants[name] is not None:
            constants[name] = node("limit", constants[name])
    states = {name: symbol(name) for name in neuron.states}
    x = symbol("x")
    n = neuron.symbolic(constants | options)
    tracer = _Tracer(neuron, n, variant, symbol("alpha"))
    _stack.append(tracer)
    try:
        returned = neuron.step(n, x, *states.values())
    except DeclarationError:
        raise
    except (NameError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise DeclarationError(f"{_line_of(error, neuron)}: {neuron.__name__}.step: {error}") from error
    finally:
        _stack.pop()
    outputs = _outputs(neuron, tracer, returned)
    used = n._used | tracer.used | {s.rest for s in neuron.states.values() if isinstance(s.rest, str)}
    if any(s.rest is None for s in neuron.states.values()):
        used.add("v_reset")
    step = Step(neuron, variant, {}, states, x=x)
    _separate(step, fused(outputs))
    names = [name for name in neuron.constants if name in used and not (name == "v_reset" and variant.reset != "hard")]
    step.constants = {name: symbol(name) for name in names}
    step.times = {a.value for a in in_order(n._decayed) if a.op == "input" and a.value in names}
    step.used = used
    return step


def _outputs(neuron: type[Neuron], tracer: _Tracer, returned: Any) -> list[Node]:
    code = neuron.step.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}: {neuron.__name__}.step"
    count = len(neuron.states)
    if not isinstance(returned, tuple) or len(returned) != count + 1:
        got = f"{len(returned)} values" if isinstance(returned, tuple) else "no tuple"
        names = ", ".join(neuron.states)
        raise DeclarationError(
            f"{where} must return a tuple of the spike and the states after the step ({names}), got {got}"
        )
    if not tracer.spikes or returned[0] is not tracer.spikes[0]:
        raise DeclarationError(f"{where} must return what spike(...) gave as its first value")
    spike, *after = returned
    return [spike, *[number_of(a) for a in after]]


def _line_of(error: BaseException, neuron: type[Neuron]) -> str:
    """The innermost line of the error that is not in this package."""
    code = neuron.step.__code__
    line = f"{code.co_filename}:{code.co_firstlineno}"
    for info in inspect.getinnerframes(error.__traceback__) if error.__traceback__ else ():
        if info.filename == code.co_filename:
            line = f"{info.filename}:{info.lineno}"
    return line


def _separate(step: Step, outputs: list[Node]) -> None:
    """Takes what depends on constants alone out of the step."""
    varying: set[int] = set()
    for a in in_order(outputs):
        if (a.op == "input" and (a.value in ("x", "alpha") or a.value in step.states)) or any(
            id(b) in varying for b in a.args
        ):
            varying.add(id(a))
    change: dict[int, Node] = {}
    stack = list(outputs)
    seen: set[int] = set()
    while stack:
        a = stack.pop(0)
        if id(a) in seen or a.op == "literal":
            continue
        seen.add(id(a))
        if id(a) in varying or is_condition(a):
            stack.extend(a.args)
        else:
            change[id(a)] = symbol(f"derived{len(step.makers)}")
            step.makers.append(a)
    step.derived = list(change.values())
    step.outputs = rebuilt(outputs, change)
