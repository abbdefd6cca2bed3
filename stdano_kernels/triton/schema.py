"""The schemas of ``torch.ops.stdano_triton``: those of csrc/ops.cpp, which this backend must not need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

NAMESPACE = "stdano_triton"

_SETTINGS = (
    "Tensor? tau, Tensor? v_threshold, Tensor? affine, float tau_value, float v_threshold_value, float? v_reset, "
    "float rate, float tau_min, bool linear_decay, bool decay_input, int surrogate, float alpha, bool soft_spike, "
    "bool detach_reset, bool detach_adapt"
)
_FORWARD = (
    f"(Tensor x, Tensor? v, Tensor? adapt, {_SETTINGS}, bool save_checkpoints, bool return_state, bool return_v_seq)"
    " -> (Tensor spikes, Tensor v, Tensor adapt, Tensor v_seq, Tensor checkpoints)"
)
_BACKWARD = (
    "(Tensor grad_spikes, Tensor? grad_v, Tensor? grad_adapt, Tensor? grad_v_seq, Tensor x, Tensor? v, "
    f"Tensor? adapt, Tensor checkpoints, {_SETTINGS})"
    " -> (Tensor grad_x, Tensor grad_v, Tensor grad_adapt, Tensor grad_tau, Tensor grad_v_threshold, "
    "Tensor affine_sums)"
)
_SUPER_SETTINGS = (
    "int neurons, float tau, float v_threshold, float? v_reset, float? slif_v_reset, float gamma, float beta, "
    "float tau_min, bool linear_decay, bool decay_input, int surrogate, float alpha, bool detach_reset, "
    "bool detach_adapt"
)
_CHANNEL_OPERATORS = {
    "super_neuron_encode": f"(Tensor x, {_SUPER_SETTINGS}) -> (Tensor codes, Tensor counts)",
    "super_neuron_decode": "(Tensor codes, Tensor table, Tensor like) -> Tensor",
    "super_neuron_sums": "(Tensor codes, Tensor grad) -> Tensor",
    "super_neuron_backward": f"(Tensor grad, Tensor x, Tensor codes, Tensor table, {_SUPER_SETTINGS}) -> Tensor",
    "channel_sums": "(Tensor x) -> Tensor",
    "channel_affine": "(Tensor grad, Tensor x, Tensor table) -> Tensor",
    "channel_affine_": "(Tensor(a!) grad, Tensor x, Tensor table) -> ()",
}


def define(forward: Callable, backward: Callable, channel_operators: Mapping[str, Callable]) -> torch.library.Library:
    """The operators, implemented for CUDA tensors (ROCm's are torch's CUDA tensors too); forward and backward, those of
    all neurons, take the neuron's name first."""
    library = torch.library.Library(NAMESPACE, "DEF")
    for neuron in ("lif", "llif", "slif"):
        for name, schema, function in (("forward", _FORWARD, forward), ("backward", _BACKWARD, backward)):
            library.define(f"{neuron}_{name}{schema}")
            library.impl(f"{neuron}_{name}", partial(function, neuron), "CUDA")
    for name, schema in _CHANNEL_OPERATORS.items():
        library.define(f"{name}{schema}")
        library.impl(name, channel_operators[name], "CUDA")
    return library
