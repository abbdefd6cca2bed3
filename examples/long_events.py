"""A long sequence of events in chunks: carried state, and truncated backpropagation through time.

    python examples/long_events.py
    python examples/long_events.py --fast

The first 50 steps, the cue, differ between two classes; the rest is noise. Every chunk is asked for the class.
The state is carried from chunk to chunk, but its history is cut in between, so that the memory of training does not
grow with the sequence. Printed are loss and accuracy in the last chunk, with the state carried over (accuracy 1.00) and
without (0.60, near chance), and what is kept for the backward pass: 20.76 MiB for all steps at once, 2.07 for a chunk.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import stdano

INPUTS, HIDDEN, CUE, CHUNK = 32, 64, 50, 100


def recordings(T, B):
    """Events [T, B, INPUTS] of 0 and 1, and classes [B]. During the cue one half of the inputs fires more often."""
    labels = torch.randint(2, (B,))
    rate = torch.full((T, B, INPUTS), 0.05)
    favoured = (torch.arange(INPUTS) < INPUTS // 2) == labels[:, None].bool()
    rate[:CUE] += 0.25 * favoured
    return torch.bernoulli(rate), labels


class Network(nn.Module):
    """Spiking neurons, and an integrator per class that remembers their output; to logits [T, B, 2]."""

    def __init__(self):
        super().__init__()
        readout = nn.Linear(HIDDEN, 2, bias=False)  # a bias would add up as well
        self.spiking = nn.Sequential(nn.Linear(INPUTS, HIDDEN), stdano.ALIFNode(tau=5.0), readout)
        self.memory = stdano.IFNode(v_threshold=1e6)  # does not leak and never fires: its potential is the result

    def forward(self, events):
        _, (v,) = self.memory(self.spiking(events), return_sequences=("v",))
        return v


def train(steps, T, carry):
    """Returns loss and accuracy in the last chunk of the last step's recordings."""
    torch.manual_seed(0)
    net = Network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    for _ in range(steps):
        events, labels = recordings(T, 128)
        stdano.reset_net(net)  # every recording begins at rest
        for part in events.split(CHUNK):
            logits = net(part).mean(0)
            loss = cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if carry:
                stdano.detach_net(net)  # the state goes on, its history does not
            else:
                stdano.reset_net(net)
    return loss.item(), (logits.argmax(1) == labels).float().mean().item()


def kept(net, events):
    """MiB that autograd keeps of a forward pass for the backward pass."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    stdano.reset_net(net)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(events).mean()
    loss.backward()
    return sum(sizes.values()) / 2**20


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="shorter sequences, and fewer of them")
    steps, T = (15, 300) if parser.parse_args(argv).fast else (30, 1000)

    for name, carry in (("carried", True), ("reset", False)):
        loss, accuracy = train(steps, T, carry)
        print(f"state {name:7}  loss {loss:.3f}, accuracy {accuracy:.2f} in the last {CHUNK} of {T} steps")

    net, (events, _) = Network(), recordings(T, 32)
    print(f"{T} steps at once: {kept(net, events):.2f} MiB are kept for backward")
    with stdano.two_level_checkpoints():
        print(f"in two levels of checkpoints: {kept(net, events):.2f} MiB")
    print(f"in chunks of {CHUNK}: {kept(net, events[:CHUNK]):.2f} MiB")


if __name__ == "__main__":
    main()
