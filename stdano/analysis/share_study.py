"""LIF against LLIF and SLIF: how they move the share of the gradient over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from stdano_kernels import function
from stdano_kernels.neurons import NEURONS
from stdano_kernels.spec import spec_of

from .gradient_share import gradient_share, jacobian, reach
from .statistics import Interval, interval

# What is compared with what, and how the LIF resets: LLIF and SLIF with the paper's LIF, and SLIF with one that resets
# softly as it does, which leaves the moving time constant as the only difference.
_PAIRS = (("llif", 0.0), ("slif", 0.0), ("slif", None))
_INPUTS = ("T", "mean", "std", "correlation")


@dataclass(frozen=True)
class Shift:
    """How another neuron's gradient lies over time, compared with LIF's on the same inputs. All intervals are over
    seeds.

    Attributes:
        neuron: ``"LLIF"`` or ``"SLIF"``.
        reset: ``"hard"`` (to 0) or ``"soft"``: that of the LIF.
        settings: all that the study varies and that this comparison depends on, by name.
        lif: LIF's mean step, from 0 to T - 1; see :class:`GradientShare`.
        centre: how far the neuron's mean step lies from LIF's, in steps; below 0: earlier.
        early: by how much the share of the first half is above LIF's, from -1 to 1.
        reach: by how many steps its gradient goes back further than LIF's; see :func:`reach`.
        spikes: by how much its spikes a neuron and step differ from LIF's.
        share, lif_share: the shares of the T steps, means over seeds.
    """

    neuron: str
    reset: str
    settings: dict[str, Any]
    lif: Interval
    centre: Interval
    early: Interval
    reach: Interval
    spikes: Interval
    share: tuple[float, ...]
    lif_share: tuple[float, ...]

    @property
    def holds(self) -> bool | None:
        """Whether the paper's claim holds for the share: LLIF's lies earlier than LIF's, SLIF's later. None where the
        interval of ``centre`` contains 0, or there is none."""
        earlier = _sign(self.centre)
        return None if earlier is None else earlier == (self.neuron == "LLIF")


def _sign(change: Interval) -> bool | None:
    """Whether it is below 0; None where the interval does not tell."""
    return True if change.high < 0 else False if change.low > 0 else None


def share_study(
    *,
    T: Sequence[int] = (6,),
    v_threshold: Sequence[float] = (1.0,),
    tau: Sequence[float] = (1.1,),
    decay: Sequence[str] = ("exp",),
    gamma: Sequence[float] = (0.1,),
    beta: Sequence[float] = (0.1,),
    detach_adapt: Sequence[bool] = (False,),
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    correlation: Sequence[float] = (0.0,),
    seeds: int = 10,
    neurons: int = 4096,
    device: str | torch.device = "cpu",
) -> list[Shift]:
    """LLIF and SLIF against LIF on the same normal inputs, for each combination of the values given (those that a
    comparison does not depend on are left out). Other settings are the neurons' defaults.

    Args:
        T, v_threshold, tau, decay, gamma, beta, detach_adapt: of the neurons; see :func:`stdano_kernels.llif` and
            :func:`stdano_kernels.slif`. The first value of each is the paper's, or what is taken for it here.
        mean, std: of the inputs. A BatchNorm in front of a neuron begins with 0 and 1.
        correlation: of an input with itself in any other step, from 0 (noise) to 1 (the same in all steps, as for a
            still image in the first layer).
        seeds: how often each comparison is made; at least 2 for an interval.
        neurons: with each seed.
        device: where.

    Raises:
        ValueError: there are no values for a setting, or a wrong one.
    """
    given = {k: tuple(v) for k, v in locals().items() if k not in ("seeds", "neurons", "device")}
    for name, values in given.items():
        if not values:
            raise ValueError(f"{name} must have at least one value, got none")
    for name, count in (("seeds", seeds), ("neurons", neurons), *(("T", t) for t in given["T"])):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be an integer from 1 on, got {count!r}")
    if not all(0 <= c <= 1 for c in given["correlation"]):
        raise ValueError(f"correlation must be numbers from 0 to 1, got {correlation!r}")

    @cache
    def measured(name: str, settings: tuple[Any, ...], inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        xs = (_inputs(**dict(inputs), seed=seed, neurons=neurons).to(device) for seed in range(seeds))
        return [_measured(name, dict(settings), x) for x in xs]

    out: dict[tuple[Any, ...], Shift] = {}
    for values in itertools.product(*given.values()):
        combination = dict(zip(given, values, strict=True))
        inputs = tuple((k, combination[k]) for k in _INPUTS)
        for name, reset in _PAIRS:
            own = {k: combination[k] for k in given if k in spec_of(NEURONS[name]).defaults}
            of_lif = {k: own[k] for k in ("tau", "v_threshold", "decay")} | {"v_reset": reset}
            key = name, reset, tuple(own.items()), inputs
            if key not in out:
                pair = [measured("lif", tuple(of_lif.items()), inputs), measured(name, tuple(own.items()), inputs)]
                out[key] = _shift(name.upper(), reset, dict(inputs) | own, *pair)
    return list(out.values())


def _inputs(T: int, mean: float, std: float, correlation: float, seed: int, neurons: int) -> Tensor:
    # On the CPU, where a seed gives the same numbers whatever the device.
    z = torch.randn(T + 1, neurons, generator=torch.Generator().manual_seed(seed))
    return mean + std * (correlation**0.5 * z[-1] + (1 - correlation) ** 0.5 * z[:-1])


def _measured(name: str, settings: dict[str, Any], x: Tensor) -> tuple[Any, ...]:
    share = gradient_share(name, x, **settings)
    spikes = function(NEURONS[name])(x, **settings).mean(dtype=torch.float64).item()
    return share, reach(jacobian(name, x, **settings)), spikes


def _shift(
    name: str, reset: float | None, settings: dict[str, Any], lif: list[tuple[Any, ...]], other: list[tuple[Any, ...]]
) -> Shift:
    pairs = list(zip(lif, other, strict=True))
    return Shift(
        name,
        "hard" if reset is not None else "soft",
        settings,
        interval([share.centre for share, _, _ in lif]),
        interval([b[0].centre - a[0].centre for a, b in pairs]),
        interval([b[0].early - a[0].early for a, b in pairs]),
        interval([b[1] - a[1] for a, b in pairs]),
        interval([b[2] - a[2] for a, b in pairs]),
        *(_mean([row[0].share for row in rows]) for rows in (other, lif)),
    )


def _mean(shares: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(torch.tensor(shares, dtype=torch.float64).mean(0).tolist())
