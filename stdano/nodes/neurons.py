"""Spiking neurons as modules, to drop in where SpikingJelly's were."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels.settings import number

from .base import BaseNode


class LIFNode(BaseNode):
    """Leaky integrate-and-fire neuron (eqs. 1 to 3 of the paper); see :class:`BaseNode` and
    :func:`stdano_kernels.lif`. With ``decay="linear"`` it equals SpikingJelly's LIFNode of the same arguments."""

    neuron = "lif"

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        decay_input: bool = False,
        v_threshold: float | Tensor = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: object = "triangle",
        detach_reset: bool = False,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        decay: str = "exp",
        alpha: float | None = None,
        spike: str = "hard",
    ) -> None:
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            backend,
            store_v_seq,
            decay=decay,
            alpha=alpha,
            spike=spike,
        )
        self._check_settings()


class LLIFNode(BaseNode):
    """Long-LIF: inhibitory input raises the threshold (eqs. 6, 7); see :class:`BaseNode` and
    :func:`stdano_kernels.llif`.

    Args:
        gamma: how much inhibitory input raises the threshold.
        detach_adapt: the threshold's adaptation counts as a constant in the backward pass.
    """

    neuron = "llif"

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        decay_input: bool = False,
        v_threshold: float | Tensor = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: object = "triangle",
        detach_reset: bool = False,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        decay: str = "exp",
        alpha: float | None = None,
        spike: str = "hard",
        gamma: float = 0.1,
        detach_adapt: bool = False,
    ) -> None:
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            backend,
            store_v_seq,
            decay=decay,
            alpha=alpha,
            spike=spike,
        )
        self.gamma = gamma
        self.detach_adapt = detach_adapt
        self._check_settings()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "gamma": self.gamma, "detach_adapt": self.detach_adapt}

    def _resting_adaptation(self, v: Tensor) -> tuple[Tensor, ...]:
        threshold = self.v_threshold
        if isinstance(threshold, Tensor) and threshold.dim():
            threshold = threshold.reshape(-1, *[1] * (v.dim() - 2))
        return (torch.zeros_like(v) + threshold,)

    @property
    def theta(self) -> Tensor | float:
        """The threshold of the next step, ``[B, ...]``; ``v_threshold`` before the first."""
        state = self._holder()._state
        return self.v_threshold if state is None else state[1]


class SLIFNode(BaseNode):
    """Short-LIF: a spike's residual potential shortens the next time constant (eqs. 8, 9); soft reset by default.
    See :class:`BaseNode` and :func:`stdano_kernels.slif`.

    Args:
        beta: how much the residual potential shortens the time constant.
        tau_min: lower bound of the time constant, in time steps.
        detach_adapt: the residual potential counts as a constant in the backward pass.
    """

    neuron = "slif"

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        decay_input: bool = False,
        v_threshold: float | Tensor = 1.0,
        v_reset: float | None = None,
        surrogate_function: object = "triangle",
        detach_reset: bool = False,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        decay: str = "exp",
        alpha: float | None = None,
        spike: str = "hard",
        beta: float = 0.1,
        tau_min: float = 1.05,
        detach_adapt: bool = False,
    ) -> None:
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            backend,
            store_v_seq,
            decay=decay,
            alpha=alpha,
            spike=spike,
        )
        self.beta = beta
        self.tau_min = tau_min
        self.detach_adapt = detach_adapt
        self._check_settings()

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            "beta": self.beta,
            "tau_min": self.tau_min,
            "detach_adapt": self.detach_adapt,
        }

    def _resting_adaptation(self, v: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(v),)

    @property
    def p(self) -> Tensor | float:
        """The residual potential of the last step, ``[B, ...]``; 0 before the first."""
        state = self._holder()._state
        return 0.0 if state is None else state[1]


class LearnedTau(BaseNode):
    """A neuron that learns its time constant as SpikingJelly's ParametricLIFNode does: ``1/tau = sigmoid(w)``, so that
    tau stays above 1. The parameter is ``w``, also in ``state_dict()``; ``tau`` is computed from it in each call.

    Args:
        init_tau: tau to begin with, above 1.
        arguments, settings: the other arguments of the neuron, in its order.
    """

    w: nn.Parameter

    def __init__(self, init_tau: float = 2.0, *arguments: Any, **settings: Any) -> None:
        super().__init__(number("init_tau", init_tau, above=1.0), *arguments, **settings)

    @property
    def tau(self) -> float | Tensor:
        """The time constant, ``[]``; set it by a number above 1."""
        # 1/sigmoid(w), kept from being rounded to 1 or infinity.
        limit = -math.log(torch.finfo(self.w.dtype).eps)
        return 1 + torch.exp(-self.w.clamp(-limit, limit))

    @tau.setter
    def tau(self, value: float | Tensor) -> None:
        w = torch.tensor(-math.log(number("tau", value, above=1.0) - 1.0))
        if "w" in self._parameters:
            with torch.no_grad():
                self.w.copy_(w)
        else:
            self.w = nn.Parameter(w)


class ParametricLIFNode(LearnedTau, LIFNode):
    """:class:`LIFNode` with a learned time constant, ``ParametricLIFNode(init_tau=2.0, ...)``; its further arguments
    are LIFNode's. With ``decay="linear"`` it equals SpikingJelly's of the same arguments and loads its checkpoints.
    See :class:`LearnedTau`."""


class ParametricLLIFNode(LearnedTau, LLIFNode):
    """:class:`LLIFNode` with a learned time constant; see :class:`LearnedTau`."""


class ParametricSLIFNode(LearnedTau, SLIFNode):
    """:class:`SLIFNode` with a learned time constant; see :class:`LearnedTau`."""


NEURONS: dict[str, type[BaseNode]] = {"LIF": LIFNode, "LLIF": LLIFNode, "SLIF": SLIFNode}
PARAMETRIC: dict[str, type[LearnedTau]] = {
    "LIF": ParametricLIFNode,
    "LLIF": ParametricLLIFNode,
    "SLIF": ParametricSLIFNode,
}
OWN = {*NEURONS.values(), *PARAMETRIC.values()}


def reset_net(model: nn.Module) -> None:
    """Calls ``reset()`` on every layer of a model that carries a neuron's state from call to call: stdano's neurons,
    and what SpikingJelly's own ``reset_net`` is for. Nothing else is reset, metrics and the model itself included."""
    module: Any
    for module in model.modules():
        if isinstance(module, BaseNode) or is_spikingjellys(module, "MemoryModule", *SPIKINGJELLY_NEURONS):
            reset: Any = module.reset
            reset()


SPIKINGJELLY_NEURONS = ("BaseNode", "SimpleBaseNode")


def is_spikingjellys(module: Any, *names: str) -> bool:
    """Whether a module's class is one of SpikingJelly's of these names, or made from one; in any of its versions, and
    without importing it."""
    return any(base.__name__ in names and base.__module__.startswith("spikingjelly.") for base in type(module).__mro__)
