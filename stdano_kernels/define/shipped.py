"""What is compiled when the library is built: the neurons that come with it, in the settings that people use."""

from __future__ import annotations

import sys
from pathlib import Path

from ..neurons import NEURONS
from .cpp import namespace_source
from .cuda import DeviceSource, sizes, super_neuron_kernels
from .plan import Plan, plan
from .surrogates import SHAPES
from .trace import Variant, trace

# Besides each neuron's own reset with the triangle. SpikingJelly's users know the sigmoid and the arctangent.
_MORE: dict[str, list[Variant]] = {
    "lif": [
        Variant("soft"),
        Variant(surrogate="sigmoid"),
        Variant(surrogate="atan"),
        Variant(options=(("detach_reset", True),)),
    ],
    "llif": [Variant("soft")],
    "slif": [Variant("zero")],
}

# In how many sources the neurons are compiled for CUDA: each costs the compiler two seconds before its first kernel.
DEVICE_FILES = 4

# The super neuron whose neurons have CUDA kernels together, each with its own reset.
_TOGETHER = ("lif", "llif", "slif")


def variants(name: str) -> list[Variant]:
    """The settings of a neuron that have kernels from the start; others are compiled at their first use."""
    own = "soft" if NEURONS[name].constants["v_reset"].default is None else "zero"
    return [Variant(own), *_MORE.get(name, [])]


def header() -> str:
    """printed.h of csrc/cpu: every neuron in a namespace of its own, and a table of them."""
    texts: list[str] = []
    entries: list[str] = []
    for name in NEURONS:
        for variant in variants(name):
            text, entry = namespace_source(
                plan(trace(NEURONS[name], variant)), len(entries), floats=True, doubles=False
            )
            texts.append(text)
            entries.append(entry)
    table = "const NeuronKernels printed[] = {\n    " + ",\n    ".join(entries) + "};\n"
    return "// Written by stdano_kernels/define/shipped.py.\n" + "\n".join(texts) + "\n" + table


def device_plans(name: str) -> list[Plan]:
    """The settings of a neuron that have CUDA kernels: those above with every surrogate, which cost little here because
    they share the kernels. Triton serves the others."""
    of_cpu = dict.fromkeys((v.reset, v.options) for v in variants(name))
    return [plan(trace(NEURONS[name], Variant(*own, surrogate))) for own in of_cpu for surrogate in SHAPES]


def device_files() -> dict[str, str]:
    """What csrc/cuda is compiled with: the neurons in DEVICE_FILES sources, and what their arguments have room for."""
    plans = {name: device_plans(name) for name in NEURONS}
    texts = [source.structs() + source.kernels(doubles=True) for source in map(DeviceSource, plans.values())]
    # The first settings are a neuron's own, with every surrogate.
    together = [DeviceSource(plans[name][: len(SHAPES)]) for name in _TOGETHER]
    structs = "".join(n.structs() for n in together)
    texts.append(f"namespace together {{\n{structs}{super_neuron_kernels(together)}}}\n")
    out = {"device_sizes.h": sizes([p for of in plans.values() for p in of], [plans[name][0] for name in _TOGETHER])}
    for k in range(DEVICE_FILES):
        text = "\n".join(texts[k::DEVICE_FILES])
        out[f"neurons{k}.cu"] = (
            f'#define STDANO_ISA cuda\n#include "cuda/neuron.h"\n\nnamespace stdano::cuda {{\n\n{text}\n}}\n'
        )
    return out


def write(folder: Path) -> None:
    """Writes what the compilers are given where it is not there already as it would be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"printed.h": header(), **device_files()}.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
