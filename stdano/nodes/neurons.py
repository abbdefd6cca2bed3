"""Spiking neurons as modules, to drop in where SpikingJelly's were."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stdano_kernels import Neuron, function
from stdano_kernels import neurons as declarations
from stdano_kernels.settings import number
from stdano_kernels.spec import means_the_same

from .base import BaseNode


class LIFNode(BaseNode):
    """With ``decay="linear"`` it equals SpikingJelly's LIFNode of the same arguments."""

    neuron: ClassVar[type[Neuron]] = declarations.LIF


class LLIFNode(BaseNode):
    """``theta`` is the threshold of the next step."""

    neuron: ClassVar[type[Neuron]] = declarations.LLIF


class SLIFNode(BaseNode):
    """``p`` is the residual potential of the last step's spike, 0 without one."""

    neuron: ClassVar[type[Neuron]] = declarations.SLIF


class IFNode(BaseNode):
    """It equals SpikingJelly's IFNode of the same arguments."""

    neuron: ClassVar[type[Neuron]] = declarations.IF


class ALIFNode(BaseNode):
    """``b`` is what the next step's threshold is raised by, before ``kappa``."""

    neuron: ClassVar[type[Neuron]] = declarations.ALIF


class CubaLIFNode(BaseNode):
    """``i`` is the synaptic current of the last step."""

    neuron: ClassVar[type[Neuron]] = declarations.CubaLIF


class IntegerLIFNode(BaseNode):
    """Its spikes are 0, 1, 2, 3 or 4."""

    neuron: ClassVar[type[Neuron]] = declarations.IntegerLIF


class LearnedTau(BaseNode):
    """A neuron that learns its time constant as SpikingJelly's ParametricLIFNode does: ``1/tau = sigmoid(w)``, so that
    tau stays above 1. The parameter is ``w``, also in ``state_dict()``; ``tau`` is computed from it in each call.

    Args:
        init_tau: tau to begin with, above 1; also by the keyword ``tau``.
        arguments, settings: the other arguments of the neuron, in its order.
    """

    w: nn.Parameter

    def __init__(self, init_tau: float = 2.0, *arguments: Any, **settings: Any) -> None:
        init_tau = settings.pop("tau", init_tau)
        super().__init__(number("init_tau", init_tau, above=1.0), *arguments, **settings)

    @property
    def tau(self) -> float | Tensor:
        """The time constant, ``[]``; set it by a number above 1."""
        # 1/sigmoid(w), kept from being rounded to 1 or infinity.
        limit = -math.log(torch.finfo(self.w.dtype).eps)
        return 1 + torch.exp(-self.w.clamp(-limit, limit))

    @tau.setter
    def tau(self, value: float | Tensor) -> None:
        w = torch.tensor(-math.log(number("tau", value, above=1.0) - 1.0))
        if "w" in self._parameters:
            with torch.no_grad():
                self.w.copy_(w)
        else:
            self.w = nn.Parameter(w)


class ParametricLIFNode(LearnedTau, LIFNode):
    """:class:`LIFNode` with a learned time constant, ``ParametricLIFNode(init_tau=2.0, ...)``; its further arguments
    are LIFNode's. With ``decay="linear"`` it equals SpikingJelly's of the same arguments and loads its checkpoints.
    See :class:`LearnedTau`."""


class ParametricLLIFNode(LearnedTau, LLIFNode):
    """:class:`LLIFNode` with a learned time constant; see :class:`LearnedTau`."""


class ParametricSLIFNode(LearnedTau, SLIFNode):
    """:class:`SLIFNode` with a learned time constant; see :class:`LearnedTau`."""


_SHIPPED = (LIFNode, LLIFNode, SLIFNode, IFNode, ALIFNode, CubaLIFNode, IntegerLIFNode)
#: Classes of the neurons that come with stdano, by the names of their declarations.
NEURONS: dict[str, type[BaseNode]] = {cls.neuron.__name__: cls for cls in _SHIPPED}
#: Those of the paper, from which a super neuron chooses; the digits of its configuration strings are their places.
CANDIDATES: dict[str, type[BaseNode]] = {name: NEURONS[name] for name in ("LIF", "LLIF", "SLIF")}
PARAMETRIC: dict[str, type[LearnedTau]] = {
    "LIF": ParametricLIFNode,
    "LLIF": ParametricLLIFNode,
    "SLIF": ParametricSLIFNode,
}
# Classes that do what their declaration says and nothing else.
_nodes: dict[type[Neuron], type[BaseNode]] = {cls.neuron: cls for cls in _SHIPPED}
_parametric: dict[type[BaseNode], type[LearnedTau]] = {NEURONS[name]: cls for name, cls in PARAMETRIC.items()}


def node(neuron: type[Neuron]) -> type[BaseNode]:
    """The class of a declared neuron's modules, the same each time; of a neuron that comes with stdano its own::

        AdaptiveNode = stdano.node(Adaptive)
        layer = AdaptiveNode(tau=1.5, kappa=nn.Parameter(torch.full((64,), 0.1)))

    Args:
        neuron: a subclass of :class:`stdano_kernels.Neuron`.

    Its arguments are SpikingJelly's, as far as the neuron uses them, and by keyword ``decay``, ``alpha``, ``spike`` and
    the neuron's own constants and options, with the declaration's defaults: see :class:`BaseNode`. Modules are pickled
    by their declaration, which must be found where it was declared.

    Raises:
        TypeError: neuron is something else.
        DeclarationError: the declaration cannot become a kernel, or a name in it is one that modules have.
    """
    function(neuron)  # checks it
    if neuron not in _nodes:
        name, made_by = f"{neuron.__name__}Node", (node, neuron)
        content = {"neuron": neuron, "__module__": neuron.__module__, "_made_by": made_by}
        _nodes.setdefault(neuron, type(name, (BaseNode,), content))
    return _nodes[neuron]


