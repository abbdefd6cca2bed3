"""What the neuron modules share: settings, and the state that carries from call to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import stdano_kernels
from stdano_kernels.backends import NAMES
from stdano_kernels.settings import choice, flag, python_value

from .link import Link
from .recomputation import Segments, State, checkpointed, uncompiled
from .surrogates import resolve_surrogate


class BaseNode(nn.Module):
    """Base of LIFNode, LLIFNode and SLIFNode. A subclass ends its constructor with :meth:`_check_settings`.

    The arguments up to ``store_v_seq`` have the names, order and meaning of SpikingJelly's ``LIFNode``.

    Args:
        tau: time constant in time steps, above 0 (above 1 with ``decay="linear"``): a number, ``float("inf")`` for no
            leak included, or a tensor of shape ``[]`` or ``[C]``. An ``nn.Parameter`` is learned.
        decay_input: multiplies the input by 1/tau.
        v_threshold: threshold: a number, tensor or parameter, as ``tau``.
        v_reset: potential after a spike (hard reset), or None for the soft reset.
        surrogate_function: a name from ``stdano_kernels.SURROGATES`` or a SpikingJelly surrogate object.
        detach_reset: no gradient through the spike in the reset.
        step_mode: ``"m"``: forward takes ``[T, B, ...]`` at once; ``"s"``: one step ``[B, ...]``.
        backend: see :func:`stdano_kernels.backends`.
        store_v_seq: keep the potentials after the reset of every step in ``v_seq``, ``[T, B, ...]``.
        decay: ``"exp"``: exp(-1/tau), the paper's eq. 3; ``"linear"``: 1 - 1/tau, SpikingJelly's.
        alpha: sharpness of a surrogate given by name; default 1.
        spike: ``"soft"`` emits the surrogate's primitive instead of 0 and 1.

    The state carries from one call to the next until :meth:`reset`. It is not part of ``state_dict()``.

    Raises:
        ValueError, TypeError: a setting is wrong (at construction), or the input or carried state does not fit.
    """

    neuron: str  # the function of stdano_kernels
    tau: float | Tensor
    v_threshold: float | Tensor
    _state: State
    _v_seq: list[Tensor]
    _segments: Segments
    _link: Link | None = None  # to the BatchNorm that this neuron computes as well; see stdano.fuse

    def __init__(
        self,
        tau: float | Tensor = 2.0,
        decay_input: bool = False,
        v_threshold: float | Tensor = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: object = "triangle",
        detach_reset: bool = False,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        decay: str = "exp",
        alpha: float | None = None,
        spike: str = "hard",
    ) -> None:
        super().__init__()
        self._set_constant("tau", tau)
        self._set_constant("v_threshold", v_threshold)
        self.decay_input = decay_input
        self.v_reset = v_reset
        self.surrogate_function, self.alpha = resolve_surrogate(surrogate_function, alpha)
        self.detach_reset = detach_reset
        self.step_mode = step_mode
        self.backend = backend
        self.store_v_seq = flag("store_v_seq", store_v_seq)
        self.decay = decay
        self.spike = spike
        self._state = None
        self._v_seq = []
        self._segments = Segments()

    def _set_constant(self, name: str, value: float | Tensor) -> None:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        else:
            setattr(self, name, value)

    def _check_settings(self) -> None:
        """Runs the function on nothing, whose checks are the only ones."""
        for name, value in self._settings().items():
            if python_value(value) is not value:
                setattr(self, {"surrogate": "surrogate_function"}.get(name, name), python_value(value))
        tensors = [t for t in (self.tau, self.v_threshold) if isinstance(t, Tensor)]
        channels = max([t.numel() for t in tensors if t.dim()], default=1)
        x = torch.empty(0, 0, channels, device=tensors[0].device if tensors else None)
        self._run(x, None, False, backend="reference")
        choice("backend", self.backend, ("auto", *NAMES))

    def _settings(self) -> dict[str, Any]:
        """The keyword arguments of the function in stdano_kernels, less those that concern a single call."""
        return {
            "tau": self.tau,
            "decay_input": self.decay_input,
            "v_threshold": self.v_threshold,
            "v_reset": self.v_reset,
            "surrogate": self.surrogate_function,
            "alpha": self.alpha,
            "detach_reset": self.detach_reset,
            "decay": self.decay,
            "spike": self.spike,
        }

    def _run(
        self, x: Tensor, state: State, v_seq: bool, backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        settings = self._settings()
        if self._link is not None:
            return self._link.run(self.neuron, x, state, v_seq, backend, settings)
        function: Callable = getattr(stdano_kernels, self.neuron)
        out = function(x, **settings, state=state, return_state=True, return_v_seq=v_seq, backend=backend)
        return out[0], tuple(out[1]), out[2] if v_seq else None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes for an input ``[T, B, ...]`` (``step_mode="m"``) or ``[B, ...]`` (``"s"``); like the input."""
        if torch.compiler.is_compiling() and checkpointed():
            return uncompiled(self._forward, x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        steps = x.unsqueeze(0) if self.step_mode == "s" else x
        holder = self._holder()
        initial = self._usable(holder._state, steps)
        spikes, state, v_seq = self._run(steps, initial, self.store_v_seq, self.backend)
        holder._state = state
        if v_seq is not None:
            holder._v_seq = _joined(holder._v_seq, v_seq) if self.step_mode == "s" else [v_seq]
        return spikes.squeeze(0) if self.step_mode == "s" else spikes

    def _holder(self) -> Any:
        """What has ``_state`` and ``_v_seq``: this module, or, while checkpointing repeats a segment, its entry."""
        return self if torch.compiler.is_compiling() else self._segments.holder(self)

    def _usable(self, state: State, x: Tensor) -> State:
        """The carried state as this call can take it."""
        if state is None:
            return None
        if state[0].shape != x.shape[1:]:
            raise ValueError(
                f"{type(self).__name__} carries a state of shape {list(state[0].shape)} from an earlier call, but x "
                f"now needs {list(x.shape[1:])}; call reset() before a sequence of another shape"
            )
        if state[0].device != x.device:
            raise ValueError(
                f"{type(self).__name__} carries a state on {state[0].device} from an earlier call, but x is on "
                f"{x.device}; call reset(), or move the module to that device"
            )
        if torch.compiler.is_compiling():
            return state
        if _is_mapped(state[0]) and not _is_mapped(x):
            raise ValueError(
                f"{type(self).__name__} carries a state from an earlier call under torch.vmap, which is over; call "
                "reset() after such a call"
            )
        if state[0].is_inference() and not torch.is_inference_mode_enabled():
            return tuple(t.clone() for t in state)  # autograd takes no tensor of inference mode
        return state

    @property
    def step_mode(self) -> str:
        """``"m"`` (all steps in one call) or ``"s"`` (one)."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        choice("step_mode", value, ("m", "s"))
        self._step_mode = value

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """What ``backend`` may be; SpikingJelly's ``set_backend`` asks for it."""
        return ("auto", *NAMES)

    @property
    def v(self) -> Tensor | float:
        """The potential after the last step, ``[B, ...]``; the resting potential, a number, before the first."""
        state = self._holder()._state
        return (self.v_reset or 0.0) if state is None else state[0]

    @v.setter
    def v(self, value: Tensor | float) -> None:
        if not isinstance(value, Tensor):
            if value != (self.v_reset or 0.0):
                raise ValueError(f"v must be a tensor or the resting potential {self.v_reset or 0.0}, got {value!r}")
            self.reset()
        else:
            holder = self._holder()
            adaptation = self._resting_adaptation(value) if holder._state is None else holder._state[1:]
            holder._state = (value, *adaptation)

    def _resting_adaptation(self, v: Tensor) -> tuple[Tensor, ...]:
        return ()

    @property
    def v_seq(self) -> Tensor | None:
        """With ``store_v_seq``, the potentials of the last call ``[T, B, ...]``, in mode "s" of all since reset()."""
        v_seq = self._holder()._v_seq
        return torch.cat(v_seq) if v_seq else None

    def reset(self) -> None:
        """Forgets the state: the next call starts a new sequence."""
        holder = self._holder()
        holder._state = None
        holder._v_seq = []
        if self._link is not None and holder is self:
            self._link.excuse()

    def detach(self) -> None:
        """Keeps the values of the state and cuts their history (truncated backpropagation through time)."""
        holder = self._holder()
        holder._state = None if holder._state is None else tuple(t.detach() for t in holder._state)
        holder._v_seq = [t.detach() for t in holder._v_seq]

    def _apply(self, fn: Callable, recurse: bool = True) -> BaseNode:
        module = super()._apply(fn, recurse)
        self._state = None if self._state is None else tuple(fn(t) for t in self._state)
        self._v_seq = [_each_step(fn, t) for t in self._v_seq]
        return module

    def __getstate__(self) -> dict[str, Any]:
        # copy.deepcopy and pickle take tensors without history only.
        state = self.__dict__.copy()
        if self._state is not None:
            state["_state"] = tuple(t.detach() for t in self._state)
        state["_v_seq"] = [t.detach() for t in self._v_seq]
        return state

    def _replicate_for_data_parallel(self) -> BaseNode:
        if self._link is not None:
            # The replica would read the norm of the first device.
            raise RuntimeError(
                "DataParallel cannot replicate a neuron that is fused with its norm: call unfuse() first, or use "
                "DistributedDataParallel"
            )
        # A replica sees a part of the batch and is thrown away after the call: it can carry no state.
        replica = super()._replicate_for_data_parallel()
        replica._segments = Segments()
        replica.reset()
        return replica

    def extra_repr(self) -> str:
        settings = {**self._settings(), "step_mode": self.step_mode, "backend": self.backend}
        settings["store_v_seq"] = self.store_v_seq
        if self._link is not None:
            settings["fused_with"] = type(self._link.norm).__name__
        return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _joined(earlier: list[Tensor], v_seq: Tensor) -> list[Tensor]:
    """Compiled, a list of growing length would make a graph a step; a tensor of growing size does not."""
    return [torch.cat((*earlier, v_seq))] if torch.compiler.is_compiling() else [*earlier, v_seq]


def _each_step(fn: Callable[[Tensor], Tensor], v_seq: Tensor) -> Tensor:
    """What ``fn``, which may go by the number of dimensions, makes of potentials ``[T, B, ...]``, step by step."""
    if v_seq.dim() < 2:
        return fn(v_seq)
    return fn(v_seq.flatten(0, 1)).unflatten(0, v_seq.shape[:2])


def _is_mapped(t: Tensor) -> bool:
    return torch._C._functorch.is_batchedtensor(t)


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        kind = "Parameter" if isinstance(value, nn.Parameter) else "Tensor"
        return f"{kind}{list(value.shape)}" if value.dim() else f"{kind}({value.item():g})"
    return repr(value)
