"""sinabs' LIF and IAF as declarations and modules. They are declared when the first layer is converted, not by ``import
stdano``: with up to 16 spikes a step that takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Constant, Neuron, Option, State
from stdano_kernels.define import detach, exp, relu, spike, where

from ..nodes.base import BaseNode
from .foreign import as_constant, require_same_places
from .rounding import rounded
from .sinabs import MOST_SPIKES


class SinabsLIF(Neuron):
    """sinabs' LIF and IAF, in their arithmetic::

        h[t] = alpha_mem*v[t-1] + c*x[t];   s[t] = 1 if h[t] >= v_threshold else 0
        v[t] = max(h[t] - s[t]*v_threshold, min_v_mem)

    with ``c = 1 - alpha_mem``, or 1 without ``norm_input``. With ``most_spikes`` above 1, a step gives as many spikes
    as the potential holds thresholds, up to that number.

    As in sinabs, the threshold gets no gradient from the spike, and a reset to a potential none either: a comparison
    with finite differences (``stdano_kernels.check``) shows that.
    """

    v = State(0.0)
    alpha_mem = Constant(0.9, doc="what is left of the potential after a step")
    min_v_mem = Constant(-1.0, doc="the lowest potential, with ``bounded``")
    reset_to = Constant(0.0, doc='potential after a spike (``reset="to"``), or what a spike takes (``"less"``)')
    grad_width = Constant(0.5, above=0.0, doc="of the surrogate, in thresholds")
    grad_scale = Constant(1.0, doc="of the surrogate")
    norm_input = Option(True, doc="multiplies the input by 1 - alpha_mem")
    bounded = Option(False, doc="the potential has a lowest value")
    reset_mode = Option("threshold", "less", "to", doc="what a spike does to the potential")
    most_spikes = Option("1", *map(str, range(2, MOST_SPIKES + 1)), doc="in a step")

    def surrogate(n, u):  # type: ignore[no-untyped-def]
        """SingleExponential, around the first threshold alone: what the levels of further spikes add cancels."""
        if n.most_spikes == "1":
            return _exponential(u, detach(n.grad_width * n.v_threshold), n.grad_scale)
        value, slope = _exponential(u, n.grad_width, n.grad_scale)
        next_value, next_slope = _exponential(u - 1.0, n.grad_width, n.grad_scale)
        return value - next_value, slope - next_slope

    def step(n, x, v):  # type: ignore[no-untyped-def]
        return _fired(n, x, v)


class SinabsSynapticLIF(SinabsLIF):
    """:class:`SinabsLIF` whose input charges a current, ``i[t] = alpha_syn*(i[t-1] + x[t])``, which charges ``v``."""

    v = State(0.0)
    i = State(0.0)
    alpha_syn = Constant(0.9, doc="what is left of the current after a step")

    def step(n, x, v, i):  # type: ignore[no-untyped-def]
        i = rounded(n.alpha_syn * (i + x))
        return *_fired(n, i, v), i


def _fired(n: Any, current: Any, v: Any) -> tuple[Any, Any]:
    """The spike and the potential after it."""
    theta = n.v_threshold
    h = rounded(n.alpha_mem * v) + (rounded((1.0 - n.alpha_mem) * current) if n.norm_input else current)
    most = int(n.most_spikes)
    s = spike(h - detach(theta) if most == 1 else h / detach(theta) - 1.0, levels=most)
    if n.reset_mode == "to":
        h = where(detach(s), 0.0, h) + n.reset_to
    else:
        taken = s * (theta if n.reset_mode == "threshold" else n.reset_to)
        h = h - (taken if most == 1 else rounded(taken))
    return s, relu(h - n.min_v_mem) + n.min_v_mem if n.bounded else h


def _exponential(u: Any, width: Any, scale: Any) -> tuple[Any, Any]:
    e = scale * exp(-abs(u) / width)
    return where(u < 0, e, 2.0 * scale - e), e / width


class SinabsNode(BaseNode):
    """Base of what :func:`stdano.from_sinabs` puts in. ``tau_mem``, and where there is a current ``tau_syn``, are
    sinabs' parameters, from which each call computes the decay; None where the decay is learned itself."""

    squeezed: tuple[int, int] | None = None
    tau_mem: nn.Parameter | None
    tau_syn: nn.Parameter | None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register_parameter("tau_mem", None)
        self.register_parameter("tau_syn", None)

    def forward(self, x: Tensor, return_sequences: Sequence[str] = ()) -> Any:
        """Spikes of a sequence ``[T, B, ...]``; in the place of a layer of sinabs whose name ends in Squeeze, of
        ``[B*T, ...]`` in the order of that layer, all steps of a sample behind each other."""
        for name in ("v_threshold", "min_v_mem", "reset_to", "tau_mem", "tau_syn", "alpha_mem", "alpha_syn"):
            require_same_places(self, name, getattr(self, name, None), x, 2 if self.squeezed is None else 1)
        if self.squeezed is None:
            return super().forward(x, return_sequences)
        if return_sequences:
            raise ValueError("return_sequences must be empty for a layer that takes [B*T, ...]")
        out = super().forward(x.reshape(*self.squeezed, *x.shape[1:]).transpose(0, 1))
        return out.transpose(0, 1).flatten(0, 1)

    def _settings(self) -> dict[str, Any]:
        values = super()._settings()
        for of in ("mem", "syn"):
            tau = self._parameters.get(f"tau_{of}")
            if tau is not None:
                values[f"alpha_{of}"] = torch.exp(-1.0 / tau)
        return {name: as_constant(value) for name, value in values.items()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Takes a checkpoint of sinabs' layer as well, without the state in it."""
        if f"{prefix}spike_threshold" in state_dict:
            state_dict[f"{prefix}v_threshold"] = state_dict.pop(f"{prefix}spike_threshold")
        for name in ("v_mem", "i_syn"):
            state_dict.pop(f"{prefix}{name}", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class SinabsLIFNode(SinabsNode):
    """In the place of sinabs' LIF or IAF."""

    neuron = SinabsLIF


class SinabsSynapticLIFNode(SinabsNode):
    """In the place of sinabs' LIF or IAF with a ``tau_syn``."""

    neuron = SinabsSynapticLIF
