"""A neuron of your own: declared in a dozen lines, checked, and trained on N-MNIST, recordings of an event camera.

    python examples/own_neuron_nmnist.py --root data
    python examples/own_neuron_nmnist.py --root data --epochs 1 --channels 4

ROOT, ROOT/nmnist or ROOT/NMNIST holds Train/0/*.bin to Test/9/*.bin. If these files are not there, tonic downloads them
(pip install 'stdano[events]'). A part of the recordings is enough. Needs stdano's extra [app].
The program prints the report of the check, and then each epoch. With 600 recordings the test accuracy on 100 others is
0.86 after five epochs, and kappa, which began at 0.20, is between -0.9 and 0.2 (2 CPU cores).
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

import stdano
from stdano.models import merged
from stdano.settings import TrainSettings, replace
from stdano.training import train
from stdano_kernels import Constant, Neuron, State, check
from stdano_kernels.define import spike


class TiringLIF(Neuron):
    """LIF that tires: each spike charges a current, which then inhibits the neuron and decays with tau_tired."""

    v = State()
    w = State(0.0)
    tau_tired = Constant(5.0, above=0.0, doc="of the inhibiting current, in time steps")
    kappa = Constant(0.2, doc="what a spike adds to the current")

    def step(n, x, v, w):
        h = n.charge(x - w, v)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), n.decay(n.tau_tired) * w + n.kappa * s


TiringLIFNode = stdano.node(TiringLIF)


class Network(nn.Module):
    """Frames [T, B, 2, 34, 34] to logits [T, B, 10]; each channel learns how much its spikes tire it."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(2, channels, 5, stride=2, bias=False), nn.BatchNorm2d(channels))
        self.neuron1 = TiringLIFNode(kappa=nn.Parameter(torch.full((channels,), 0.2)))
        self.conv2 = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, bias=False), nn.BatchNorm2d(2 * channels))
        self.neuron2 = TiringLIFNode(kappa=nn.Parameter(torch.full((2 * channels,), 0.2)))
        self.head = nn.Sequential(nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(2 * channels * 9, 10))

    def forward(self, x):
        x = self.neuron1(merged(self.conv1, x))  # merged: T and B are one dimension inside
        x = self.neuron2(merged(self.conv2, x))
        return merged(self.head, x)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with N-MNIST")
    parser.add_argument("--cache", default="", help="folder for decoded frames; default: stdano in the user's cache")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--channels", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="new or empty, for the run; default: a temporary one")
    options = parser.parse_args(argv)

    report = check(TiringLIF)  # gradients by finite differences, kernels against each other, extreme inputs
    print(report)
    if not report:
        raise SystemExit("the declaration is not right")

    torch.manual_seed(0)
    net = Network(options.channels)
    print(stdano.fuse(net))  # BatchNorm and the neuron behind it in one kernel
    data = dict(data="nmnist", root=options.root, cache=options.cache)
    settings = replace(TrainSettings(), **data, T=10, batch_size=16, epochs=options.epochs)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="stdano-"))
    result = train(settings, folder, model=net)
    print(f"test accuracy {result.last['test_accuracy']:.3f} after {options.epochs} epochs; the run is in {folder}")
    for name in ("neuron1", "neuron2"):
        kappa = getattr(net, name).kappa
        print(f"{name}: kappa began at 0.20, is now {kappa.min():.2f} to {kappa.max():.2f}")


if __name__ == "__main__":
    main()
