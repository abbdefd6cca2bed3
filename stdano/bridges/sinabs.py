"""From sinabs: its LIF and IAF on stdano's kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from .foreign import floating, is_plain, is_sinabs, refuse, replace_layers

if TYPE_CHECKING:
    from .sinabs_neurons import SinabsNode

MOST_SPIKES = 16
_KINDS = ("LIF", "IAF", "LIFSqueeze", "IAFSqueeze")


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
    from .sinabs_neurons import SinabsLIFNode, SinabsSynapticLIFNode

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
