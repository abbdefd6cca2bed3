"""BatchNorm and neuron as one module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor, nn

from stdano_kernels import Neuron

from .base import BaseNode
from .link import Link, has_hooks, is_patched
from .neurons import class_of, is_own
from .norms import SynchronisedBatchNorm2d


class BatchNormNeuron(nn.Sequential):
    """BatchNorm over T, B and space, and the neuron behind it, in one kernel (see :func:`stdano_kernels.bn_neuron`).

    It has the parameters, buffers and ``state_dict()`` keys of ``nn.Sequential(nn.BatchNorm2d(C), LLIFNode())``, and
    computes what that would on ``[T*B, C, H, W]``, without the normalised tensor in between. ``[0]`` is the norm and
    ``[1]`` the neuron, with its state and settings.

    Args:
        num_channels: C.
        neuron: ``"LIF"``, ``"LLIF"`` (default) and so on or a class name such as ``"LLIFNode"``, a declared neuron
            (:class:`stdano_kernels.Neuron`) or a class of modules, made with ``settings``; or a module, in step mode
            "m". (One whose class does more than its declaration says runs behind the norm.)
        eps: added to the variance.
        momentum: weight of the batch in the running statistics; None: all batches weigh the same.
        affine: whether there are a weight and a bias to learn.
        track_running_stats: whether there are running statistics for eval mode.
        sync: in training, statistics over all processes; the norm is a :class:`stdano.SynchronisedBatchNorm2d`.
        process_group: the processes of ``sync``; default all.
        settings: arguments of the neuron.

    Forward takes ``[T, B, C, ...]`` and returns spikes like it.

    Raises:
        ValueError, TypeError: an argument is wrong; the input has other channels.
    """

    if TYPE_CHECKING:  # what a call returns; nn.Module says Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def __init__(
        self,
        num_channels: int,
        neuron: str | type[Neuron] | type[BaseNode] | BaseNode = "LLIF",
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        sync: bool = False,
        process_group: dist.ProcessGroup | None = None,
        **settings: Any,
    ) -> None:
        node = _node(neuron, settings)
        if process_group is not None and not sync:
            raise ValueError("process_group must be None without sync=True")
        options: dict[str, Any] = dict(
            eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats
        )
        norm = (
            SynchronisedBatchNorm2d(num_channels, process_group=process_group, **options)
            if sync
            else nn.BatchNorm2d(num_channels, **options)
        )
        super().__init__(norm, node)
        if why_changed(norm, node) is None:
            link(norm, node, time_first=True)

    def forward(self, x: Tensor) -> Tensor:
        norm, neuron = self
        if neuron._link is not None or isinstance(norm, nn.Identity):
            return neuron(norm(x))
        # Apart, after unfuse(): a BatchNorm2d takes images, and there is no harm in flat ones.
        images = x.flatten(0, 1)
        return neuron(norm(images if images.dim() == 4 else images.reshape(*images.shape[:2], -1, 1)).reshape(x.shape))


def _node(neuron: str | type[Neuron] | type[BaseNode] | BaseNode, settings: dict[str, Any]) -> BaseNode:
    if not isinstance(neuron, BaseNode):
        neuron = class_of(neuron)(**settings)
    elif settings:
        raise ValueError(f"neuron must be a name where settings of one are given, {', '.join(settings)}")
    if neuron.step_mode != "m":
        raise ValueError(f"neuron must be in step_mode 'm', which takes all time steps, got {neuron.step_mode!r}")
    if neuron._link is not None:
        raise ValueError("neuron must not have a norm of its own; call unfuse() on what it is part of")
    return neuron


def why_changed(norm: nn.Module, neuron: nn.Module, place: str = "the neuron") -> str | None:
    """Why a neuron cannot compute the norm in front of it: the two may do more than they say. ``place`` is the neuron
    in words."""
    if not is_own(type(neuron)):
        own = next(base.__name__ for base in type(neuron).__mro__ if is_own(base) or base is BaseNode)
        return f"{place} behind it is a subclass of {own}, which may do something else"
    if has_hooks(norm) or has_hooks(neuron):
        return f"it or {place} behind it has hooks, which would see another tensor"
    if is_patched(norm) or is_patched(neuron):
        return f"it or {place} behind it has a forward of its own, which may do something else"
    return None


def link(norm: nn.Module, neuron: nn.Module, time_first: bool = False) -> None:
    """From now on the neuron computes the norm."""
    assert isinstance(neuron, BaseNode)
    connection = Link(norm, neuron, time_first)
    norm.__dict__["forward"] = connection.pass_on
    neuron._link = connection


def hand_on(old: BaseNode, new: BaseNode) -> None:
    """From now on another neuron computes the norm."""
    assert old._link is not None
    new._link, old._link = old._link, None
    new._link.neuron = new


def unlink(connection: Link) -> None:
    """From now on each computes its own."""
    if not is_patched(connection.norm):
        connection.norm.__dict__.pop("forward", None)
    connection.neuron._link = None
