"""Which neuron in which layer: strings of digits or of names, and the methods of the paper's ablation study."""

from __future__ import annotations

from ..nodes.candidates import ALLOWED, DIGIT_OF, DIGITS, candidate, joined, name_of, names_in
from ..nodes.neurons import NEURONS
from .resnet import BLOCKS, WIDTHS
from .vgg import VGGS

MODELS = (*VGGS, "resnet18")


def num_spiking_layers(model: str) -> int:
    """How many spiking layers a network has: 4 (vgg-small), 8, 10, 13 (vgg11, 13, 16) or 17 (resnet18).

    Raises:
        ValueError: there is no such network.
    """
    check_model(model)
    return 2 * BLOCKS * len(WIDTHS) + 1 if model == "resnet18" else sum(map(len, VGGS[model].blocks))


def check_model(model: str) -> None:
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")


def ablations(model: str) -> dict[str, str]:
    """The methods of the ablation study (section 4.2 of the paper), and the digit string of each.

    LIF, LLIF and SLIF are the same neuron in all layers. LLIF-X and SLIF-X have it in a part of the network, and LIF in
    the others: in VGGs in block X; in ResNet-18 in the blocks 2X - 1 and 2X, so that the 17th layer is always LIF.

    Raises:
        ValueError: there is no such network.
    """
    layers = num_spiking_layers(model)
    parts = [2 * BLOCKS] * len(WIDTHS) if model == "resnet18" else [len(block) for block in VGGS[model].blocks]
    out = {name: digit * layers for name, digit in DIGIT_OF.items()}
    for name in list(DIGIT_OF)[1:]:
        for number, count in enumerate(parts, start=1):
            before = sum(parts[: number - 1])
            out[f"{name}-{number}"] = ("0" * before + DIGIT_OF[name] * count).ljust(layers, "0")
    return out


def neuron_string(model: str, neurons: str) -> str:
    """The string, of a neuron a layer in order of execution, that a name or string stands for: digits (0 LIF, 1 LLIF, 2
    SLIF) where all neurons are the paper's, else their names with commas between them.

    Args:
        model: a network, see :data:`MODELS`.
        neurons: such a string; a method of :func:`ablations` such as ``"LLIF"`` or ``"SLIF-1"``; or the name of a
            neuron for all layers, ``"ALIF"``, ``"LIF(tau=4.0)"`` or ``"mypackage.mymodule:MyNeuron"``.

    Raises:
        ValueError, TypeError: there is no such network, method or neuron, or the string has the wrong length.
    """
    methods, layers = ablations(model), num_spiking_layers(model)
    if neurons in methods:
        return methods[neurons]
    names = names_in(neurons)
    counted = "" if len(names) == 1 else f"{len(names)} {'neurons' if ',' in neurons else 'digits'}, "
    if len(names) == 1 and neurons not in DIGITS:
        names = names * layers
    if len(names) != layers or not all(name in NEURONS or set(name) & set("(:") for name in names):
        raise ValueError(
            f"neurons must be {layers} digits for {model} (0 LIF, 1 LLIF, 2 SLIF), or one of {', '.join(methods)}; or "
            f"for all layers, or for each of them between commas, {ALLOWED}; got {counted}{neurons!r}"
        )
    return joined(name_of(candidate(name)) for name in names)


def layer_neurons(model: str, neurons: str) -> list[str]:
    """The name of each layer's neuron; arguments and errors as for :func:`neuron_string`."""
    return names_in(neuron_string(model, neurons))
