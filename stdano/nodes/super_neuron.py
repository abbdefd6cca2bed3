"""The super neuron of the search as a module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stdano_kernels import Neuron, super_neuron
from stdano_kernels.backends import NAMES
from stdano_kernels.settings import choice, flag, number, python_value

from .base import BaseNode
from .candidates import check_candidates, name_of, settings_of
from .link import statistics, synchronised
from .neurons import CANDIDATES, class_of, resets_softly, shared
from .recomputation import checkpointed, uncompiled
from .surrogates import resolve_surrogate


class _Statistics(nn.modules.batchnorm._BatchNorm):
    """A super neuron's statistics to whoever looks for BatchNorms in a model: ``torch.optim.swa_utils.update_bn``
    resets them and sets the momentum. The tensors are the super neuron's, as are their names in ``state_dict()``."""

    running_mean = running_var = num_batches_tracked = None

    def __init__(self, buffers: dict[str, Tensor | None], momentum: float | None) -> None:
        nn.Module.__init__(self)
        self.num_features, self.eps, self.momentum = 0, 1e-5, momentum
        self.affine = self.track_running_stats = False
        self.buffers_of_parent = buffers  # the dictionary itself, in which to() and load_state_dict() put new tensors

    def reset_running_stats(self) -> None:
        for name, start in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            tensor = self.buffers_of_parent[name]
            if tensor is not None:
                tensor.fill_(start)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Nothing: BatchNorm's would add what old checkpoints of BatchNorms lack."""


def name_here(setting: str, cls: type[BaseNode]) -> str:
    """Under which name a super neuron has a setting of a neuron's class."""
    if setting == "v_reset" and resets_softly(cls):
        return "slif_v_reset"
    return "surrogate_alpha" if setting == "alpha" else setting


