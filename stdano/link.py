"""How a BatchNorm hands its work to the neuron behind it, whose kernel then normalises in registers.

Both modules stay where they are in the model: parameters, buffers, ``state_dict()``, optimisers and ``train()`` know of
nothing. The norm's forward passes its input on as it is, and the neuron reads the norm's tensors.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stdano_kernels import bn_neuron

from .recomputation import recomputed

# The dimensions of input that torch's own norms take, with channels in dimension 1.
_DIMENSIONS = ((nn.BatchNorm1d, (2, 3)), (nn.BatchNorm2d, (4,)), (nn.BatchNorm3d, (5,)))


class Link:
    """One norm and one neuron that work as one; made by :func:`stdano.fuse` and :class:`stdano.BatchNormNeuron`.

    It stands as ``forward`` in the norm and as ``_link`` in the neuron. ``copy.deepcopy`` and pickle copy the link with
    the two, so that the copy's neuron reads the copy's norm; a neuron that is copied alone takes a copy of its norm
    along.

    Args:
        norm: BatchNorm1d, 2d, 3d or SyncBatchNorm of torch, or SpikingJelly's.
        time_first: the norm is called with ``[T, B, C, ...]`` whatever its kind says.
    """

    def __init__(self, norm: Any, time_first: bool = False) -> None:
        self.norm = norm
        self.time_first = time_first
        self._called = False
        self._numel = 0
        self._inner = 0  # the number of values behind each channel
        self._mark: tuple[int, int] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The norm's forward: x as it is, after a look at its shape."""
        channels = self.norm.num_features
        dimension = self._channel_dimension(x)
        if x.dim() <= dimension or x.shape[dimension] != channels:
            raise ValueError(
                f"{type(self.norm).__name__} must have {channels} channels in dimension {dimension} of its input, got "
                f"a tensor of shape {list(x.shape)}"
            )
        if not recomputed():
            if self._called and not torch.compiler.is_compiling():
                warnings.warn(
                    f"the neuron that is fused with a {type(self.norm).__name__} did not run after it: whatever took "
                    "the norm's output took it unnormalised. Call unfuse().",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._called = True
        self._numel = x.numel()
        self._inner = math.prod(x.shape[dimension + 1 :])
        self._mark = _mark(x)
        return x

    def _channel_dimension(self, x: Tensor) -> int:
        if self.time_first or getattr(self.norm, "step_mode", "s") == "m":  # SpikingJelly's norms merge T and B
            return 2
        for kind, dimensions in _DIMENSIONS:
            if isinstance(self.norm, kind) and x.dim() not in dimensions:
                return 2
        return 1

    def run(
        self, neuron: str, x: Tensor, state: tuple[Tensor, ...] | None, v_seq: bool, backend: str, settings: dict
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """What the neuron's function gives for the normalised x ``[T, B, ...]``: spikes, state, potentials."""
        norm = self.norm
        without_batch = self._is_without_batch(x)
        if without_batch:
            if any(isinstance(settings[name], Tensor) and settings[name].dim() for name in ("tau", "v_threshold")):
                raise ValueError(
                    f"tau and v_threshold must be one for all channels where the input is [T, C, ...] without a batch, "
                    f"as here: {list(x.shape)}"
                )
            x = x.unsqueeze(1)
            state = None if state is None else tuple(t.unsqueeze(0) for t in state)
        mean, variance, training, momentum = statistics(norm)
        out: Any = bn_neuron(
            neuron,
            x,
            mean,
            variance,
            norm.weight,
            norm.bias,
            training=training,
            momentum=momentum,
            eps=norm.eps,
            process_group=process_group_of(norm),
            backend=backend,
            state=state,
            return_state=True,
            return_v_seq=v_seq,
            **settings,
        )
        spikes, state, potentials = out[0], tuple(out[1]), out[2] if v_seq else None
        if without_batch:
            spikes, state = spikes.squeeze(1), tuple(t.squeeze(0) for t in state)
            potentials = None if potentials is None else potentials.squeeze(1)
        return spikes, state, potentials

    def _is_without_batch(self, x: Tensor) -> bool:
        """Whether the neuron took the norm's [N, C, ...] for [T, C, ...]. Between the two, the tensor was reshaped at
        most, so its channels are where as many values lie behind each as the norm saw."""
        name, channels = type(self.norm).__name__, self.norm.num_features
        if not recomputed():  # checkpointing may begin behind the norm
            if not self._called:
                raise RuntimeError(
                    f"the neuron normalises for a {name} that was not called before it: the model has changed since "
                    "they were fused. Call unfuse() before changing it and fuse() afterwards."
                )
            self._called = False
            mark = _mark(x)
            if mark and self._mark and mark[0] == self._mark[0] and mark[1] != self._mark[1]:
                raise RuntimeError(
                    f"the input of {name} was changed in place before the neuron that normalises it ran; call "
                    "unfuse(), or change it out of place"
                )
            if x.numel() != self._numel:
                raise ValueError(
                    f"x must be the {self._numel} values that went into the {name} in front of the neuron, got a "
                    f"tensor of shape {list(x.shape)}; call unfuse() for such a model"
                )
        for dimension in (2, 1):
            shape = x.shape[dimension:]
            if len(shape) and shape[0] == channels and math.prod(shape[1:]) == self._inner:
                return dimension == 1
        raise ValueError(
            f"x must be [T, B, C, ...] with the {channels} channels of the {name} in front of the neuron and "
            f"{self._inner} values in each, got a tensor of shape {list(x.shape)}; call unfuse() for such a model"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mark": None}


def _mark(x: Tensor) -> tuple[int, int] | None:
    """Memory and version, which views share: whoever changes x in place changes the second."""
    if torch.compiler.is_compiling() or x.is_inference() or x.numel() == 0:
        return None
    return x.data_ptr(), x._version


def link_of(module: nn.Module) -> Link | None:
    """The link of a norm or neuron, if it has one."""
    link = module.__dict__.get("forward") or module.__dict__.get("_link")
    return link if isinstance(link, Link) else None


def statistics(norm: Any) -> tuple[Tensor | None, Tensor | None, bool, float | Tensor]:
    """What a BatchNorm hands to its function in this call: running statistics, whether to take the batch's own, and
    the batch's weight in the running ones. Counts the batch, as ``torch.nn.BatchNorm`` does.

    A call that checkpointing repeats during backward neither counts nor moves anything: it did so the first time.
    """
    mean, variance = norm.running_mean, norm.running_var
    if not norm.training:
        return mean, variance, mean is None and variance is None, 0.0
    if not norm.track_running_stats or recomputed():
        return None, None, True, 0.0
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = norm.num_batches_tracked.to(mean.dtype).reciprocal()  # a number would mean a wait for a GPU
    return mean, variance, True, 0.0 if momentum is None else momentum


def process_group_of(norm: Any) -> dist.ProcessGroup | None:
    """The processes over which a BatchNorm takes statistics in this call. Norms that do so have the attribute."""
    return synchronised(norm.training and hasattr(norm, "process_group"), norm)


def synchronised(wanted: bool, norm: Any) -> dist.ProcessGroup | None:
    """The processes over which to take statistics; None where it is this one alone."""
    if not wanted or not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None
