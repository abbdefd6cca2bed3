"""Where the outputs of modules go and where their inputs come from: by torch.fx, or by watching one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from ..nodes.neurons import reset_net

Place = nn.Module | str  # a module of interest, or in words

# They keep the order of values in memory order of the dimensions, so that whoever looks at the shape knows all.
RESHAPES = {"flatten", "unflatten", "view", "reshape", "contiguous", "unsqueeze", "squeeze", "view_as", "reshape_as"}
RESHAPES |= {"Identity", "Flatten", "Unflatten"}
# They read no values. __get__ is what shape, dtype, device and the like are to a run.
_QUESTIONS = {"size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "shape"}
_QUESTIONS |= {"ndim", "dtype", "device", "requires_grad", "layout", "is_cuda", "__len__", "__get__"}


@dataclass
class Flow:
    """For each call of a source, who takes its output; for each call of a sink, who made its input. All calls in order.
    A run also tells the shapes of each output and of what a sink got of it."""

    takers: dict[nn.Module, list[list[Place]]] = field(default_factory=lambda: defaultdict(list))
    makers: dict[nn.Module, list[Place]] = field(default_factory=lambda: defaultdict(list))
    calls: list[nn.Module] = field(default_factory=list)
    shapes: dict[nn.Module, list[tuple[torch.Size, torch.Size]]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, str] = field(default_factory=dict)  # by name, why parts could not be traced


Reshape = Callable[[str, tuple[Any, ...]], bool]


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
                flow.calls.append(module)
                flow.takers[module].append(list(_takers(node, modules, of_interest, is_reshape)))
                flow.makers[module].append(_maker(node, modules, of_interest, is_reshape))
    return flow


def _is_call(node: fx.Node) -> bool:
    return node.op == "call_module"


def _graphs(
    model: nn.Module, of_interest: Callable[..., Any], errors: dict[str, str]
) -> Iterator[tuple[str, fx.Graph]]:
    """Graphs and the prefixes of their modules' names; the largest ones that can be traced."""
    opaque: set[nn.Module] = set()

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            return of_interest(m) or m in opaque or not any(of_interest(child) for child in m.modules())

    def trace(name: str, module: nn.Module) -> fx.Graph | None:
        try:
            return graph_of(module, Tracer())
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


def graph_of(model: nn.Module, tracer: fx.Tracer) -> fx.Graph:
    """A model's graph; "kept" in the nodes' ``meta`` lists the attributes that forward keeps their values in. The model
    is left as it was."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        graph = tracer.trace(model)
        for name, module in model.named_modules():
            for attribute, value in vars(module).items():
                for proxy in _all_of(fx.Proxy, value):
                    proxy.node.meta.setdefault("kept", []).append(_attribute(name, attribute))
        return graph
    finally:
        for module, attributes in before:  # a forward that keeps tensors has kept symbols
            vars(module).clear()
            vars(module).update(attributes)


def _attribute(module: str, attribute: str) -> str:
    return f"the attribute {module}{'.' if module else ''}{attribute}"


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call works on, whether it is passed by position or by name."""
    return args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))


def _name(node: fx.Node, modules: dict[fx.Node, nn.Module]) -> str:
    if node.op == "call_module":
        return type(modules[node]).__name__
    if node.op == "call_function":
        name = getattr(node.target, "__name__", str(node.target))
        return str(node.args[1]) if name == "getattr" else name
    if node.op == "output":
        return "the output of what holds it"
    return "the input of what holds it" if node.op == "placeholder" else str(node.target)


def _takers(
    node: fx.Node, modules: dict[fx.Node, nn.Module], of_interest: Callable[..., Any], is_reshape: Reshape
) -> Iterator[Place]:
    yield from node.meta.get("kept", ())
    for user in node.users:
        name = _name(user, modules)
        if name in _QUESTIONS or (
            name in RESHAPES and first_argument(user.args, user.kwargs) is not node
        ):  # view_as(_, this)
            continue
        if user.op == "call_module" and of_interest(modules[user]):
            yield modules[user]
        elif user.op != "output" and is_reshape(name, user.args):
            yield from _takers(user, modules, of_interest, is_reshape)
        else:
            yield name


def _maker(
    node: fx.Node, modules: dict[fx.Node, nn.Module], of_interest: Callable[..., Any], is_reshape: Reshape
) -> Place:
    source = first_argument(node.args, node.kwargs)
    if not isinstance(source, fx.Node):
        return "a constant"
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
            for name, module in model.named_modules():
                for attribute, value in vars(module).items():
                    recorder.take(value, _attribute(name, attribute))
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
        self.followed: dict[int, tuple[Tensor, nn.Module, torch.Size, list[Place]]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.inside:
            return out
        name = getattr(func, "__name__", str(func))
        if name in _QUESTIONS and not isinstance(out, Tensor):
            return out
        if name in RESHAPES and isinstance(out, Tensor):
            known = self.followed.get(id(first_argument(args, kwargs or {})))
            if known:
                self.followed[id(out)] = (out, *known[1:])
            return out
        self.take((args, kwargs), name)
        return out

    def take(self, values: Any, by: Place) -> None:
        for value in _all_of(Tensor, values):
            if id(value) in self.followed:
                self.followed[id(value)][3].append(by)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.take((args, kwargs), module)
        x = next(_all_of(Tensor, (args, kwargs)), None)
        known = self.followed.get(id(x))
        self.flow.calls.append(module)
        self.flow.makers[module].append(known[1] if known else "elsewhere")
        if x is not None and known:
            self.flow.shapes[module].append((known[2], x.shape))
        self.inside += 1

    def leave(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        self.inside -= 1
        takers: list[Place] = []
        self.flow.takers[module].append(takers)
        if isinstance(out, Tensor):
            self.followed[id(out)] = (out, module, out.shape, takers)


def _all_of(kind: type, values: Any) -> Iterator[Any]:
    """The values of a kind in nested containers."""
    return (value for _, value in contents(values) if isinstance(value, kind))


def contents(value: Any, of: Any = None, seen: tuple[int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """What stands in nested lists, tuples, sets and dicts, each with its container; a value that is none of these
    stands alone, in None."""
    if not isinstance(value, (list, tuple, set, dict)):
        yield of, value
    elif id(value) not in seen:
        for inside in value.values() if isinstance(value, dict) else value:
            yield from contents(inside, value, (*seen, id(value)))