class SuperNeuron(nn.Module):
    """Several neurons on one input, each normalised, and their weighted sum (eq. 10 of the paper)::

        y = sum_k w[k] * BatchNorm_k(S_k(x)),   w = softmax(alpha)

    See :func:`stdano_kernels.super_neuron`, which computes all of it in two passes over the data.

    Args:
        num_channels: C, the channels of the input.
        neurons: the candidates, in the order of ``alpha``: one to eight different neurons with spikes of 0 and 1. Each
            is a name (``"LIF"``, ``"LIF(tau=4.0)"``, ``"mypackage.mymodule:MyNeuron"``), a declaration
            (:class:`stdano_kernels.Neuron`) or one with settings of its own (``LIF(tau=4.0)``).
        momentum: weight of the batch in the running statistics; None: all batches weigh the same.
        eps: added to the variance.
        track_running_stats: whether there are running statistics for eval mode.
        sync: in training, statistics over all processes of ``process_group``; default all.
        tau, v_threshold, decay, decay_input, surrogate_function, detach_reset, spike, backend: as for
            :class:`stdano.BaseNode`; ``tau`` and ``v_threshold`` are numbers. These and the following are for all
            candidates that have them and no settings of their own for them.
        surrogate_alpha: sharpness of a surrogate given by name; default 1.
        v_reset: reset of LIF, LLIF and others whose default is the hard one; None: soft.
        slif_v_reset: reset of SLIF and others whose default is the soft one; None: soft.
        gamma: adaptation of LLIF, ``beta`` and ``tau_min`` of SLIF.
        detach_adapt: the adaptation counts as a constant in the backward pass.

    Attributes:
        neurons: the names of the candidates.
        candidates: the candidates as declarations with their own settings.
        alpha: the architecture parameter ``[K]``, to start with 1e-3 times standard normal numbers.
        running_mean, running_var: statistics of each candidate's spikes ``[K, C]``; ``num_batches_tracked`` ``[]``.
        position: number in a model's order of execution, from 0, where :func:`stdano.search.to_super` saw it; or None.

    Forward takes ``[T, B, C, ...]`` and returns the like. Each call is a sequence of its own: no state is carried.

    Raises:
        ValueError, TypeError: a setting is wrong (at construction), or the input does not fit.
    """

    alpha: nn.Parameter
    surrogate_function: str
    surrogate_alpha: float
    removed: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    position: int | None = None

    if TYPE_CHECKING:  # what a call returns; nn.Module says Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def __init__(
        self,
        num_channels: int,
        neurons: Sequence[str | type[Neuron] | Neuron] = ("LIF", "LLIF", "SLIF"),
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        track_running_stats: bool = True,
        sync: bool = False,
        process_group: dist.ProcessGroup | None = None,
        tau: float = 2.0,
        decay_input: bool = False,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        slif_v_reset: float | None = None,
        surrogate_function: object = "triangle",
        surrogate_alpha: float | None = None,
        detach_reset: bool = False,
        detach_adapt: bool = False,
        decay: str = "exp",
        gamma: float = 0.1,
        beta: float = 0.1,
        tau_min: float = 1.05,
        spike: str = "hard",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        num_channels = python_value(num_channels)
        if not isinstance(num_channels, int) or num_channels < 1:
            raise ValueError(f"num_channels must be 1 or more, got {num_channels!r}")
        candidates = check_candidates("neurons", neurons)
        if process_group is not None and not sync:
            raise ValueError("process_group must be None without sync=True")
        self.num_channels = num_channels
        self.candidates = candidates
        self.neurons: tuple[str, ...] = tuple(map(name_of, candidates))
        self.eps = eps
        self.track_running_stats: bool = flag("track_running_stats", track_running_stats)
        self.sync: bool = flag("sync", sync)
        self.process_group = process_group
        self.tau = tau
        self.decay_input = decay_input
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.slif_v_reset = slif_v_reset
        self.surrogate_function, self.surrogate_alpha = resolve_surrogate(surrogate_function, surrogate_alpha)
        self.detach_reset = detach_reset
        self.detach_adapt = detach_adapt
        self.decay = decay
        self.gamma = gamma
        self.beta = beta
        self.tau_min = tau_min
        self.spike = spike
        self.backend = backend
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(candidates)))
        self.register_buffer("removed", None, persistent=False)
        shape = (len(candidates), num_channels)
        self.register_buffer("running_mean", torch.zeros(shape) if track_running_stats else None)
        self.register_buffer("running_var", torch.ones(shape) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)
        self._statistics = _Statistics(self._buffers, momentum)
        self._check_settings()

    @property
    def momentum(self) -> float | None:
        """Weight of the batch in the running statistics; None: all batches weigh the same."""
        return self._statistics.momentum

    @momentum.setter
    def momentum(self, value: float | None) -> None:
        self._statistics.momentum = value

    def _check_settings(self) -> None:
        every: list[type[BaseNode] | Neuron] = [*CANDIDATES.values(), *self.candidates]
        for neuron in every:  # every setting, also of neurons that are no candidates
            settings = self.settings_of(neuron)
            class_of(type(neuron) if isinstance(neuron, Neuron) else neuron)(**settings)
            for name, value in settings.items():
                if isinstance(value, Tensor):
                    raise TypeError(f"{name} must be a number in a super neuron, got a tensor")
        for name, value in vars(self).items():
            if python_value(value) is not value:
                setattr(self, name, python_value(value))
        number("eps", self.eps)
        if self.momentum is not None:
            number("momentum", self.momentum)
        choice("backend", self.backend, ("auto", *NAMES))

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """What ``backend`` may be; SpikingJelly's ``set_backend`` asks for it."""
        return ("auto", *NAMES)

    def weights(self) -> Tensor:
        """``[K]``: the share of each candidate, the softmax of ``alpha`` over those that are not removed."""
        alpha = self.alpha if self.removed is None else self.alpha.masked_fill(self.removed, -math.inf)
        return alpha.softmax(0)

    def keep(self, *neurons: str) -> None:
        """Removes all candidates but these: their share is 0 from now on. Without any, all are there again. What is
        removed is not part of ``state_dict()``."""
        unknown = [name for name in neurons if name not in self.neurons]
        if unknown:
            raise ValueError(f"neurons must be some of {', '.join(self.neurons)}, got {', '.join(unknown)}")
        gone = [name not in neurons for name in self.neurons]
        self.removed = torch.tensor(gone, device=self.alpha.device) if neurons and any(gone) else None

    def choice(self) -> str:
        """The name of the candidate with the largest share."""
        return self.neurons[int(self.weights().detach().argmax())]

    def node(self, neuron: str | None = None) -> BaseNode:
        """A candidate as a neuron of its own, with the same settings; by default the one of :meth:`choice`."""
        name = self.choice() if neuron is None else neuron
        if name not in self.neurons:
            raise ValueError(f"neuron must be one of {', '.join(self.neurons)}, got {neuron!r}")
        candidate = self.candidates[self.neurons.index(name)]
        return class_of(type(candidate))(**self.settings_of(candidate)).train(self.training)

    def settings_of(self, neuron: str | type[BaseNode] | Neuron) -> dict[str, Any]:
        """The arguments with which a neuron is what it is in here, as far as it has them."""
        cls = class_of(type(neuron) if isinstance(neuron, Neuron) else neuron)
        known = [name for name in cls._arguments.defaults if any(shared(name, c, cls) for c in CANDIDATES.values())]
        here = {name: name_here(name, cls) for name in known}
        values = {name: getattr(self, own) for name, own in here.items() if hasattr(self, own)}
        return values | (settings_of(neuron) if isinstance(neuron, Neuron) else {})

    def forward(self, x: Tensor) -> Tensor:
        """``y``, like the input ``[T, B, C, ...]``."""
        if x.dim() < 3 or x.shape[2] != self.num_channels:
            raise ValueError(
                f"x must be [T, B, C, ...] with {self.num_channels} channels, got a tensor of shape {list(x.shape)}"
            )
        if self.training and torch.compiler.is_compiling() and checkpointed():
            return uncompiled(self._forward, x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        mean, variance, training, momentum = statistics(self)
        return super_neuron(
            x,
            self.weights(),
            mean,
            variance,
            neurons=self.candidates,
            training=training,
            momentum=momentum,
            eps=self.eps,
            tau=self.tau,
            v_threshold=self.v_threshold,
            v_reset=self.v_reset,
            slif_v_reset=self.slif_v_reset,
            decay=self.decay,
            decay_input=self.decay_input,
            surrogate=self.surrogate_function,
            alpha=self.surrogate_alpha,
            detach_reset=self.detach_reset,
            detach_adapt=self.detach_adapt,
            spike=self.spike,
            gamma=self.gamma,
            beta=self.beta,
            tau_min=self.tau_min,
            process_group=synchronised(self.training and self.sync, self),
            backend=self.backend,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Pickles of whole networks from before there were candidates of one's own have their names alone."""
        super().__setstate__(state)
        self._buffers.setdefault("removed", None)
        self._non_persistent_buffers_set.add("removed")
        if "candidates" not in vars(self):
            self.candidates = check_candidates("neurons", self.neurons)

    def reset(self) -> None:
        """Does nothing, since no state is carried; :func:`stdano.reset_net` may call it all the same."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        names = [name for name in inspect.signature(SuperNeuron).parameters if name != "process_group"]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
