"""From snnTorch: its Leaky on stdano's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stdano_kernels import Constant, Neuron, Option, State
from stdano_kernels.define import maximum, minimum, spike, where
from stdano_kernels.settings import choice

from ..nodes.base import BaseNode
from .foreign import as_constant, floating, is_plain, is_snntorchs, refuse, replace_layers, require_same_places
from .rounding import SMALLEST, rounded

_MECHANISMS = ("subtract", "zero", "none")  # in the order of snnTorch's reset_mechanism_val


class Leaky(Neuron):
    """snnTorch's Leaky, in its arithmetic. With ``late[t] = 1 if v[t-1] > v_threshold else 0`` and the default reset::

        h[t] = beta*v[t-1] + x[t] - late[t]*v_threshold;   s[t] = 1 if h[t] > v_threshold else 0;   v[t] = h[t]

    The reset comes a step after its spike, and a potential that equals the threshold does not spike. With
    ``reset_mechanism="zero"`` a late v[t-1] counts as 0 instead; with ``reset_delay=False`` v[t] is reset at once, and
    what a late reset has taken is given back.
    """

    v = State(0.0)
    beta = Constant(0.9, doc="what is left of the potential after a step, limited to 0 and 1")
    reset_mechanism = Option(*_MECHANISMS, doc="the threshold less, to 0, or no reset")
    reset_delay = Option(True, doc="the reset comes a step after its spike")

    def step(n, x, v):  # type: ignore[no-untyped-def]
        theta = n.v_threshold
        late = v > theta
        if n.reset_mechanism == "zero":
            v = where(late, 0.0, v)
        beta = minimum(1.0, maximum(0.0, n.beta))  # no gradient at the ends, as torch.clamp from 2.14 on
        h = rounded(beta * v) + x
        if n.reset_mechanism == "subtract":
            h = h - where(late, theta, 0.0)
        s = spike(h - theta - SMALLEST)  # only an exact 0 becomes negative by it
        if n.reset_delay or n.reset_mechanism == "none":
            return s, h
        taken = theta if n.reset_mechanism == "subtract" else h
        return s, h - (s * taken - where(late, taken, 0.0))


class StraightThroughLeaky(Leaky):
    """:class:`Leaky` whose spikes hand gradients on as they are, snnTorch's straight_through_estimator."""

    def surrogate(n, u):  # type: ignore[no-untyped-def]
        return u, 1.0


class LeakyNode(BaseNode):
    """What :func:`stdano.from_snntorch` puts in. ``returns_v`` says whether a call gives the potentials as well."""

    neuron = Leaky
    returns_v: bool = False

    def forward(  # type: ignore[override]
        self, x: Tensor, mem: Tensor | None = None, return_sequences: Sequence[str] = ()
    ) -> Any:
        """Spikes of ``x``, with ``returns_v`` a pair of spikes and potentials, each like ``x``.

        Args:
            x: ``[T, B, ...]`` (``step_mode="m"``) or ``[B, ...]`` (``"s"``).
            mem: the potential to go on from, ``[B, ...]``, with ``step_mode="s"`` and ``returns_v`` alone; None: where
                the last call ended. One without elements, as ``reset_mem()`` gives it, begins a new sequence.
            return_sequences: names of states; the return value is then that of :class:`stdano.BaseNode`.

        Raises:
            ValueError: x or mem is that of a loop over time steps, and the layer takes whole sequences.
        """
        single = self.step_mode == "s"
        given = mem is not None and mem.numel() > 0
        if not single and (given or x.dim() < 3):
            what = f"a potential of shape {list(mem.shape)}" if given and mem is not None else f"x {list(x.shape)}"
            raise ValueError(
                f"{type(self).__name__} takes whole sequences [T, B, ...] and keeps the potential itself, got {what}. "
                'For a model that loops over time steps, convert with from_snntorch(model, step_mode="s")'
            )
        if given and not self.returns_v:
            raise ValueError(
                "mem must not be given to a layer that had init_hidden=True and keeps the potential itself"
            )
        if given and mem is not None and mem.shape != x.shape:
            raise ValueError(f"mem must have the shape of x, {list(x.shape)}, got {list(mem.shape)}")
        for name in ("beta", "v_threshold"):
            require_same_places(self, name, getattr(self, name), x, 1 if single else 2)
        if given:
            self.v = mem
        elif mem is not None:
            self.reset()
        if return_sequences or not self.returns_v:
            return super().forward(x, return_sequences)
        if single:
            return super().forward(x), self.v  # the state itself, which half precision does not round
        spikes, (v,) = super().forward(x, ("v",))
        return spikes, v

    def reset_mem(self) -> Tensor:
        """Begins a new sequence, as snnTorch's does; returns a potential for the next call."""
        self.reset()
        return torch.zeros(0)

    init_leaky = reset_mem

    def _settings(self) -> dict[str, Any]:
        return {name: as_constant(value) for name, value in super()._settings().items()}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local: dict[str, Any],
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        """Takes a checkpoint of snnTorch's layer as well."""
        if f"{prefix}threshold" in state_dict:
            state_dict[f"{prefix}v_threshold"] = state_dict.pop(f"{prefix}threshold")
        factor = state_dict.pop(f"{prefix}graded_spikes_factor", None)
        if factor is not None and not bool((factor == 1).all()):
            errors.append(f"{prefix}graded_spikes_factor must be 1, got {factor}")
        mechanism = state_dict.pop(f"{prefix}reset_mechanism_val", None)
        if mechanism is not None and _MECHANISMS[int(mechanism)] != self.reset_mechanism:
            errors.append(
                f"{prefix}reset_mechanism_val is {_MECHANISMS[int(mechanism)]!r}, but the layer's reset_mechanism is "
                f"{self.reset_mechanism!r}"
            )
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, unexpected, errors)


