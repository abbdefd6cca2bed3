"""BatchNorm over several processes."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from stdano_kernels.synchronised import synchronised_batch_norm

from .link import process_group_of, statistics


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose statistics, in training, are those of all processes, on the CPU as well as on GPUs.

    With one process, or without ``torch.distributed``, and in eval mode it is ``nn.BatchNorm2d``; its ``state_dict()``
    always is. Processes may hold parts of different size. :func:`stdano.fuse` takes it. (torch's ``SyncBatchNorm``
    takes no CPU tensors, and ``DistributedDataParallel`` refuses it on the CPU even where it is fused.)

    Args:
        num_features: C.
        process_group: the processes; default all.
        settings: ``eps``, ``momentum``, ``affine``, ``track_running_stats`` as for ``nn.BatchNorm2d``.

    Forward takes ``[N, C, H, W]``; in training every process must call it, and run its backward.
    """

    def __init__(self, num_features: int, *, process_group: dist.ProcessGroup | None = None, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.process_group = process_group

    def forward(self, input: Tensor) -> Tensor:
        group = process_group_of(self)
        if group is None:
            return super().forward(input)
        self._check_input_dim(input)
        mean, variance, _, momentum = statistics(self)
        return synchronised_batch_norm(
            input, mean, variance, self.weight, self.bias, momentum=momentum, eps=self.eps, process_group=group
        )
