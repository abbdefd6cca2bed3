"""Spiking-neuron modules around the functions of stdano_kernels. (A first version: state carrying follows.)"""

from __future__ import annotations

from typing import Any

import stdano_kernels
from torch import Tensor, nn


class _Node(nn.Module):
    kernel = "lif"

    def __init__(self, tau: float = 2.0, decay_input: bool = False, v_threshold: float = 1.0, **settings: Any) -> None:
        super().__init__()
        self.settings = dict(tau=tau, decay_input=decay_input, v_threshold=v_threshold, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(stdano_kernels, self.kernel)(x, **self.settings)

    def reset(self) -> None:
        pass


class LIFNode(_Node):
    kernel = "lif"


class LLIFNode(_Node):
    kernel = "llif"


class SLIFNode(_Node):
    kernel = "slif"
