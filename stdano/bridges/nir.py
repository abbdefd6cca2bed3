"""To and from NIR, the interchange format of libraries and chips for spiking networks (package ``nir``)."""

from __future__ import annotations

import copy
import math
import os
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from torch import Tensor, nn

from ..models.blocks import merged
from ..rewrite.folding import fuse_conv_bn
from ..rewrite.fusion import unfuse
from ..rewrite.inherit import called
from . import nir_layers, nir_neurons
from .nir_writer import Writer

_NEURONS = ("IF", "LIF", "CubaLIF")


def to_nir(model: nn.Module, example_input: Tensor, *, dt: float = 1e-4, strict: bool = True) -> Any:
    """A model as a graph of NIR, which ``nir.write(path, graph)`` puts into a file.

    ``LIFNode``, ``ParametricLIFNode`` (with its present tau), ``IFNode`` and ``CubaLIFNode`` become LIF, IF and
    CubaLIF, with what Euler steps of dt need to give the same spikes: ``tau = n*dt`` for a linear decay with n time
    steps, and ``n = 1/(1 - exp(-1/tau))`` for an exponential one; ``r = n`` (with ``decay_input`` n/tau), for IF
    ``r = 1/dt``; ``v_leak = v_reset``. This is what SpikingJelly, Norse and, for a v_reset of 0, snnTorch (LIF and
    CubaLIF) read, with dt = 1e-4.

    Each such node's ``metadata["stdano"]`` has the settings themselves, from which :func:`from_nir` makes exactly the
    same neuron: ``neuron``, ``reset`` ("hard" or "soft"), ``tau``, ``tau_syn``, ``v_threshold``, ``v_reset``,
    ``decay``, ``decay_input``, ``surrogate_function``, ``alpha``, ``detach_reset``.

    Linear layers, convolutions (1d, 2d), average and sum pooling and flattening have nodes too, torch's as well as
    SpikingJelly's. Norms are folded into the layer in front of them (:func:`stdano.fuse_conv_bn`), others become
    convolutions of 1 x 1. Where values are added, two edges end in a node. Dropout is left out.

    Args:
        model: in eval mode if it has norms or dropout. ``torch.fx`` must be able to trace it. It stays as it is.
        example_input: ``[T, B, ...]``; shapes of maps are taken from it.
        dt: length of a time step in seconds.
        strict: refuses what NIR's nodes cannot say; False writes the soft reset too, as metadata, which other readers
            ignore.

    Returns:
        An ``nir.NIRGraph``.

    Raises:
        ImportError: the package nir is not installed.
        ValueError: the model cannot be traced, has forward hooks or other dtypes than float32, or has a layer or a
            function without counterpart, which is named with the reason.
    """
    nir = _package()
    _check_dt(dt)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(example_input, Tensor) or example_input.dim() < 3:
        got = list(example_input.shape) if isinstance(example_input, Tensor) else type(example_input).__name__
        raise ValueError(f"example_input must be a tensor [T, B, ...], got {got}")
    other = {t.dtype for t in (example_input, *model.parameters())} - {torch.float32}
    if other:
        kinds = ", ".join(sorted(map(str, other)))
        raise ValueError(f"model and example_input must be float32, as from_nir's layers are, got {kinds}")
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"model must have no forward hooks, which NIR cannot hold, got one of {called(name, module)}"
            )
    training = [name for name, m in model.named_modules() if m.training and nir_layers.differs_in_training(m)]
    if training:
        raise ValueError(f"model must be in eval mode, but in training mode are {', '.join(training[:5])}")
    whole = nn.Sequential(model) if not list(model.children()) else model  # a layer by itself is not looked into
    folded = unfuse(fuse_conv_bn(copy.deepcopy(whole).eval()))
    prefix = "layers." if isinstance(model, NIRModel) else ""  # names stay what they were in the graph it comes from
    return Writer(nir, folded, dt, strict, prefix).write(example_input)


