"""The neurons in plain PyTorch, one time step after the other: a declared step's graph as Python. The oracle that every
kernel is held against, and the fallback for devices without kernels. Any device, any floating dtype; half precision is
computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .define.graph import Node
from .define.printing import Statements
from .define.trace import Step
from .saved import saved_tensors
from .settings import LARGEST, SMALLEST


class _Spike(torch.autograd.Function):
    """Heaviside(u), u = 0 included, or a soft spike's value, with the surrogate's slope as derivative; autograd would
    get the value's derivative wrong at u = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, slope: Tensor, value: Tensor | None) -> Tensor:
        return (u >= 0).to(u.dtype) if value is None else value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = saved_tensors(ctx)
        return torch.where(slope != 0, grad * slope, torch.zeros_like(slope)), None, None


class _Choose(torch.autograd.Function):
    """a where there is a spike, else b: no product, in which 0 could meet infinity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(s > 0, a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, a, b = saved_tensors(ctx)
        zero = torch.zeros_like(grad)
        return grad * (a - b), torch.where(s > 0, grad, zero), torch.where(s > 0, zero, grad)


def _limit(tau: Any) -> Any:
    """A time constant within what makes a difference; the gradient goes past the limits."""
    if not isinstance(tau, Tensor):
        return min(max(tau, SMALLEST), LARGEST)
    return tau + (tau.detach().clamp(SMALLEST, LARGEST) - tau.detach())


def _of(name: str) -> Callable[..., Any]:
    """torch's function for tensors, math's for numbers."""
    of_tensor, of_number = getattr(torch, name), getattr(math, name)
    return lambda a: of_tensor(a) if isinstance(a, Tensor) else of_number(a)


def _tanh(a: Any) -> Any:
    """Beyond 20 it is 1 in any precision; the limit keeps an infinite a from a derivative of 0*inf."""
    return torch.tanh(a.clamp(-20, 20)) if isinstance(a, Tensor) else math.tanh(a)


def _sigmoid(a: Any) -> Any:
    return torch.sigmoid(a) if isinstance(a, Tensor) else 1 / (1 + math.exp(-a))


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Tensor):
        return a if condition else b
    if condition.dtype == torch.bool:
        return torch.where(condition, a, b)
    zero = torch.zeros_like(condition)
    return _Choose.apply(condition, zero + a, zero + b)


def _as_bool(a: Any) -> Any:
    return a > 0 if isinstance(a, Tensor) and a.dtype != torch.bool else a


_APPLY: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "fma": lambda a, b, c: a * b + c,
    "abs": abs,
    "exp": _of("exp"),
    "exp_negative": _of("exp"),
    "exp_or_zero": _of("exp"),
    "log": _of("log"),
    "sqrt": _of("sqrt"),
    "tanh": _tanh,
    "atan": _of("atan"),
    "sigmoid": _sigmoid,
    "reciprocal": lambda a: 1 / a,
    "limit": _limit,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: _as_bool(a) & _as_bool(b),
    "or": lambda a, b: _as_bool(a) | _as_bool(b),
    "not": lambda a: ~_as_bool(a) if isinstance(a, Tensor) else not a,
    "where": _where,
    "levels": lambda a: a,
    "detach": lambda a: a.detach() if isinstance(a, Tensor) else a,
    "fired": lambda a: a.detach(),
    "spike": lambda u, slope: _Spike.apply(u, slope, None),
    "soft": lambda value, u, slope: _Spike.apply(u, slope, value.detach()),
}


def apply(op: str, *values: Any) -> Any:
    """An operation of a step on tensors."""
    return _APPLY[op](*values)


def spike(u: Tensor, levels: int) -> Tensor:
    """A spike outside of any call: the triangle for a surrogate."""
    total = torch.zeros_like(u)
    for k in range(levels):
        total = total + _Spike.apply(u - k, (1 - (u - k).abs()).clamp(min=0), None)
    return total


def _call_of(op: str, *operands: str) -> str:
    return f"_APPLY[{op!r}]({', '.join(operands)})"


def printed(name: str, inputs: Sequence[Node], roots: Sequence[Node]) -> Callable[..., Any]:
    """A function of the inputs, alpha and a zero, which gives numbers their dtype, that returns what the roots are."""
    statements = Statements(
        {op: partial(_call_of, op) for op in _APPLY},
        lambda condition, name, text: f"    {name} = {text}",
        lambda value: f"(zero + {value!r})",
    )
    names = {id(a): f"a{k}" for k, a in enumerate(inputs)}
    results = statements.add(roots, names)
    head = f"def {name}({', '.join([*[*names.values()][: len(inputs)], 'alpha', 'zero'])}):"
    source = "\n".join([head, *statements.lines, f"    return [{', '.join(results)}]"])
    space: dict[str, Any] = {"_APPLY": _APPLY, "inf": math.inf, "nan": math.nan}
    exec(compile(source, f"<{name}>", "exec"), space)
    return space[name]


class Printed:
    """A step as Python: what depends on constants alone, and the step itself."""

    def __init__(self, step: Step) -> None:
        name = step.neuron.__name__
        self.derive: Callable[..., Any] = printed(f"{name}_constants", list(step.constants.values()), step.makers)
        self.step: Callable[..., Any] = printed(
            f"{name}_step", [step.x, *step.states.values(), *step.derived], step.outputs
        )
        self.rests: list[str | float] = step.rest_names()
        self.constants: tuple[str, ...] = tuple(step.constants)


def per_channel(constant: Tensor | float, x: Tensor) -> Tensor | float:
    """A constant of shape [C] as it broadcasts against a time step [B, C, ...]."""
    if isinstance(constant, Tensor):
        constant = constant.to(x.dtype)
        if constant.dim() == 1 and x.dim() >= 3:
            return constant.reshape(-1, *[1] * (x.dim() - 3))
    return constant


def neuron(
    step: Printed,
    x: Tensor,  # [T, ...]
    state: Sequence[Tensor],  # [...] each; none: at rest
    constants: Sequence[Tensor | float],  # in the order of step.constants
    affine: Tensor | None,  # [3, C]: centre, scale, shift
    alpha: float,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Runs a neuron over all steps: spikes, final states, and every state's values after each step, [T, ...]."""
    dtype = x.dtype
    x = x if dtype == torch.float64 else x.float()
    if affine is not None:
        centre, scale, shift = (per_channel(row, x) for row in affine)
        x = scale * (x - centre) + shift
    given = [per_channel(c, x) for c in constants]
    zero = x.new_zeros(x.shape[1:])
    derived = step.derive(*given, alpha, zero.new_zeros(()))
    states = list(state)
    if not states:
        named = dict(zip(step.constants, given, strict=True))
        states = [zero + (named[rest] if isinstance(rest, str) else rest) for rest in step.rests]

    spikes: list[Tensor] = []
    sequences: list[list[Tensor]] = [[] for _ in states]
    for xt in x.unbind(0):
        s, *states = step.step(xt, *states, *derived, alpha, zero)
        spikes.append(s.to(dtype))
        for values, after in zip(sequences, states, strict=True):
            values.append(after.to(dtype))
    if not spikes:
        return torch.empty_like(x, dtype=dtype), states, [torch.empty_like(x, dtype=dtype) for _ in states]
    return torch.stack(spikes), states, [torch.stack(values) for values in sequences]
