"""How a BatchNorm hands its work to the neuron behind it, whose kernel then normalises in registers.

Both modules stay where they are in the model: parameters, buffers, ``state_dict()``, optimisers and ``train()`` know of
nothing. The norm's forward passes its input on as it is, and the neuron reads the norm's tensors. A call in which
somebody could notice is computed apart, the norm and then the neuron, as if the two were not fused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from stdano_kernels import Neuron, bn_neuron, function
from stdano_kernels.synchronised import synchronised_batch_norm

from .recomputation import State, recomputed

Result = tuple[Tensor, State, Sequence[Tensor]]

# The dimensions of input that torch's own norms take, with channels in dimension 1.
_DIMENSIONS = ((nn.BatchNorm1d, (2, 3)), (nn.BatchNorm2d, (4,)), (nn.BatchNorm3d, (5,)))


class Link:
    """One norm and one neuron that work as one; made by :func:`stdano.fuse` and :class:`stdano.BatchNormNeuron`.

    Its :meth:`pass_on` stands as ``forward`` in the norm, and it as ``_link`` in the neuron. ``copy.deepcopy`` and
    pickle copy the link with the two, so that the copy's neuron reads the copy's norm; one that is copied alone takes
    a copy of the other along.

    Args:
        norm: BatchNorm1d, 2d, 3d or SyncBatchNorm of torch, or SpikingJelly's.
        neuron: the :class:`stdano.BaseNode` behind it.
        time_first: the norm is called with ``[T, B, C, ...]`` whatever its kind says.
    """

    def __init__(self, norm: Any, neuron: Any, time_first: bool = False) -> None:
        self.norm = norm
        self.neuron = neuron
        self.time_first = time_first
        self._called = False  # the norm was, and the neuron not since
        self._excused = False  # the neuron has been reset meanwhile
        self._apart = False  # the norm has normalised in its last call
        self._numel = 0
        self._inner = 0  # the number of values behind each channel
        self._mark: tuple[int, int] | None = None

    # A bound method as the norm's forward, not a callable object: torch.compile guards on the latter's identity, which
    # would compile every block of a model anew.
    def pass_on(self, input: Tensor) -> Tensor:
        """The norm's forward: its input as it is, or, where the two must work apart, normalised."""
        norm = self.norm
        if self.neuron._link is not self:  # taken apart, but still called by whatever was put around it
            return type(norm).forward(norm, input)
        channels, dimension = norm.num_features, channel_dimension(norm, input.dim(), self.time_first)
        if input.dim() <= dimension or input.shape[dimension] != channels:
            raise ValueError(
                f"{type(norm).__name__} must have {channels} channels in dimension {dimension} of its input, got "
                f"a tensor of shape {list(input.shape)}"
            )
        if not recomputed():
            if self._called and not self._excused and not torch.compiler.is_compiling():
                warnings.warn(
                    f"the neuron that is fused with a {type(norm).__name__} did not run after it: whatever took "
                    "the norm's output took it unnormalised. Call unfuse().",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._called, self._excused = True, False
        self._apart = self._must_be_apart(input)
        if self._apart:
            merged = input.flatten(0, 1) if dimension == 2 else input
            return _normalised(norm, merged).reshape(input.shape)
        self._numel = input.numel()
        self._inner = math.prod(input.shape[dimension + 1 :])
        self._mark = _mark(input)
        # Where nothing tells of changes in place between the two, they must not reach what the neuron gets. Inductor
        # removes the copy where there are none.
        return input if _counts_changes(input) else input.clone()

    def excuse(self) -> None:
        """The neuron is reset, so a sequence may have ended between the two, in an error for instance."""
        self._excused = True

    def _must_be_apart(self, x: Tensor) -> bool:
        """Whether somebody could see the tensor between the two, or change it unnoticed, or bn_neuron refuses it."""
        norm = self.norm
        if norm.training and (x.numel() == 0 or not 0 <= (norm.momentum or 0) <= 1):  # which torch alone takes
            return True
        if not torch.compiler.is_compiling() and x.is_inference():
            return True
        return _has_any_global_hook() or has_hooks(norm) or has_hooks(self.neuron) or self._is_wrapped()

    def _is_wrapped(self) -> bool:
        """Whether something else than torch's ``__call__`` calls one of the two now."""
        return "forward" in self.neuron.__dict__ or is_patched(self.norm)

    def run(self, neuron: type[Neuron], x: Tensor, settings: dict[str, Any]) -> Result:
        """As :func:`run_all`, for the normalised x."""
        norm = self.norm
        if self._is_normalised(x):
            return run_all(neuron, x, settings)
        shape = kernel_shape(x.shape, norm.num_features, self._inner)
        if shape is None and recomputed():  # checkpointing began behind the norm, which has seen another size since
            shape = kernel_shape(x.shape, norm.num_features, math.prod(x.shape[2:]) // norm.num_features)
        if shape is None:
            raise ValueError(
                f"x must be [T, B, C, ...] with the {norm.num_features} channels of the {type(norm).__name__} in front "
                f"of the neuron and {self._inner} values in each, got a tensor of shape {list(x.shape)}; call unfuse() "
                "for such a model"
            )
        regular = tuple(x.shape) == shape
        if not regular and any(isinstance(t, Tensor) and t.dim() for t in settings.values()):
            # Constants whose channels are dimension 2 of x, which is not the norm's.
            normalised = _normalised(norm, x.reshape(shape).flatten(0, 1)).reshape(x.shape)
            return run_all(neuron, normalised, settings)
        mean, variance, training, momentum = statistics(norm)
        state = settings.pop("state")
        out: Any = bn_neuron(
            neuron,
            x if regular else x.reshape(shape),
            mean,
            variance,
            norm.weight,
            norm.bias,
            training=training,
            momentum=momentum,
            eps=norm.eps,
            process_group=process_group_of(norm),
            state=state if regular or state is None else tuple(t.reshape(shape[1:]) for t in state),
            **settings,
        )
        spikes, state, values = _parts(out, settings)
        if not regular:
            spikes, values = spikes.reshape(x.shape), tuple(t.reshape(x.shape) for t in values)
            state = None if state is None else tuple(t.reshape(x.shape[1:]) for t in state)
        return spikes, state, values

    def _is_normalised(self, x: Tensor) -> bool:
        """Whether the norm did its own work in this call. Raises where x cannot be what the norm passed on."""
        if recomputed():  # checkpointing may begin behind the norm
            return self._must_be_apart(x)
        name = type(self.norm).__name__
        if not self._called:
            raise RuntimeError(
                f"the neuron normalises for a {name} that was not called before it: the model has changed since "
                "they were fused. Call unfuse() before changing it and fuse() afterwards."
            )
        self._called = False
        if self._apart:
            return True
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
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mark": None}


def run_all(neuron: type[Neuron], x: Tensor, settings: dict[str, Any]) -> Result:
    """What the neuron's function gives for x ``[T, B, ...]``: spikes, the state after the last step where the settings
    ask for it, and the values of the states that ``return_sequences`` among them names."""
    return _parts(function(neuron)(x, **settings), settings)


def _parts(out: Any, settings: dict[str, Any]) -> Result:
    spikes, *rest = out if isinstance(out, tuple) else (out,)
    return (
        spikes,
        tuple(rest[0]) if settings["return_state"] else None,
        rest[-1] if settings["return_sequences"] else (),
    )


def _normalised(norm: Any, x: Tensor) -> Tensor:
    """What the norm gives for ``[N, C, ...]``, whatever its kind."""
    mean, variance, training, momentum = statistics(norm)
    group = process_group_of(norm)
    if group is not None:
        return synchronised_batch_norm(
            x, mean, variance, norm.weight, norm.bias, momentum=momentum, eps=norm.eps, process_group=group
        )
    # torch keeps what it gets for backward, and fused calls change the norm's own in place; checkpointing must find as
    # much kept when it repeats the call.
    own: list[Any] = [None if t is None else t.clone() for t in (norm.running_mean, norm.running_var)]
    y = F.batch_norm(x, own[0], own[1], norm.weight, norm.bias, training, float(momentum), norm.eps)
    if training and mean is not None and variance is not None:
        mean.copy_(own[0])
        variance.copy_(own[1])
    return y


def channel_dimension(norm: Any, dimensions: int, time_first: bool = False) -> int:
    """Where a norm finds its channels in an input of so many dimensions."""
    if time_first or getattr(norm, "step_mode", "s") == "m":  # SpikingJelly's norms merge T and B
        return 2
    for kind, own in _DIMENSIONS:
        if isinstance(norm, kind) and dimensions not in own:
            return 2
    return 1


def kernel_shape(shape: Sequence[int], channels: int, inner: int) -> tuple[int, ...] | None:
    """``[T, B, C, ...]`` for what the norm's input became by reshaping, the neuron's input; None where that is not
    known. The neuron may have taken the norm's ``[N, C, ...]`` for ``[T, C, ...]``, or C merged with what is behind it.

    Args:
        shape: of the neuron's input, with T in front.
        channels, inner: C, and the number of values that the norm saw behind each channel.
    """
    for dimension in (2, 1):
        rest = shape[dimension:]
        if len(rest) and rest[0] % channels == 0 and math.prod(rest) == channels * inner:
            if dimension == 2 and rest[0] == channels:
                return tuple(shape)
            return (*shape[:dimension], *[1] * (2 - dimension), channels, inner)
    return None


def reads_output_alone(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a forward hook that does not look at a module's input and changes nothing: a fused neuron that has no
    other hooks stays fused."""
    hook.reads_output_alone = True  # type: ignore[attr-defined]
    return hook


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks that see tensors, or that compute its weights before a call."""
    if module._forward_pre_hooks or module._backward_pre_hooks or module._backward_hooks:
        return True
    return any(not getattr(hook, "reads_output_alone", False) for hook in module._forward_hooks.values())


def is_patched(module: nn.Module) -> bool:
    """Whether an instance has a forward of its own that is not a link's."""
    return "forward" in module.__dict__ and not isinstance(getattr(module.__dict__["forward"], "__self__", None), Link)


def _counts_changes(x: Tensor) -> bool:
    """Whether a change of x in place leaves a trace."""
    return not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is None


def _mark(x: Tensor) -> tuple[int, int] | None:
    """Memory and version, which views share: whoever changes x in place changes the second."""
    if not _counts_changes(x) or x.is_inference() or x.numel() == 0:
        return None
    return x.data_ptr(), x._version


def link_of(module: nn.Module) -> Link | None:
    """The link of a norm or neuron, if it has one."""
    forward = module.__dict__.get("forward")
    for link in (module.__dict__.get("_link"), getattr(forward, "__self__", None)):
        if isinstance(link, Link):
            return link
    return None


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
