"""From sinabs: its LIF and IAF on stdano's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Constant, Neuron, Option, State
from stdano_kernels.define import detach, exp, relu, spike, where

from ..nodes.base import BaseNode
from .foreign import as_constant, floating, is_plain, is_sinabs, refuse, replace_layers, require_same_places
from .rounding import rounded

MOST_SPIKES = 16
_KINDS = ("LIF", "IAF", "LIFSqueeze", "IAFSqueeze")


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


def from_sinabs(model: nn.Module, *, max_spikes: int | None = None) -> nn.Module:
    """Replaces sinabs' ``LIF``, ``IAF``, ``LIFSqueeze`` and ``IAFSqueeze`` layers by neurons that do the same on
    stdano's kernels, in place.

    Spikes and potentials are the same in all bits; gradients are the same but for the order of sums. The order of axes
    changes: a new layer takes ``[T, B, ...]``, where sinabs' takes ``[B, T, ...]``. In the place of a Squeeze layer it
    takes ``[B*T, ...]`` as before, so that a model of such layers is called as before. Parameters stay the same
    (``tau_mem`` or ``alpha_mem``, ``tau_syn`` or ``alpha_syn``, ``min_v_mem``; ``spike_threshold`` becomes
    ``v_threshold`` in ``state_dict()``); checkpoints of the sinabs model load into the converted one. Hooks move to the
    new layers; the potential that a layer holds does not. Reset by ``stdano.reset_net(model)``.

    Args:
        model: with layers of sinabs (2.0 to 3.1), in whatever containers; other layers stay as they are.
        max_spikes: for layers with ``MultiSpike``, sinabs' default, which gives as many spikes in a step as the
            potential holds thresholds: at most so many, 1 to 16. As long as no potential reaches one threshold more,
            spikes are sinabs' in all bits; gradients are off by less than 1e-5 (with ``grad_width=0.5``) up to six
            thresholds below. The kernel of 16 takes 20 s to compile, once. None: such layers are refused.

    Returns:
        The model; the new layer if the model is itself one.

    Raises:
        ValueError: there is no layer of sinabs, or one without counterpart, which is named with the difference.
            Nothing has changed then.
    """
    if max_spikes is not None and (type(max_spikes) is not int or not 1 <= max_spikes <= MOST_SPIKES):
        raise ValueError(f"max_spikes must be None or an integer from 1 to {MOST_SPIKES}, got {max_spikes!r}")
    return replace_layers(
        model,
        "sinabs",
        is_sinabs,
        lambda name, layer: _counterpart(name, layer, max_spikes),
    )


def _counterpart(name: str, layer: Any, max_spikes: int | None) -> SinabsNode:
    if not is_plain(layer, "sinabs", _KINDS):
        refuse(name, layer, f"of sinabs' layers {', '.join(_KINDS)} alone, not a subclass, have a counterpart")
    if layer.record_states:
        refuse(name, layer, "record_states=True fills layer.recordings; ask the new layer for return_sequences instead")
    has_current = "i_syn" in layer._buffers
    settings: dict[str, Any] = {
        "v_threshold": floating(layer.spike_threshold),
        "norm_input": bool(layer.norm_input),
        "most_spikes": str(_most_spikes(name, layer, max_spikes)),
        **_reset(name, layer),
        **_surrogate(name, layer),
    }
    if layer.min_v_mem is not None:
        settings |= {"bounded": True, "min_v_mem": floating(layer.min_v_mem)}
    taus = {}
    for of in ("mem", "syn") if has_current else ("mem",):
        tau = getattr(layer, f"tau_{of}", None)
        if layer.train_alphas:
            settings[f"alpha_{of}"] = getattr(layer, f"alpha_{of}")
        elif tau is not None:
            taus[f"tau_{of}"] = tau
        elif of == "mem":  # IAF
            settings["alpha_mem"] = 1.0
    new = (SinabsSynapticLIFNode if has_current else SinabsLIFNode)(**settings)
    for parameter, tau in taus.items():
        setattr(new, parameter, tau)
    if type(layer).__name__.endswith("Squeeze"):
        new.squeezed = (layer.batch_size, layer.num_timesteps)
    return new


def _most_spikes(name: str, layer: Any, max_spikes: int | None) -> int:
    kind = getattr(layer.spike_fn, "__name__", type(layer.spike_fn).__name__)
    if kind == "SingleSpike":
        return 1
    if kind != "MultiSpike":
        refuse(name, layer, f"spike_fn must be SingleSpike or MultiSpike, got {kind}")
    if max_spikes is None:
        refuse(
            name,
            layer,
            "its spike_fn is MultiSpike, which gives any number of spikes in a step; give max_spikes, up to "
            f"{MOST_SPIKES}, or use SingleSpike",
        )
    if bool((layer.spike_threshold <= 0).any()):
        refuse(name, layer, "spike_threshold must be above 0 for several spikes in a step")
    return max_spikes


def _reset(name: str, layer: Any) -> dict[str, Any]:
    kind = type(layer.reset_fn).__name__
    if kind == "MembraneReset":
        return {"reset_mode": "to", "reset_to": float(layer.reset_fn.reset_value)}
    if kind != "MembraneSubtract":
        refuse(name, layer, f"reset_fn must be MembraneSubtract or MembraneReset, got {kind}")
    value = layer.reset_fn.subtract_value
    return {} if value is None else {"reset_mode": "less", "reset_to": floating(value)}


def _surrogate(name: str, layer: Any) -> dict[str, Any]:
    function = layer.surrogate_grad_fn
    if type(function).__name__ != "SingleExponential":
        refuse(name, layer, f"surrogate_grad_fn must be SingleExponential, got {type(function).__name__}")
    return {"grad_width": float(function.grad_width), "grad_scale": float(function.grad_scale)}
