"""The schemas of ``torch.ops.stdano_triton``: those of csrc/ops.cpp, which this backend must not need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

NAMESPACE = "stdano_triton"

_SETTINGS = (
    "Tensor? tau, Tensor? v_threshold, float tau_value, float v_threshold_value, float? v_reset, float rate, "
    "float tau_min, bool linear_decay, bool decay_input, int surrogate, float alpha, bool soft_spike, "
    "bool detach_reset, bool detach_adapt"
)
_FORWARD = (
    f"(Tensor x, Tensor? v, Tensor? adapt, {_SETTINGS}, bool save_checkpoints, bool return_state, bool return_v_seq)"
    " -> (Tensor spikes, Tensor v, Tensor adapt, Tensor v_seq, Tensor checkpoints)"
)
_BACKWARD = (
    "(Tensor grad_spikes, Tensor? grad_v, Tensor? grad_adapt, Tensor? grad_v_seq, Tensor x, Tensor? v, "
    f"Tensor? adapt, Tensor checkpoints, {_SETTINGS})"
    " -> (Tensor grad_x, Tensor grad_v, Tensor grad_adapt, Tensor grad_tau, Tensor grad_v_threshold)"
)


def define(forward: Callable, backward: Callable) -> torch.library.Library:
    """The operators of all neurons, implemented for CUDA tensors (ROCm's are torch's CUDA tensors too) by functions
    that take the neuron's name first."""
    library = torch.library.Library(NAMESPACE, "DEF")
    for neuron in ("lif", "llif", "slif"):
        for name, schema, function in (("forward", _FORWARD, forward), ("backward", _BACKWARD, backward)):
            library.define(f"{neuron}_{name}{schema}")
            library.impl(f"{neuron}_{name}", partial(function, neuron), "CUDA")
    return library
