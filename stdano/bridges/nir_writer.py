"""From a traced model to a graph of NIR."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..models.blocks import InputConv2d, SharedDropout, TimeFirst
from ..models.vgg import Halve
from ..nodes.neurons import reset_net
from ..rewrite.dataflow import graph_of
from ..rewrite.folding import Folded
from ..rewrite.inherit import is_spiking
from . import nir_layers, nir_neurons
from .foreign import refuse

_ADDITIONS = ("add", "iadd", "add_")
_RESHAPES = ("flatten", "unflatten", "reshape", "view", "contiguous", "squeeze", "unsqueeze")

Shape = tuple[int, ...]


class _Tracer(fx.Tracer):
    """Looks into the model's own modules, down to torch's, SpikingJelly's and those that have a node."""

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        known = isinstance(m, (InputConv2d, TimeFirst, SharedDropout, Halve, Folded)) or is_spiking(m)
        spikingjellys = type(m).__module__.startswith("spikingjelly.") and not list(m.children())
        return known or spikingjellys or super().is_leaf_module(m, qualified_name)


def _run(model: nn.Module, x: Tensor) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """The graph of a model, and what each node of it gave in one run."""
    try:
        graph = graph_of(model, _Tracer())
    except Exception as error:
        raise ValueError(f"torch.fx cannot trace {type(model).__name__} ({type(error).__name__}: {error})") from error
    values: dict[fx.Node, Any] = {}
    overwritten: list[tuple[fx.Node, fx.Node]] = []  # what by which node

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            versions = {a: values[a]._version for a in n.all_input_nodes if isinstance(values[a], Tensor)}
            values[n] = super().run_node(n)
            overwritten.extend((a, n) for a, version in versions.items() if values[a]._version != version)
            return values[n]

    with torch.no_grad():
        reset_net(model)
        out = Recorder(fx.GraphModule(model, graph), garbage_collect_values=False).run(x.clone())
        reset_net(model)
        _require_same(out, model(x.clone()))
    for a, n in overwritten:
        _require_unread(values, a, n)
    return graph, values


def _require_same(out: Any, expected: Any) -> None:
    """Raises ValueError where the traced model is another one. A GPU may round differently from run to run."""
    if isinstance(out, Tensor) and isinstance(expected, Tensor):
        same = out.shape == expected.shape and torch.isclose(out, expected, 1e-3, 1e-5, equal_nan=True)
        if same is False or (same.numel() and same.float().mean() < 0.99):
            raise ValueError(
                "model must give what torch.fx traces of it, but gives something else; an operation such as "
                "`y += x` is traced as `y = y + x`, which does not change y under its other names"
            )


def _require_unread(values: dict[fx.Node, Any], overwritten: fx.Node, by: fx.Node) -> None:
    """Raises ValueError where a later node than ``by`` reads what it has overwritten, not from it."""
    order = {n: k for k, n in enumerate(values)}
    storage = values[overwritten].untyped_storage()._cdata
    for n, value in values.items():
        shared = order[n] < order[by] and isinstance(value, Tensor) and value.untyped_storage()._cdata == storage
        if shared and any(order[user] > order[by] for user in n.users):
            raise ValueError(f"model must not read {n.name} again after {by.name} has overwritten it")