class StraightThroughLeakyNode(LeakyNode):
    """:class:`LeakyNode` with snnTorch's straight_through_estimator."""

    neuron = StraightThroughLeaky


def from_snntorch(model: nn.Module, *, step_mode: str = "m") -> nn.Module:
    """Replaces snnTorch's ``Leaky`` layers by neurons that do the same on stdano's kernels, in place.

    Spikes and potentials are the same in all bits, the reset that comes a step late and the strict threshold included;
    gradients are the same but for the order of sums. Learned ``beta`` and ``threshold`` stay the same parameters
    (``beta`` and ``v_threshold`` in ``state_dict()``); checkpoints of the snnTorch model load into the converted one.
    Hooks move to the new layers. Reset by ``stdano.reset_net(model)`` or, as before, by ``layer.reset_mem()``.

    Args:
        model: with snnTorch's Leaky (1.0), in whatever containers; other layers stay as they are.
        step_mode: ``"m"``: a layer takes a whole sequence ``[T, B, ...]`` at once and returns what the loop over time
            would have stacked: spikes (layers with ``init_hidden``, without ``output``) or spikes and potentials, these
            in the dtype of the input. Take the loop out of ``forward``; convolutions and norms need T and B merged. A
            layer that a step uses twice, each time with another ``mem``, must become two layers.
            ``"s"``: called step by step as before, ``spk, mem = layer(x, mem)``: the model's forward stays as it is.

    Returns:
        The model; the new layer if the model is itself one.

    Raises:
        ValueError: there is no layer of snnTorch, or one without counterpart, which is named with the difference.
            Nothing has changed then.
    """
    choice("step_mode", step_mode, ("m", "s"))
    return replace_layers(model, "snnTorch", is_snntorchs, lambda name, layer: _counterpart(name, layer, step_mode))


def _counterpart(name: str, layer: Any, step_mode: str) -> LeakyNode:
    if not is_plain(layer, "snntorch", ("Leaky",)):
        refuse(name, layer, "of snnTorch's neurons Leaky alone, not a subclass or another forward, has a counterpart")
    if layer.inhibition:
        refuse(
            name, layer, "inhibition=True lets one neuron silence the others; stdano's neurons do not see each other"
        )
    if layer.state_quant:
        refuse(name, layer, "state_quant rounds the potential, for which stdano has no quantiser")
    factor = layer.graded_spikes_factor
    if isinstance(factor, nn.Parameter) or not bool((factor == 1).all()):
        refuse(name, layer, "graded spikes are other numbers than 0 and 1; multiply by the factor behind the layer")
    if layer.reset_mechanism != _MECHANISMS[int(layer.reset_mechanism_val)]:
        refuse(name, layer, "reset_mechanism and the loaded reset_mechanism_val differ")
    for constant in ("beta", "threshold"):
        shape = getattr(layer, constant).shape
        if len(shape) > 1 and not any(shape.numel() == size for size in (1, shape[0])):
            refuse(name, layer, f"{constant} must have the shape [], [N] or [C, 1, 1], got {list(shape)}")
    kind, surrogate = _surrogate(name, layer)
    new = kind(
        beta=floating(layer.beta),
        v_threshold=floating(layer.threshold),
        reset_mechanism=layer.reset_mechanism,
        reset_delay=layer.reset_delay,
        step_mode=step_mode,
        **surrogate,
    )
    new.returns_v = bool(layer.output or not layer.init_hidden)
    return new


def _surrogate(name: str, layer: Any) -> tuple[type[LeakyNode], dict[str, Any]]:
    """The class of the new layer, and its arguments for a surrogate."""
    function = layer.spike_grad
    if layer.surrogate_disable:
        refuse(name, layer, "surrogate_disable=True has no gradient; every neuron of stdano has one")
    known = getattr(function, "__module__", "") == "snntorch.surrogate" and hasattr(function, "__code__")
    kind = function.__qualname__.partition(".")[0] if known else repr(function)
    held = [cell.cell_contents for cell in function.__closure__ or ()] if known else []
    values = dict(zip(function.__code__.co_freevars, held, strict=True)) if known else {}
    if kind == "straight_through_estimator":
        return StraightThroughLeakyNode, {}
    if kind not in ("atan", "fast_sigmoid", "sigmoid"):
        refuse(
            name,
            layer,
            f"spike_grad must be atan, fast_sigmoid, sigmoid or straight_through_estimator of snntorch.surrogate, got "
            f"{kind}",
        )
    return LeakyNode, {"surrogate_function": kind, "alpha": float(values["alpha" if kind == "atan" else "slope"])}
