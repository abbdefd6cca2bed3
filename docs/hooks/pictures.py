"""Draws the pictures of the documentation with the library itself, into docs/pictures.

python docs/hooks/pictures.py                    # the neurons over time
python docs/hooks/pictures.py --search FOLDER    # and the search in a folder that stdano demo or search has written
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from stdano.analysis import Dynamics, dynamics
from stdano.pictures.dynamics import traces
from stdano.pictures.style import save
from stdano_kernels.neurons import NEURONS

PICTURES = Path(__file__).parent.parent / "pictures"
# Steady input, inhibition, steady again, strong, weak: in each part some neuron does what LIF does not.
STEPS = [0.55] * 10 + [-0.7] * 5 + [0.55] * 10 + [2.2] * 5 + [0.3] * 10
# What makes the difference to LIF large enough to be seen; else the defaults.
SETTINGS = {
    "LLIF": dict(gamma=0.5),
    "SLIF": dict(beta=0.8),
    "ALIF": dict(kappa=0.4),
}


def seen(neuron: str, without: tuple[str, ...] = ("theta",)) -> Dynamics:
    """A neuron on that input, without some of its states. LLIF's theta is drawn as the threshold already."""
    x = torch.tensor(STEPS)[:, None]
    found = dynamics(neuron, 0.4 * x if neuron == "CubaLIF" else x, **SETTINGS.get(neuron, {}))
    return replace(found, values={name: value for name, value in found.values.items() if name not in without})


def draw(folder: Path = PICTURES) -> list[Path]:
    """Draws every neuron that comes with the library, and the paper's three together.

    Returns:
        The files.
    """
    folder.mkdir(exist_ok=True)
    names = [neuron.__name__ for neuron in NEURONS.values()]
    pictures = {name.lower(): {label(name): seen(name)} for name in names}
    pictures["neurons"] = {label(name): seen(name, ("theta", "p")) for name in ("LIF", "LLIF", "SLIF")}
    for name, neurons in pictures.items():
        save(traces(neurons), folder / f"{name}.png")
    return [folder / f"{name}.png" for name in pictures]


def label(neuron: str) -> str:
    """A neuron with the settings that it is drawn with."""
    settings = ", ".join(f"{name}={value}" for name, value in SETTINGS.get(neuron, {}).items())
    return f"{neuron}({settings})" if settings else neuron


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, help="a run's folder, with alphas.png somewhere in it")
    given = parser.parse_args()
    for file in draw():
        print(file)
    if given.search is not None:
        (alphas,) = given.search.rglob("alphas.png")
        print(shutil.copy(alphas, PICTURES / "search.png"))
