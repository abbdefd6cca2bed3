"""What is compiled when the library is built: the neurons that come with it, in the settings that people use."""

from __future__ import annotations

import sys
from pathlib import Path

from ..neurons import NEURONS
from .cpp import namespace_source
from .plan import plan
from .trace import Variant, trace


def variants(name: str) -> list[Variant]:
    """The settings of a neuron that have kernels from the start."""
    neuron = NEURONS[name]
    own = "soft" if neuron.constants["v_reset"].default is None else "zero"
    return [Variant(reset=own)]


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
