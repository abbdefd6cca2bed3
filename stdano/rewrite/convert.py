"""Swaps the spiking layers of an existing model, SpikingJelly's included, for stdano's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from stdano_kernels import Neuron

from ..nodes.base import BaseNode
from ..nodes.candidates import ALLOWED, DIGITS, candidate, names_in, settings_of
from ..nodes.link import is_patched
from ..nodes.neurons import class_of, is_own, names_neuron, reset_net
from ..nodes.normalised import hand_on
from .dataflow import first_argument, graph_of
from .inherit import check_known, is_spiking, kind_of, require_layers, spiking_layers, successor
from .swap import require_reachable, swap

Replacement = str | Neuron | type[Neuron] | type[BaseNode] | Callable[[nn.Module], nn.Module]


def convert(
    model: nn.Module,
    neurons: Replacement | Mapping[str, Replacement],
    *,
    example_input: Tensor | None = None,
    **settings: Any,
) -> nn.Module:
    """Replaces the spiking layers of a model, in place.

    Args:
        model: any module with spiking layers: stdano's nodes and super neurons, or SpikingJelly's
            (``neuron.BaseNode``).
        neurons: what to put in:
            ``"LIF"``, ``"LLIF"``, ``"SLIF"``, ``"IF"``, ``"ALIF"`` and so on, a declared neuron
            (:class:`stdano_kernels.Neuron`), also by its name (``"mypackage.mymodule:MyNeuron"``), each also with
            settings of its own (``"LIF(tau=4.0)"``), or a class of neurons (``LLIFNode``): that neuron everywhere;
            a string of digits such as ``"20002000"``: one a layer, in order of execution (0 LIF, 1 LLIF, 2 SLIF); or
            such names between commas, ``"LIF, LIF(tau=4.0), LLIF"``;
            a function of the old layer that returns the new one;
            a mapping from the kind of the old layer (``"LIF"``, or its class name such as ``"IFNode"``) to one of
            the former; kinds that it does not name stay as they are.
        example_input: an input for one forward call (without gradients) that tells the order of execution. Needed
            for a string with a neuron a layer alone, and there only if ``torch.fx`` cannot trace the model.
        settings: arguments for the new layers (``tau=1.1, decay="exp"``), which override what they inherit.

    New layers inherit the settings of the old ones, SpikingJelly's linear decay included. An IFNode becomes a neuron
    with ``tau=inf``, which does not leak; SLIF needs a finite tau then. A time constant that the old layer learns stays
    learned: a ParametricLIFNode becomes one of stdano (:class:`stdano.ParametricLIFNode`, or its like of another
    neuron) with the same parameter ``w``, unless ``tau`` is given. The reset is inherited between neurons that reset in
    the same way by default, as LIF and LLIF do; a layer that turns into SLIF, whose default is the soft reset, or was
    SLIF, gets its default reset unless ``v_reset`` is given. What takes the place of a super
    neuron has the settings that it had in there. A neuron that is fused with its norm (:func:`stdano.fuse`) hands the
    norm on to the new one. Forward and backward hooks of an old layer move to the new one.

    A layer that no neuron of stdano expresses (a subclass, SpikingJelly's QIFNode and others, an instance with a
    ``forward`` of its own) is replaced only where a mapping names it, with a warning that says what is lost, or by a
    function.

    Returns:
        The model; a new layer if the model is itself a spiking layer.

    Raises:
        ValueError: no spiking layers, an unknown neuron, a string of the wrong length, an order that cannot be told,
            a layer without counterpart or without a tau that serves, one that the model also holds in a plain list,
            tuple or dict (which would go on to hold the old one), or a fused neuron that something else than a neuron
            of stdano is to replace. Nothing has changed then.
    """
    layers = spiking_layers(model)
    require_layers(model, layers)
    names = names_in(neurons) if isinstance(neurons, str) else []
    if len(names) > 1 or (names and neurons in DIGITS):
        order = execution_order(model, example_input)
        if len(names) != len(order):
            raise ValueError(
                f"neurons must have one for each of {len(order)} spiking layers, "
                f"{', '.join(name for name, _ in order)}; got {len(names)}, {neurons!r}"
            )
        chosen: dict[nn.Module, Replacement] = {layer: n for (_, layer), n in zip(order, names, strict=True)}
    elif isinstance(neurons, Mapping):
        _check_mapping(neurons, layers)
        chosen = {}
        for layer in layers.values():
            for kind in (kind_of(layer), type(layer).__name__):
                if kind in neurons:
                    chosen[layer] = neurons[kind]
    else:
        chosen = dict.fromkeys(layers.values(), neurons)
    chosen = {layer: candidate(how) if isinstance(how, str) else how for layer, how in chosen.items()}
    called_by = {layer: name for name, layer in layers.items()}
    by_name = {called_by[layer]: layer for layer, how in chosen.items() if names_neuron(how)}
    check_known(by_name, explicitly=isinstance(neurons, Mapping))
    require_reachable(model, layers, chosen, is_spiking)
    new = {old: _replace(called_by[old], old, how, settings) for old, how in chosen.items()}
    _hand_links_on(list(new.items()))
    return swap(model, new)


def execution_order(model: nn.Module, example_input: Tensor | None = None) -> list[tuple[str, nn.Module]]:
    """Names and spiking layers in the order in which forward runs them, each where it first runs."""
    layers = spiking_layers(model)
    names: list[str] = []
    if example_input is None:
        names = _trace(model)
    else:
        run_layers(model, layers, example_input, lambda name, _: names.append(name))
    order = list(dict.fromkeys(names))
    missing = [name for name in layers if name not in order]
    if missing:
        raise ValueError(f"the order of execution is unknown for layers that forward does not run: {missing}")
    return [(name, layers[name]) for name in order]


def _trace(model: nn.Module) -> list[str]:
    if is_spiking(model):
        return [""]

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            return not any(is_spiking(child) for child in m.modules() if child is not m)

    try:
        graph = graph_of(model, Tracer())
    except Exception as error:
        raise ValueError(
            f"example_input must be given: torch.fx cannot trace {type(model).__name__} to tell the order of its "
            f"spiking layers ({type(error).__name__}: {error})"
        ) from error
    names = {module: name for name, module in spiking_layers(model).items()}
    run = [model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"]
    return [names[module] for module in run if module in names]


def run_layers(
    model: nn.Module, layers: dict[str, nn.Module], example_input: Tensor, seen: Callable[[str, Tensor], None]
) -> None:
    """One forward call that tells ``seen`` the name and input of each layer as it runs. Neurons are reset around it;
    the rest of the model is left as it was."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda module, args, kwargs: seen(name, first_argument(args, kwargs))

    handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()  # statistics of normalisation layers must not see the example
        reset_net(model)
        with torch.no_grad():
            model(example_input)
    finally:
        for module, mode in modes:
            module.training = mode
        for handle in handles:
            handle.remove()
        reset_net(model)


