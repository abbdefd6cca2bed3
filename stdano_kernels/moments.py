"""BatchNorm's statistics of a channel, as the kernels count them: over whole tensors, or over the parts of a batch that
several processes hold."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .checks import check_tensor
from .settings import flag, fraction, number


class Moments(NamedTuple):
    """Mean and biased variance of each channel (float64), and the number of values behind them."""

    mean: Tensor
    variance: Tensor
    values: Tensor | int

    def unbiased(self) -> Tensor:
        """The variance with n - 1; for a single value, which only all processes together can have, 0."""
        fewer = self.values - 1
        fewer = fewer.clamp(min=1) if isinstance(fewer, Tensor) else max(fewer, 1)
        return self.variance * (self.values / fewer)


class Statistics(NamedTuple):
    """BatchNorm's statistics and what becomes of them, checked."""

    mean: Tensor | None
    var: Tensor | None
    training: bool
    momentum: float | Tensor
    eps: float

    def as_given(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None, bool, float, float]:
        """The arguments of an operator that computes in a dtype. In training it moves the running ones where it takes
        them as they are."""
        mean, var = self.mean, self.var
        if not self.training:
            mean, var = (t.to(dtype).contiguous() for t in (mean, var) if t is not None)
        elif not self._moved_by_operator(dtype):
            mean = var = None
        return mean, var, self.training, 0.0 if isinstance(self.momentum, Tensor) else self.momentum, self.eps

    def _moved_by_operator(self, dtype: torch.dtype) -> bool:
        if self.mean is None or self.var is None or isinstance(self.momentum, Tensor):
            return False
        return self.mean.dtype == self.var.dtype == dtype and self.mean.is_contiguous() and self.var.is_contiguous()

    def move(self, moments: Tensor, values: int, dtype: torch.dtype) -> None:
        """Behind such an operator, which has returned ``moments``."""
        if self.training and not self._moved_by_operator(dtype):
            update_running(self.mean, self.var, Moments(moments[0], moments[1], values), self.momentum)


def total(sums: Tensor, process_group: dist.ProcessGroup | None) -> Tensor:
    """The sums over all processes of a group, in place; over this one where there is no group."""
    if process_group is not None:
        dist.all_reduce(sums, group=process_group)
    return sums


def total_with_count(sums: Tensor, count: int, process_group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor | int]:
    """The same together with the number of values, which may differ between processes."""
    if process_group is None:
        return sums, count
    # Filled on the device: a tensor made of a Python list would be copied there, and the copy waited for.
    own = torch.full((1,), float(count), dtype=sums.dtype, device=sums.device)
    packed = total(torch.cat((sums.flatten(), own)), process_group)
    return packed[:-1].view_as(sums), packed[-1]


def moments_of(sums: Tensor, count: int, process_group: dist.ProcessGroup | None) -> Moments:
    """From the sums of x and of x*x [2, C] in this process, and the number of values behind each, to all processes'."""
    sums, values = total_with_count(sums, count, process_group)
    mean, square = sums / values
    return Moments(mean, (square - mean * mean).clamp_(min=0), values)


def values_per_channel(x: Tensor, training: bool, process_group: dist.ProcessGroup | None) -> int:
    """The number of values of each channel of x [T, B, C, ...]; in training one alone has no variance."""
    count = x.numel() // max(x.shape[2], 1)
    if training and process_group is None and count == 1:
        raise ValueError(
            f"x must have more than one value for each channel in training, got a tensor of shape {list(x.shape)}: "
            "leave out a last batch of one (drop_last=True of a DataLoader), or call eval() first"
        )
    return count


def statistics_of_nothing(shape: tuple[int, ...], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance for a batch without values, which torch.nn.BatchNorm lets pass without moving its own."""
    return x.new_zeros(shape, dtype=torch.float32), x.new_ones(shape, dtype=torch.float32)


@torch.no_grad()
def update_running(
    running_mean: Tensor | None, running_var: Tensor | None, moments: Moments, momentum: float | Tensor
) -> None:
    """Moves running statistics, if there are any, towards those of a batch as torch.nn.BatchNorm does: the variance is
    the unbiased."""
    if running_mean is None or running_var is None:
        return
    for running, of_batch in ((running_mean, moments.mean), (running_var, moments.unbiased())):
        weight = momentum.to(running.dtype) if isinstance(momentum, Tensor) else momentum
        running.lerp_(of_batch.to(running.dtype), weight)


def check_statistics(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    shape: tuple[int, ...],
    training: bool,
    momentum: float | Tensor,
    eps: float,
    process_group: object,
    x: Tensor,
) -> tuple[float | Tensor, float]:
    """What BatchNorm is told besides its input; ``momentum`` and ``eps`` as floats, but for a tensor of momentum."""
    flag("training", training)
    eps = number("eps", eps, above=0.0)
    if isinstance(momentum, Tensor):
        check_tensor("momentum", momentum, (), x, none="a number or ")
    else:
        momentum = fraction("momentum", momentum)
    if process_group is not None and not (dist.is_available() and isinstance(process_group, dist.ProcessGroup)):
        raise TypeError(
            f"process_group must be None or a torch.distributed.ProcessGroup, got {type(process_group).__name__}"
        )
    _check_running(running_mean, running_var, shape, training, x)
    return momentum, eps


def _check_running(
    running_mean: Tensor | None, running_var: Tensor | None, shape: tuple[int, ...], training: bool, x: Tensor
) -> None:
    """Both or none; none only in training, which then takes the batch's statistics and updates nothing."""
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must both be given or both be None")
    if running_mean is None:
        if not training:
            raise ValueError("running_mean and running_var must be given where training is False")
        return
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        check_tensor(name, value, shape, x)
