"""What is compiled when the library is built: the neurons that come with it, in the settings that people use."""

from __future__ import annotations

import sys
from pathlib import Path

from ..neurons import NEURONS
from .cpp import namespace_source
from .cuda import DeviceSource, sizes
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
    """What csrc/cuda is compiled with: a source for each neuron, and the sizes of all."""
    plans = {name: device_plans(name) for name in NEURONS}
    out = {"device_sizes.h": sizes([p for of_neuron in plans.values() for p in of_neuron])}
    for name, of_neuron in plans.items():
        text = DeviceSource(of_neuron, doubles=True).text()
        head = '#define STDANO_ISA cuda\n#include "cuda/neuron.h"\n\nnamespace stdano::cuda {\n\n'
        out[f"{name}.cu"] = f"{head}{text}\n}}  // namespace stdano::cuda\n"
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
