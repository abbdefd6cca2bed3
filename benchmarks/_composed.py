"""What is timed against what beyond single neurons: the super neuron, and BatchNorm with the neuron behind it.

Each by stdano's kernel; by PyTorch without stdano's kernels, eager and compiled, in two variants as for the neurons;
and "unfused": stdano's own neurons with F.batch_norm beside them, what one would write without the fused function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from _contenders import NEURONS, PLAIN, Contender, Function, available_backends, eager_and_compiled, ready
from _timing import Case, parameter_dtype
from torch import Tensor

import stdano_kernels


def super_case(passes: str, dtype: str, shape: tuple[int, ...], device: str) -> Case:
    """The super neuron of all three, in the middle of a search: equal weights."""
    return Case("super", passes, dtype, shape, device, ((len(NEURONS), 1 / len(NEURONS)),))


def bn_case(neuron: str, passes: str, dtype: str, shape: tuple[int, ...], device: str) -> Case:
    """BatchNorm with weight 1 and bias 0, as it is made."""
    return Case(f"bn_{neuron}", passes, dtype, shape, device, ((shape[2], 1.0), (shape[2], 0.0)))


def composed_contenders(case: Case, compiled: bool) -> list[Contender]:
    """Everything that is timed for one case of :func:`super_case` or :func:`bn_case`, stdano's backends first."""
    return _super(case, compiled) if case.neuron == "super" else _bn(case, compiled)


def plain_super(neurons: Sequence[Function], mean: Tensor, var: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Each neuron's spikes, normalised over T, B and space with their own statistics, and their weighted sum."""
    y: Tensor | float = 0.0
    for k, neuron in enumerate(neurons):
        y = y + weights[k] * F.batch_norm(neuron(x).flatten(0, 1), mean[k], var[k], training=True)
    assert isinstance(y, Tensor)
    return y.unflatten(0, x.shape[:2]).to(x.dtype)


def plain_bn(neuron: Function, mean: Tensor, var: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """BatchNorm over T, B and space, then the neuron."""
    normalised = F.batch_norm(x.flatten(0, 1), mean, var, weight, bias, training=True)
    return neuron(normalised.unflatten(0, x.shape[:2]))


def _super(case: Case, compiled: bool) -> list[Contender]:
    mean, var = _statistics(case, len(NEURONS), case.shape[2])

    def public(backend: str) -> Function:
        return lambda x, weights: stdano_kernels.super_neuron(x, weights, mean, var, training=True, backend=backend)

    plain = [PLAIN[name] for name in NEURONS]
    return _all(case, public, partial(plain_super, plain, mean, var), compiled) + [
        ready("unfused", "", partial(plain_super, [getattr(stdano_kernels, name) for name in NEURONS], mean, var))
    ]


def _bn(case: Case, compiled: bool) -> list[Contender]:
    neuron = case.neuron.removeprefix("bn_")
    mean, var = _statistics(case, case.shape[2])

    def public(backend: str) -> Function:
        return lambda x, weight, bias: stdano_kernels.bn_neuron(
            neuron, x, mean, var, weight, bias, training=True, backend=backend
        )

    return _all(case, public, partial(plain_bn, PLAIN[neuron], mean, var), compiled) + [
        ready("unfused", "", partial(plain_bn, getattr(stdano_kernels, neuron), mean, var))
    ]


def _all(case: Case, public: Callable[[str], Function], plain: Function, compiled: bool) -> list[Contender]:
    out = [ready(name, "", public(name)) for name in available_backends(case.device)]
    return out + eager_and_compiled({"reference backend": public("reference"), "plain equations": plain}, compiled)


def _statistics(case: Case, *shape: int) -> tuple[Tensor, Tensor]:
    """Running mean and variance as they begin. All contenders of a case move the same ones, which no result uses."""
    options = {"dtype": parameter_dtype(case.dtype), "device": case.device}
    return torch.zeros(shape, **options), torch.ones(shape, **options)
