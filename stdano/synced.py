"""BatchNorm over all processes, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from .link import statistics, synchronised


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """``torch.nn.SyncBatchNorm`` for ``[N, C, H, W]``, which also works on the CPU (with gloo), and where processes
    hold unequally many images. On GPUs it is torch's own; :func:`stdano.fuse` takes both.

    Arguments, parameters, buffers and errors are those of ``torch.nn.SyncBatchNorm``.
    """

    def forward(self, input: Tensor) -> Tensor:
        group = synchronised(self.training, self)
        if input.is_cuda or group is None:
            return super().forward(input) if input.is_cuda else self._alone(input)
        x = input.double()
        count = x.new_tensor([float(x.numel() // x.shape[1])])
        packed = all_reduce(torch.cat((count, x.sum((0, 2, 3)))), group=group)
        values, mean = packed[0].detach(), packed[1:] / packed[0].detach()
        centred = x - mean.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().sum((0, 2, 3)), group=group) / values
        running_mean, running_var, _, momentum = statistics(self)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                unbiased = variance * (values / (values - 1).clamp(min=1))
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        y = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(input.dtype)

    def _alone(self, input: Tensor) -> Tensor:
        mean, variance, training, momentum = statistics(self)
        return nn.functional.batch_norm(
            input, mean, variance, self.weight, self.bias, training=training, momentum=momentum, eps=self.eps
        )