def _check_mapping(neurons: Mapping[str, Replacement], layers: dict[str, nn.Module]) -> None:
    known = {kind_of(layer) for layer in layers.values()} | {type(layer).__name__ for layer in layers.values()}
    unknown = [key for key in neurons if key not in known]
    if unknown:
        raise ValueError(f"neurons must map from kinds that the model has, {sorted(known)}; got {unknown}")


def _replace(name: str, old: nn.Module, how: Any, settings: dict[str, Any]) -> nn.Module:
    if isinstance(how, Neuron):
        return successor(name, old, class_of(type(how)), {**settings, **settings_of(how)})
    if names_neuron(how):
        return successor(name, old, class_of(how), settings)
    if not callable(how):
        raise ValueError(f"neurons must be {ALLOWED}, a declared neuron, a class of neurons or a function, got {how!r}")
    return how(old)


def _hand_links_on(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """What was fused with a norm stays so; all pairs are checked before any is changed."""
    fused = [(old, new) for old, new in pairs if isinstance(old, BaseNode) and old._link is not None and new is not old]
    for old, new in fused:
        if not is_own(type(new)) or is_patched(new):
            raise ValueError(
                f"a {type(old).__name__} that is fused with its norm can only become one of stdano's own neurons, not "
                f"a {type(new).__name__} of {type(new).__module__}: call unfuse() first"
            )
    if len({id(new) for _, new in fused}) < len(fused) or any(new._link is not None for _, new in fused):
        raise ValueError("each neuron that is fused with a norm must become another one without a norm; unfuse() first")
    for old, new in fused:
        assert isinstance(old, BaseNode) and isinstance(new, BaseNode)
        hand_on(old, new)
