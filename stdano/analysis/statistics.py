"""Means over seeds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}  # Student's t, 97.5 %, by degrees of freedom


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: of the values.
        half: half the width of the interval; NaN for a single value.
        count: number of values.
    """

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half


def interval(values: Sequence[float]) -> Interval:
    """The mean of values and its 95 % interval by Student's t, as for normal values that do not depend on each other.

    Args:
        values: one a seed.

    Raises:
        ValueError: there are none.
    """
    count = len(values)
    if not count:
        raise ValueError("values must be at least one, got none")
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.nan, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Interval(mean, _t(count - 1) * deviation / math.sqrt(count), count)


def _t(degrees: int) -> float:
    """The quantile: of a table, or its expansion about the normal one, good to 0.002 from 6 degrees on."""
    if degrees in _T:
        return _T[degrees]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (k + 1) for k, term in enumerate(terms))
