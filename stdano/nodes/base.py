"""What the neuron modules share: settings, and the state that carries from call to call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor, nn

from stdano_kernels import Neuron
from stdano_kernels.backends import NAMES
from stdano_kernels.settings import choice

from .arguments import Arguments, declare
from .link import Link, run_all
from .recomputation import Segments, State, checkpointed, uncompiled


class BaseNode(nn.Module):
    """Base of all neurons. A subclass names the declaration that it runs; arguments and states follow from that::

        class AdaptiveNode(BaseNode):
            neuron = Adaptive  # a subclass of stdano_kernels.Neuron

    :func:`stdano.node` makes such a class. The arguments up to ``store_v_seq`` have the names, order and meaning of
    SpikingJelly's ``LIFNode``; a neuron has those that its declaration uses.

    Args:
        tau: time constant in time steps, above 0 (above 1 with ``decay="linear"``): a number, ``float("inf")`` for no
            leak included, or a tensor. Each constant, the neuron's own too, may be a tensor of shape ``[]``, ``[C]``
            or one a neuron. An ``nn.Parameter`` is learned.
        decay_input: multiplies the input by 1/tau.
        v_threshold: threshold: a number, tensor or parameter.
        v_reset: potential after a spike (hard reset), or None for the soft reset.
        surrogate_function: a name from ``stdano_kernels.SURROGATES`` or a SpikingJelly surrogate object.
        detach_reset: no gradient through the spike in the reset.
        step_mode: ``"m"``: forward takes ``[T, B, ...]`` at once; ``"s"``: one step ``[B, ...]``.
        backend: see :func:`stdano_kernels.backends`.
        store_v_seq: keep the potentials after the reset of every step in ``v_seq``, ``[T, B, ...]``.
        decay: ``"exp"``: exp(-1/tau), the paper's eq. 3; ``"linear"``: 1 - 1/tau, SpikingJelly's.
        alpha: sharpness of a surrogate given by name; default 1.
        spike: ``"soft"`` emits the surrogate's primitive instead of 0 and 1.

    The state carries from one call to the next until :meth:`reset`; it is not part of ``state_dict()``. Each of its
    parts is a property: ``v``, and what else the neuron has. ``v`` can be set; the others are then at rest.

    Raises:
        ValueError, TypeError: a setting is wrong (at construction), or the input or carried state does not fit.
    """

    neuron: ClassVar[type[Neuron]]
    backend: str
    store_v_seq: bool = False
    _arguments: ClassVar[Arguments]
    _made_by: ClassVar[tuple[Callable[..., Any], Any] | None] = None  # of a class that no module has under its name
    _state: State
    _v_seq: list[Tensor]
    _segments: Segments
    _link: Link | None = None  # to the BatchNorm that this neuron computes as well; see stdano.fuse
    _stateless: bool = False  # within stdano.stateless

    if TYPE_CHECKING:  # what a call returns; nn.Module says Any

        @overload
        def __call__(self, x: Tensor) -> Tensor: ...
        @overload
        def __call__(self, x: Tensor, return_sequences: Sequence[str]) -> tuple[Tensor, tuple[Tensor, ...]]: ...
        def __call__(self, *arguments: Any, **more: Any) -> Any: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "neuron" in vars(cls):
            declare(cls, BaseNode)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__()
        if not hasattr(type(self), "neuron"):
            raise TypeError(
                f"{type(self).__name__} must have a subclass of stdano_kernels.Neuron as its attribute neuron"
            )
        for name, value in self._arguments.bind(self, arguments, settings).items():
            if name in self._arguments.constants and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self._state = None
        self._v_seq = []
        self._segments = Segments()
        self._arguments.check(self._settings())

    def _settings(self) -> dict[str, Any]:
        """The keyword arguments of the neuron's function, less those that concern a single call."""
        return {name: getattr(self, attribute) for name, attribute in self._arguments.settings}

    def _run(
        self, x: Tensor, state: State, sequences: Sequence[str], backend: str
    ) -> tuple[Tensor, State, Sequence[Tensor]]:
        settings = {**self._settings(), "state": state, "return_sequences": sequences, "backend": backend}
        settings["return_state"] = not self._stateless
        if self._link is not None:
            return self._link.run(self.neuron, x, settings)
        return run_all(self.neuron, x, settings)

    def forward(self, x: Tensor, return_sequences: Sequence[str] = ()) -> Any:
        """Spikes for an input ``[T, B, ...]`` (``step_mode="m"``) or ``[B, ...]`` (``"s"``); like the input.

        Args:
            x: the input.
            return_sequences: names of states, as ``("v", "theta")``. The return value is then a tuple of the spikes
                and a tuple of these states' values after every step, each like the input.
        """
        if torch.compiler.is_compiling() and checkpointed():
            return uncompiled(self._forward, x, return_sequences)
        return self._forward(x, return_sequences)

    def _forward(self, x: Tensor, return_sequences: Sequence[str]) -> Any:
        single = self.step_mode == "s"
        steps = x.unsqueeze(0) if single else x
        holder = self._holder()
        if self._stateless and single:
            raise ValueError(
                'step_mode must be "m" in stdano.stateless, which carries no state to the next step, got "s"'
            )
        initial = None if self._stateless else self._usable(holder._state, steps)
        names = return_sequences
        if not isinstance(names, str):  # which the function refuses
            names = tuple(dict.fromkeys((*names, "v") if self.store_v_seq else names))
        spikes, state, values = self._run(steps, initial, names, self.backend)
        holder._state = state
        by_name = dict(zip(names, values, strict=True))
        if self.store_v_seq:
            holder._v_seq = _joined(holder._v_seq, by_name["v"]) if single else [by_name["v"]]
        spikes = spikes.squeeze(0) if single else spikes
        if not return_sequences:
            return spikes
        return spikes, tuple(by_name[name].squeeze(0) if single else by_name[name] for name in return_sequences)

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

    def _value_of(self, name: str) -> Tensor | float:
        """A state after the last step; before the first what it rests at, a number or a constant."""
        state = self._holder()._state
        return self._rest_of(name) if state is None else state[list(self.neuron.states).index(name)]

    def _rest_of(self, name: str) -> Any:
        rest = self.neuron.states[name].rest
        value = getattr(self, rest or "v_reset") if rest is None or isinstance(rest, str) else rest
        return 0.0 if value is None else value

    def _start_at(self, v: Tensor | float) -> None:
        """Sets v; states that are not yet there are at rest."""
        rest = self._rest_of("v")
        if not isinstance(v, Tensor):
            if isinstance(rest, Tensor) or v != rest:
                raise ValueError(f"v must be a tensor or the resting potential {_short(rest)}, got {v!r}")
            self.reset()
            return
        holder, names = self._holder(), list(self.neuron.states)
        state = holder._state or tuple(_like(v, self._rest_of(name)) for name in names)
        holder._state = tuple(v if name == "v" else t for name, t in zip(names, state, strict=True))

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

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> BaseNode:
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in self._arguments.defaults:  # what a pickle of an older version lacks
            if not hasattr(self, name):
                setattr(self, name, self._arguments.defaults[name])

    def __reduce_ex__(self, protocol: Any) -> Any:
        how = vars(type(self)).get("_made_by")
        return super().__reduce_ex__(protocol) if how is None else (_blank, how, self.__getstate__())

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
        if "store_v_seq" in self._arguments.defaults:
            settings["store_v_seq"] = self.store_v_seq
        if self._link is not None:
            settings["fused_with"] = type(self._link.norm).__name__
        return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _blank(make: Callable[[Any], type[BaseNode]], argument: Any) -> BaseNode:
    """An instance without attributes of a class that is made from something; for pickle and copy."""
    cls = make(argument)
    return cls.__new__(cls)


def beside(v: Tensor, value: Tensor) -> Tensor:
    """A constant as it broadcasts to v ``[B, ...]``: one a channel, ``[C]``, along dimension 1."""
    return value.reshape(-1, *[1] * (v.dim() - 2)) if value.dim() == 1 and v.dim() >= 2 else value


def _like(v: Tensor, value: Tensor | float) -> Tensor:
    """A constant as the state of every neuron of v ``[B, ...]``."""
    return torch.zeros_like(v) + (beside(v, value) if isinstance(value, Tensor) else value)


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
