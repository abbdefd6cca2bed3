"""The settings of a call that are plain values, checked once and handed to every backend."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .surrogate import SURROGATES


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states and arithmetic for an input: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class Settings(NamedTuple):
    """What reference and kernels are told besides tensors. ``rate`` is gamma (LLIF) or beta (SLIF)."""

    v_reset: float | None
    rate: float
    tau_min: float
    linear_decay: bool
    decay_input: bool
    surrogate: str
    alpha: float
    soft_spike: bool
    detach_reset: bool
    detach_adapt: bool

    def as_arguments(self) -> tuple:
        """The arguments of the compiled operators from ``v_reset`` on, in the order of their schema."""
        return (*self[:5], SURROGATES.index(self.surrogate), *self[6:])


def python_value(value: Any) -> Any:
    """A numpy scalar as the Python value that it is; anything else as it is."""
    if type(value) in (bool, int, float) or type(value).__module__ != "numpy" or getattr(value, "shape", None) != ():
        return value
    return value.item()


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def flag(name: str, value: object) -> bool:
    plain = python_value(value)
    if not isinstance(plain, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return plain


def number(name: str, value: object, *, above: float | None = None, or_inf: bool = False) -> float:
    """``value`` as a float; it must be finite (or, where that is allowed, inf) and larger than ``above``, if given."""
    plain = python_value(value)
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    limit = "" if above is None else f" above {above:g}"
    finite = -math.inf < plain < math.inf or (or_inf and plain == math.inf)
    if not finite or (above is not None and not plain > above):
        hint = "; inf is allowed as well" if or_inf else ""
        raise ValueError(f"{name} must be a finite number{limit}, got {value!r}{hint}")
    return float(plain)


def fraction(name: str, value: object) -> float:
    """``value`` as a float from 0 to 1."""
    share = number(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return share


# Beyond these, exp(-1/tau) is 0 or 1 in every dtype; within them, neither 1/tau nor its square overflows in float32.
SMALLEST, LARGEST = 1e-19, 1e30


def make_settings(
    *,
    v_reset: float | None,
    decay: str,
    decay_input: bool,
    surrogate: str,
    alpha: float,
    detach_reset: bool,
    spike: str,
    rate: float,
    rate_name: str,
    tau_min: float,
    detach_adapt: bool,
) -> Settings:
    """Checks every value and names the argument that is wrong."""
    choice("decay", decay, ("exp", "linear"))
    choice("surrogate", surrogate, SURROGATES)
    choice("spike", spike, ("hard", "soft"))
    linear = decay == "linear"
    return Settings(
        None if v_reset is None else number("v_reset", v_reset),
        min(max(number(rate_name, rate), -LARGEST), LARGEST),
        min(max(number("tau_min", tau_min, above=1.0 if linear else 0.0), SMALLEST), LARGEST),
        linear,
        flag("decay_input", decay_input),
        surrogate,
        number("alpha", alpha, above=0.0),
        spike == "soft",
        flag("detach_reset", detach_reset),
        flag("detach_adapt", detach_adapt),
    )