def _used(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    used: set[fx.Node] = set()
    for n in reversed(graph.nodes):
        if n.op == "output" or n in used:
            used.update(n.all_input_nodes)
    return used


class Writer:
    """Writes a model, which it may change. The nodes have the names of its layers, less the prefix.

    Of each value of the model it knows the nodes whose outputs add up to it, and how many dimensions stand before those
    of a sample: 2 for ``[T, B, ...]``, 1 for ``[T*B, ...]``.
    """

    def __init__(self, nir: Any, model: nn.Module, dt: float, strict: bool, prefix: str) -> None:
        self.nir, self.model, self.dt, self.strict, self.prefix = nir, model, dt, strict, prefix
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.known: dict[fx.Node, tuple[list[str], int]] = {}
        self.neurons: set[nn.Module] = set()

    def write(self, example_input: Tensor) -> Any:
        """The graph; raises ValueError where NIR has no counterpart."""
        graph, self.values = _run(self.model, example_input)
        self.steps: Shape = tuple(example_input.shape[:2])
        used = _used(graph)
        for n in graph.nodes:
            if n.op == "output":
                value = n.args[0]
                if not isinstance(value, fx.Node) or value not in self.known:
                    raise ValueError("model must return one tensor that depends on its input")
                sources, leading = self.known[value]
                self._node("output", self.nir.Output(list(self._shape(value)[leading:])), sources)
            elif isinstance(self.values[n], Tensor) and (n in used or n.op == "placeholder"):
                self._value(n)
        if len(set(self.edges)) < len(self.edges):
            raise ValueError("model adds a value to itself, for which NIR has no edges")
        return self.nir.NIRGraph(nodes=self.nodes, edges=self.edges)

    def _value(self, n: fx.Node) -> None:
        name = getattr(n.target, "__name__", str(n.target))
        if n.op == "placeholder":
            if self.nodes:
                raise ValueError(f"model must have one input, got {name!r} as well")
            self.known[n] = ([self._node("input", self.nir.Input(list(self._shape(n)[2:])), [])], 2)
        elif n.op == "call_module":
            self._layer(n, str(n.target), self.model.get_submodule(str(n.target)))
        elif name in _ADDITIONS and all(a in self.known for a in n.args) and len(n.args) == 2 and not n.kwargs:
            (one, leading), (other, of_other) = (self.known[a] for a in n.args)  # type: ignore[index]
            if leading != of_other or self._shape(n.args[0]) != self._shape(n.args[1]):
                raise ValueError(f"{n.name} must add tensors of one shape, got {[list(map(self._shape, n.args))]}")
            self.known[n] = ([*one, *other], leading)
        elif name in _RESHAPES and n.args and n.args[0] in self.known:
            self._reshaped(n, n.name)
        elif any(a in self.known for a in n.all_input_nodes):
            raise ValueError(f"the function {name} has no counterpart in NIR: it must be a layer that has one")

    def _layer(self, n: fx.Node, name: str, layer: Any) -> None:
        argument = n.args[0] if n.args else None
        if argument not in self.known:
            refuse(name, layer, "its input does not come from the input of the model")
        sources, leading = self.known[argument]  # type: ignore[index]
        if isinstance(layer, (nn.Flatten, nn.Unflatten)):
            return self._reshaped(n, name)
        before, after = self._shape(argument), self._shape(n)
        if before[:leading] != after[:leading] or len(before) == leading:
            refuse(name, layer, f"it does not keep T and B: it makes {list(after)} of {list(before)}")
        into, out = before[leading:], after[leading:]
        if is_spiking(layer):
            node = nir_neurons.node_of(self.nir, name, layer, into, self.dt, self.strict)
            if leading != 2 or layer.step_mode != "m":
                refuse(name, layer, 'it must get [T, B, ...] in step_mode "m"')
            if layer in self.neurons:
                refuse(name, layer, "it runs twice, and a node of NIR has one potential")
            self.neurons.add(layer)
        else:
            node = nir_layers.node_of(self.nir, name, layer, into, out)
        self.known[n] = (sources if node is None else [self._node(name, node, sources)], leading)

    def _reshaped(self, n: fx.Node, name: str) -> None:
        """Merging or splitting T and B is nothing to NIR, which has neither; making a vector of a sample is a node."""
        source: Any = n.args[0]
        sources, leading = self.known[source]
        before, after = self._shape(source), self._shape(n)
        sample, vector = before[leading:], (math.prod(before[leading:]),)
        merged, apart = (math.prod(self.steps),), self.steps
        for kept in (sample, vector):
            for first in (before[:leading], merged, apart):
                if after == (*first, *kept):
                    if kept != sample:
                        node = nir_layers.flattened(self.nir, name, sample, kept)
                        sources = [self._node(name, node, sources)]
                    self.known[n] = (sources, len(first))
                    return
        raise ValueError(
            f"{name} makes {list(after)} of {list(before)}: allowed are merging and splitting of T and B, and one "
            "vector of all other dimensions"
        )

    def _shape(self, n: Any) -> Shape:
        return tuple(self.values[n].shape)

    def _node(self, name: str, node: Any, sources: list[str]) -> str:
        base = key = name.removeprefix(self.prefix).replace(".", "_")
        number = 1
        while key in self.nodes or (
            key in ("input", "output") and not isinstance(node, (self.nir.Input, self.nir.Output))
        ):
            key, number = f"{base}_{number}", number + 1
        self.nodes[key] = node
        self.edges += [(source, key) for source in sources]
        return key
