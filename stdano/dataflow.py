"""Where the outputs of modules go and where their inputs come from: by torch.fx, or by watching one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from .neurons import reset_net

Place = nn.Module | str  # a module of interest, or in words

# They keep the order of values in memory order of the dimensions, so that whoever looks at the shape knows all.
RESHAPES = {"flatten", "unflatten", "view", "reshape", "contiguous", "unsqueeze", "squeeze", "view_as", "reshape_as"}
RESHAPES |= {"Identity", "Flatten", "Unflatten"}
# They read no values. __get__ is what shape, dtype, device and the like are to a run.
_QUESTIONS = {"size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "shape"}
_QUESTIONS |= {"ndim", "dtype", "device", "requires_grad", "layout", "is_cuda", "__len__", "__get__"}


@dataclass
class Flow:
    """For each call of a source, who takes its output; for each call of a sink, who made its input."""

    takers: dict[nn.Module, list[list[Place]]] = field(default_factory=lambda: defaultdict(list))
    makers: dict[nn.Module, list[Place]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, str] = field(default_factory=dict)  # by name, why parts could not be traced


Reshape = Callable[[str, tuple], bool]


def traced(model: nn.Module, of_interest: Callable[[nn.Module], bool], is_reshape: Reshape | None = None) -> Flow:
    """By torch.fx, without a run. Where it cannot trace a module, the largest parts that it can trace count, each on
    the assumption that it is called as a whole.

    Args:
        model: looked into down to its modules of interest.
        of_interest: the modules whose inputs and outputs are told.
        is_reshape: whether a function of that name and arguments only reshapes; default: by its name.
    """
    flow = Flow()
    is_reshape = is_reshape or (lambda name, arguments: name in RESHAPES)
    if of_interest(model):
        return flow
    for prefix, graph in _graphs(model, of_interest, flow.errors):
        modules = {node: model.get_submodule(prefix + str(node.target)) for node in graph.nodes if _is_call(node)}
        for node, module in modules.items():
            if of_interest(module):
                flow.takers[module].append(list(_takers(node, modules, of_interest, is_reshape)))
                flow.makers[module].append(_maker(node, modules, of_interest, is_reshape))
    return flow


def _is_call(node: fx.Node) -> bool:
    return node.op == "call_module"


def _graphs(model: nn.Module, of_interest: Callable, errors: dict[str, str]) -> Iterator[tuple[str, fx.Graph]]:
    """Graphs and the prefixes of their modules' names; the largest ones that can be traced."""
    opaque: set[nn.Module] = set()

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            return of_interest(m) or m in opaque or not any(of_interest(child) for child in m.modules())

    def trace(name: str, module: nn.Module) -> fx.Graph | None:
        try:
            return Tracer().trace(module)
        except Exception as error:
            errors[name] = f"{type(module).__name__}, {str(error).partition(chr(10))[0] or type(error).__name__}"
            return None

    whole = trace("", model)
    if whole is not None:
        yield "", whole
        return
    graphs: dict[str, fx.Graph] = {}
    for name, module in reversed(list(model.named_modules())):  # parts before wholes
        if of_interest(module) or not any(of_interest(child) for child in module.modules()):
            continue
        graph = trace(name, module)
        if graph is None:
            opaque.add(module)
        else:
            graphs[name] = graph
    for name, graph in graphs.items():
        if not name or model.get_submodule(name.rpartition(".")[0]) in opaque:
            yield name and f"{name}.", graph


def _name(node: fx.Node, modules: dict[fx.Node, nn.Module]) -> str:
    if node.op == "call_module":
        return type(modules[node]).__name__
    if node.op == "call_function":
        name = getattr(node.target, "__name__", str(node.target))
        return str(node.args[1]) if name == "getattr" else name
    if node.op == "output":
        return "the output of what holds it"
    return "the input of what holds it" if node.op == "placeholder" else str(node.target)


def _takers(node: fx.Node, modules: dict, of_interest: Callable, is_reshape: Reshape) -> Iterator[Place]:
    for user in node.users:
        name = _name(user, modules)
        if name in _QUESTIONS or (name in RESHAPES and user.args[:1] != (node,)):  # view_as looks at its second
            continue
        if user.op == "call_module" and of_interest(modules[user]):
            yield modules[user]
        elif user.op != "output" and is_reshape(name, user.args):
            yield from _takers(user, modules, of_interest, is_reshape)
        else:
            yield name


def _maker(node: fx.Node, modules: dict, of_interest: Callable, is_reshape: Reshape) -> Place:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return "a keyword argument" if node.kwargs else "a constant"
    if source.op == "call_module" and of_interest(modules[source]):
        return modules[source]
    name = _name(source, modules)
    if source.op != "placeholder" and is_reshape(name, source.args):
        return _maker(source, modules, of_interest, is_reshape)
    return name


def watched(model: nn.Module, of_interest: Callable[[nn.Module], bool], example_input: Any) -> Flow:
    """By one run in eval mode without gradients, in which every torch function is seen. Neurons are reset around it."""
    recorder = _Recorder()
    modules = {module for module in model.modules() if of_interest(module)}
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.leave))
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()  # statistics of normalisation layers must not see the example
        reset_net(model)
        with torch.no_grad(), recorder:
            out = model(*example_input) if isinstance(example_input, tuple) else model(example_input)
            recorder.take(out, "the output of the model")
    finally:
        for module, mode in training.items():
            module.training = mode
        for handle in handles:
            handle.remove()
        reset_net(model)
    return recorder.flow


class _Recorder(TorchFunctionMode):
    """Follows the outputs of modules of interest through functions that only reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.inside = 0
        # Tensors are kept, so that no other can get the id of one.
        self.followed: dict[int, tuple[Tensor, nn.Module, list[Place]]] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.inside:
            return out
        name = getattr(func, "__name__", str(func))
        if name in _QUESTIONS and not isinstance(out, Tensor):
            return out
        if name in RESHAPES and isinstance(out, Tensor):
            if args and id(args[0]) in self.followed:
                self.followed[id(out)] = (out, *self.followed[id(args[0])][1:])
            return out
        self.take((args, kwargs), name)
        return out

    def take(self, values: Any, by: Place) -> None:
        for value in _tensors(values):
            if id(value) in self.followed:
                self.followed[id(value)][2].append(by)

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.take((args, kwargs), module)
        x = next(_tensors((args, kwargs)), None)
        known = self.followed.get(id(x))
        self.flow.makers[module].append(known[1] if known else "elsewhere")
        self.inside += 1

    def leave(self, module: nn.Module, args: tuple, out: Any) -> None:
        self.inside -= 1
        takers: list[Place] = []
        self.flow.takers[module].append(takers)
        if isinstance(out, Tensor):
            self.followed[id(out)] = (out, module, takers)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