def parametric(neuron: type[Neuron] | type[BaseNode]) -> type[LearnedTau]:
    """The class of a neuron's modules that learn tau; see :class:`LearnedTau`.

    Raises:
        ValueError: the neuron has something else of the name ``w``.
    """
    cls = class_of(neuron)
    if cls not in _parametric:
        if "w" in (*cls.neuron.states, *cls._arguments.defaults):
            raise ValueError(f"tau of a {cls.__name__} cannot be learned as w, which is something else there")
        content = {
            "__module__": cls.__module__,
            "__doc__": f":class:`{cls.__name__}` with a learned time constant; see :class:`LearnedTau`.",
            "_made_by": (parametric, cls.neuron if _nodes.get(cls.neuron) is cls else cls),
        }
        _parametric.setdefault(cls, type(f"Parametric{cls.__name__}", (LearnedTau, cls), content))
    return _parametric[cls]


def class_of(neuron: Any) -> type[BaseNode]:
    """The class of the modules of a neuron.

    Args:
        neuron: ``"LIF"``, ``"LIFNode"`` and so on, a declaration, or the class itself.

    Raises:
        ValueError, TypeError: it is none of these.
    """
    if isinstance(neuron, type) and issubclass(neuron, BaseNode):
        return neuron
    if isinstance(neuron, type) and issubclass(neuron, Neuron):
        return node(neuron)
    others = "a declared neuron, a class of neurons or a neuron"
    if not isinstance(neuron, str):
        raise TypeError(f"neuron must be a name, {others}, got {type(neuron).__name__}")
    name = neuron.removesuffix("Node")
    if name not in NEURONS:
        raise ValueError(f"neuron must be one of {', '.join(map(repr, NEURONS))}, {others}, got {neuron!r}")
    return NEURONS[name]


def names_neuron(value: Any) -> bool:
    """Whether a value is a declaration, with settings or without, or a class of neurons."""
    return isinstance(value, Neuron) or (isinstance(value, type) and issubclass(value, (BaseNode, Neuron)))


def shared(name: str, one: type[BaseNode], other: type[BaseNode]) -> bool:
    """Whether two classes of neurons have an argument of that name that means the same; the reset does if both reset
    alike by default."""
    if name not in one._arguments.defaults or name not in other._arguments.defaults:
        return False
    if name == "v_reset":
        return resets_softly(one) == resets_softly(other)
    return means_the_same(name, one.neuron, other.neuron)


def meant(name: str, cls: type[BaseNode]) -> bool:
    """Whether a setting for all neurons of a network is one of a class, in which a constant of the same name as one of
    LIF, LLIF or SLIF may be something else."""
    of_the_paper = [c for c in CANDIDATES.values() if name in c._arguments.defaults]
    return name in cls._arguments.defaults and (not of_the_paper or any(shared(name, c, cls) for c in of_the_paper))


def resets_softly(cls: type[BaseNode]) -> bool:
    """Whether a neuron's default is the soft reset."""
    return cls._arguments.defaults.get("v_reset", 0.0) is None


def is_own(cls: type) -> bool:
    """Whether a class of modules does what its declaration says and nothing else: a subclass may do something else
    with its input."""
    own = getattr(cls, "neuron", None) if issubclass(cls, BaseNode) else None
    plain = _nodes.get(own) if own is not None else None
    return plain is not None and cls in (plain, _parametric.get(plain))


def reset_net(model: nn.Module) -> None:
    """Calls ``reset()`` on every layer of a model that carries a neuron's state from call to call: stdano's neurons,
    and what SpikingJelly's own ``reset_net`` is for. Nothing else is reset, metrics and the model itself included."""
    for module in carrying(model):
        module.reset()


def carrying(model: nn.Module) -> Iterator[Any]:
    """The layers of a model that carry a neuron's state from call to call."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, BaseNode) or is_spikingjellys(module, "MemoryModule", *SPIKINGJELLY_NEURONS):
            yield module


def detach_net(model: nn.Module) -> None:
    """Calls ``detach()`` on every layer of a model that :func:`reset_net` resets: the states keep their values and lose
    their history, so that backward stops here. For a sequence that is trained in parts, between one and the next
    (truncated backpropagation through time)."""
    for module in carrying(model):
        module.detach()


@contextmanager
def stateless(model: nn.Module) -> Iterator[None]:
    """Within ``with stdano.stateless(model):`` every call of a neuron begins at rest and leaves no state behind, for a
    network that is trained on whole sequences. The final states are then not written, which at four time steps in half
    precision are a fifth (one state) or a third (two) of forward's traffic. Backward may stand outside. Other layers
    that carry a state are reset on entry.

    Raises:
        ValueError: when a neuron in ``step_mode="s"`` is called, whose state is what goes from step to step.
    """
    nodes = [m for m in model.modules() if isinstance(m, BaseNode)]
    before = [node._stateless for node in nodes]
    reset_net(model)
    try:
        for node in nodes:
            node._stateless = True
        yield
    finally:
        for node, value in zip(nodes, before, strict=True):
            node._stateless = value


SPIKINGJELLY_NEURONS = ("BaseNode", "SimpleBaseNode")


def is_spikingjellys(module: Any, *names: str) -> bool:
    """Whether a module's class is one of SpikingJelly's of these names, or made from one; in any of its versions, and
    without importing it."""
    return any(base.__name__ in names and base.__module__.startswith("spikingjelly.") for base in type(module).__mro__)
