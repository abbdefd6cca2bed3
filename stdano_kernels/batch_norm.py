"""BatchNorm and the neuron behind it in one kernel: the normalised tensor is never stored.

Forward: one pass over x sums up each channel, and the neuron's kernel normalises x in registers. Backward: the neuron's
kernel writes the gradient of x as if the statistics were constants, together with the two sums of each channel from
which theirs follows; a last pass adds that. Kept for backward: x and a few numbers a channel. How all of it is one
operator, or several, is in normalise.py.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import registration
from .backends import NAMES, select
from .checks import check_channels, check_input, check_tensor
from .define.neuron import Neuron
from .functional import FUNCTIONS, function
from .moments import Statistics, check_statistics, statistics_of_nothing, values_per_channel
from .normalise import Norm
from .settings import choice


def bn_neuron(
    neuron: str | type[Neuron],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    process_group: dist.ProcessGroup | None = None,
    backend: str = "auto",
    **settings: Any,
) -> Any:
    """``torch.nn.functional.batch_norm`` over T, B and space, followed by a neuron, without the tensor in between.

    Args:
        neuron: the name of a neuron that comes with the library (``"lif"``, ...), or a declaration.
        x: ``[T, B, C, ...]``, usually the output of a convolution; dtypes and layouts as for
            :func:`stdano_kernels.lif`.
        running_mean, running_var: ``[C]``. Updated in place in training; used instead of the batch's statistics
            otherwise. None (in training alone): nothing is updated.
        weight, bias: ``[C]``, or None for 1 and 0. They may require grad.
        training: normalise by the batch's own statistics.
        momentum: weight of the batch in the running statistics, from 0 to 1; a number, or a tensor of shape ``[]``,
            whose value is not looked at.
        eps: added to the variance.
        process_group: statistics over all processes of this group (every one must call, forward and backward);
            None: over this process alone.
        backend: see :func:`stdano_kernels.backends`; ``"reference"`` runs ``batch_norm`` and then the neuron.
        settings: every other argument of the neuron's function.

    Returns:
        What the neuron's function returns.

    Raises:
        ValueError, TypeError: an argument is wrong; or in training a channel has one value alone.
    """
    run = function_of(neuron)
    check_input(x)
    channels = check_channels(x)
    momentum, eps = check_statistics(running_mean, running_var, (channels,), training, momentum, eps, process_group, x)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_tensor(name, value, (channels,), x, none="None or ")
    if settings.get("affine") is not None:
        raise ValueError("affine must be left out: it is made from weight, bias and the statistics")
    choice("backend", backend, ("auto", *NAMES))
    chosen = select(backend, x)
    count = values_per_channel(x, training, process_group)
    if training and count == 0 and process_group is None:
        training, (running_mean, running_var) = False, statistics_of_nothing((channels,), x)
    if chosen == "reference":
        if process_group is not None:
            raise ValueError("process_group must be None with the reference backend")
        images = x.flatten(0, 1)
        normalised = F.batch_norm(images, running_mean, running_var, weight, bias, training, float(momentum), eps)
        return run(normalised.unflatten(0, x.shape[:2]), backend=chosen, **settings)
    statistics = Statistics(running_mean, running_var, training, momentum, eps)
    norm = Norm(weight, bias, statistics, count, process_group, registration.NAMESPACES[chosen])
    return run(x, affine=norm, backend=backend, **settings)


def function_of(neuron: str | type[Neuron]) -> Any:
    """The function of a neuron that is named or declared."""
    if isinstance(neuron, type):
        return function(neuron)
    choice("neuron", neuron, tuple(FUNCTIONS))
    return FUNCTIONS[neuron]
