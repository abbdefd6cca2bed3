"""What is compiled when the library is built: the neurons that come with it, in the settings that people use."""

from __future__ import annotations

import sys
from pathlib import Path

from ..neurons import NEURONS
from .cpp import namespace_source
from .plan import plan
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
    texts, entries = [], []
    for name in NEURONS:
        for variant in variants(name):
            text, entry = namespace_source(plan(trace(NEURONS[name], variant)), len(entries), floats=True, doubles=False)
            texts.append(text)
            entries.append(entry)
    table = "const NeuronKernels printed[] = {\n    " + ",\n    ".join(entries) + "};\n"
    return "// Written by stdano_kernels/define/shipped.py.\n" + "\n".join(texts) + "\n" + table


def write(folder: Path) -> None:
    """Writes printed.h where it is not there already as it would be."""
    file, text = folder / "printed.h", header()
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
