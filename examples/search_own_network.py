"""The neuron search on your own network, and two ways to continue with the neurons that it finds.

    python examples/search_own_network.py
    python examples/search_own_network.py --fast

Any module from [T, B, C, H, W] to logits [T, B, classes] will do. The search makes its spiking layers super neurons and
writes the result to FOLDER/search. A network with the neurons found is then trained in two ways: from the weights
of the search, and from scratch. Here the search finds LIF(tau=4.0) for every layer. The test accuracy is 0.96 with
super neurons, 0.97 tuned from the weights of the search, and 0.96 trained from scratch (2 CPU cores). Needs stdano's
extra [app].
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

import stdano
from stdano.models import merged
from stdano.search import search
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import train


class Block(nn.Module):
    """Convolution, BatchNorm and a neuron, with the input added to the result."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.neuron = stdano.LIFNode(tau=1.5)

    def forward(self, x):
        return x + self.neuron(merged(self.conv, x))  # merged: T and B are one dimension inside


class Network(nn.Module):
    """Digits of 8 x 8 pixels to ten classes, with three spiking layers."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.neuron = stdano.LIFNode(tau=1.5)
        self.blocks = nn.Sequential(Block(channels), Block(channels))
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 10))

    def forward(self, x):
        x = self.neuron(merged(self.stem, x))
        return merged(self.head, self.blocks(x))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="fewer channels and one epoch of everything")
    parser.add_argument("--folder", type=Path, help="new or empty, for the results; default: a temporary one")
    options = parser.parse_args(argv)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="stdano-"))
    channels, T, epochs, batch_size = (4, 2, 1, 256) if options.fast else (16, 4, 3, 64)
    common = dict(data="digits", T=T, epochs=epochs, batch_size=batch_size, accelerator="cpu")
    torch.manual_seed(0)

    candidates = ("LIF", "LIF(tau=4.0)", "LLIF", "ALIF")
    settings = replace(SearchSettings(), **common, candidates=candidates, alpha_lr=0.02)
    net = Network(channels)
    found = search(settings, folder / "search", model=net)
    for layer, shares in zip(found.layers, found.weights, strict=True):
        print(layer, {name: round(share, 2) for name, share in zip(found.candidates, shares, strict=True)})
    print(f"found: {found.neurons}; accuracy with super neurons {found.test_accuracy:.3f}")

    # One way: every super neuron becomes the neuron that it chose, and training continues with the weights.
    stdano.convert(net, {"SuperNeuron": lambda layer: layer.node()})
    stdano.fuse(net)
    tuned = train(replace(TrainSettings(), **common, lr=0.02), folder / "tuned", model=net)
    print(f"tuned from the search: accuracy {tuned.last['test_accuracy']:.3f}")

    # The other way, that of the paper: a new network with the neurons found.
    fresh = stdano.convert(Network(channels), found.neurons)
    stdano.fuse(fresh)
    trained = train(replace(TrainSettings(), **common), folder / "trained", model=fresh)
    print(f"trained from scratch: accuracy {trained.last['test_accuracy']:.3f}")
    print(f"all of it is in {folder}")


if __name__ == "__main__":
    main()