def from_nir(graph: Any, *, dt: float = 1e-4, **settings: Any) -> nn.Module:
    """The model of a graph of NIR: a module from ``[T, B, ...]`` to ``[T, B, ...]``.

    LIF, IF and CubaLIF become ``LIFNode`` and ``CubaLIFNode`` with ``decay="linear"`` and ``IFNode``, which do what
    Euler steps of dt do. Where ``r`` and ``w_in`` multiply the input by another number than 1 (or 1/tau, for which
    there is ``decay_input``), threshold and reset are divided by it instead, which gives the same spikes. What
    :func:`to_nir` has written comes back exactly.

    Args:
        graph: an ``nir.NIRGraph``, or the path of a file that ``nir.write`` has written. It has one input and one
            output, and no cycle.
        dt: length of a time step in seconds. Some libraries write time constants in time steps: sinabs, ``dt=1``.
        settings: arguments of all neurons, which override what the file says, such as ``surrogate_function``.

    Returns:
        A :class:`NIRModel`, whose ``layers`` have the nodes' names.

    Raises:
        ImportError: the package nir is not installed.
        ValueError: the graph has a node or an edge without counterpart, which is named with the reason.
    """
    nir = _package()
    _check_dt(dt)
    if isinstance(graph, (str, os.PathLike)):
        graph = nir.read(os.fspath(graph))
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph must be an nir.NIRGraph or the path of a file, got {type(graph).__name__}")
    return NIRModel(nir, graph, dt, settings)


class NIRModel(nn.Module):
    """What :func:`stdano.from_nir` returns: the nodes' layers, and which gets the outputs of which."""

    def __init__(self, nir: Any, graph: Any, dt: float, settings: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            if source not in graph.nodes or target not in graph.nodes:
                raise ValueError(f"the edge from {source!r} to {target!r} must join nodes of the graph")
            sources[target].append(source)
        kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
        for kind in ("Input", "Output"):
            if list(kinds.values()).count(kind) != 1:
                raise ValueError(f"graph must have one {kind}, got {list(kinds.values()).count(kind)}")
        try:
            order = list(TopologicalSorter(sources).static_order())
        except CycleError as error:
            raise ValueError(f"graph must have no cycle, got {' -> '.join(error.args[1])}") from error
        self.steps: list[tuple[str, str | None, list[str]]] = []  # name of a value, layer, names of what is added
        for name in order:
            node, kind = graph.nodes[name], kinds[name]
            if kind != "Input" and not sources[name]:
                raise ValueError(f"node {name!r} ({kind}) has no input")
            if kind == "Input":
                self.input = name
            elif kind == "Output":
                self.steps.append((name, None, sources[name]))
                self.output = name
            else:
                key = self._key(name)
                self.layers[key] = self._layer(nir, name, node, dt, settings)
                self.steps.append((name, key, sources[name]))

    def _key(self, name: str) -> str:
        key = name.replace(".", "_") or "_"
        while key in self.layers or hasattr(self.layers, key):
            key += "_"
        return key

    @staticmethod
    def _layer(nir: Any, name: str, node: Any, dt: float, settings: dict[str, Any]) -> nn.Module:
        if isinstance(node, nir.NIRGraph):
            return NIRModel(nir, node, dt, settings)
        if type(node).__name__ in _NEURONS:
            return nir_neurons.neuron_of(nir, name, node, dt, settings)
        return nir_layers.layer_of(name, node)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, ...]`` for ``[T, B, ...]``."""
        values = {self.input: x}
        for name, key, sources in self.steps:
            value = values[sources[0]]
            for source in sources[1:]:
                value = value + values[source]
            if key is not None:
                layer = self.layers[key]
                value = merged(layer, value) if isinstance(layer, nir_layers.TIMELESS) else layer(value)
            values[name] = value
        return values[self.output]


def _package() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR needs the package nir: pip install 'stdano[bridges]'") from error
    return nir


def _check_dt(dt: float) -> None:
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be a finite number of seconds above 0, got {dt!r}")
