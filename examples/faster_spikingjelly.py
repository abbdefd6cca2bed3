"""A SpikingJelly network, trained as before, made faster by two lines.

    python examples/faster_spikingjelly.py
    python examples/faster_spikingjelly.py --fast

The network has SpikingJelly's layers and neurons and is trained on scikit-learn's handwritten digits. A copy of it is
converted. Both are compared in float64, then trained alike. Needs spikingjelly and scikit-learn.
"""

import argparse
import copy
import time
from statistics import median

import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn.functional import cross_entropy

import stdano


def spikingjelly_network(channels):
    """Three blocks of convolution, BatchNorm and LIF; from [T, B, 1, 8, 8] to [T, B, 10]."""

    def block(inputs, outputs):
        lif = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)
        return [layer.Conv2d(inputs, outputs, 3, padding=1, bias=False), layer.BatchNorm2d(outputs), lif]

    head = [layer.Flatten(), layer.Linear(channels * 16, 10)]
    net = nn.Sequential(*block(1, channels), *block(channels, channels), layer.MaxPool2d(2), *block(channels, channels))
    net.extend(head)
    functional.set_step_mode(net, "m")
    return net


def logits_and_gradients(net, x, y):
    """In float64, where rounding does not move a spike; the network itself is left as it is."""
    net = copy.deepcopy(net).double()
    logits = net(x.double())
    cross_entropy(logits.mean(0), y).backward()
    return [logits.detach(), *(p.grad for p in net.parameters())]


def train(net, images, labels, T, steps, batch=64):
    """The loop of a SpikingJelly user. Returns the median time of a step in ms, and the last losses' mean."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    times, losses = [], []
    for step in range(steps):
        start = time.perf_counter()
        chosen = torch.randint(len(images), (batch,), generator=torch.Generator().manual_seed(step))
        x = images[chosen].expand(T, -1, -1, -1, -1)
        functional.reset_net(net)  # resets stdano's neurons as well
        loss = cross_entropy(net(x).mean(0), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        losses.append(loss.item())
    return 1000 * median(times), sum(losses[-10:]) / 10


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a small network and few steps")
    fast = parser.parse_args(argv).fast
    T, channels, steps = (4, 4, 12) if fast else (8, 32, 60)
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)

    net = spikingjelly_network(channels)
    faster = copy.deepcopy(net)
    stdano.convert(faster, {"LIF": "LIF"})  # the two lines
    print(stdano.fuse(faster))

    x, y = images[:16].expand(T, -1, -1, -1, -1), labels[:16]
    pairs = zip(logits_and_gradients(net, x, y), logits_and_gradients(faster, x, y), strict=True)
    print(f"largest difference of logits and gradients: {max((a - b).abs().max().item() for a, b in pairs):.0e}")

    for name, model in (("SpikingJelly", net), ("stdano", faster)):
        milliseconds, loss = train(model, images, labels, T, steps)
        print(f"{name:12}  {milliseconds:6.1f} ms a step, loss {loss:.3f} after {steps} steps")


if __name__ == "__main__":
    main()
