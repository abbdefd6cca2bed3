"""The settings of a call that are plain values, checked once and handed to every backend."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states and arithmetic for an input: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


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
    finite = -math.inf < plain < math.inf or (or_inf and plain == math.inf)
    if not finite or (above is not None and not plain > above):
        limit = "" if above is None else f" above {above:g}"
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
