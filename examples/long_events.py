"""A long sequence of events in chunks: carried state, and truncated backpropagation through time.

    python examples/long_events.py
    python examples/long_events.py --fast

A cue of 50 steps says which of two classes it is; all that follows is noise. Every chunk of the sequence is asked for
the class. Adaptive neurons remember the cue: their thresholds rise with each spike and fall slowly. The state is
carried from chunk to chunk and its history cut in between, so that memory does not grow with the sequence. Printed are
the loss in the last chunk, with and without the state carried over, and what is kept for the backward pass.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import stdano

INPUTS, CUE = 32, 50


def recordings(T, B):
    """Events [T, B, INPUTS] of 0 and 1, and classes [B]. During the cue one half of the inputs fires more often."""
    labels = torch.randint(2, (B,))
    rate = torch.full((T, B, INPUTS), 0.05)
    favoured = (torch.arange(INPUTS) < INPUTS // 2) == labels[:, None].bool()
    rate[:CUE] += 0.25 * favoured
    return torch.bernoulli(rate), labels


def network(hidden):
    neuron = stdano.ALIFNode(tau=10.0, tau_adapt=1000.0, kappa=0.3, surrogate_function="atan", alpha=2.0)
    return nn.Sequential(nn.Linear(INPUTS, hidden), neuron, nn.Linear(hidden, 2))


def train(steps, T, chunk, hidden, carry):
    """Returns the mean loss and accuracy in the last chunk over the last ten sequences' batches."""
    torch.manual_seed(0)
    net = network(hidden)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses, accuracies = [], []
    for _ in range(steps):
        events, labels = recordings(T, 32)
        stdano.reset_net(net)  # every sequence begins at rest
        for part in events.split(chunk):
            logits = net(part).mean(0)
            loss = cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if carry:
                stdano.detach_net(net)  # the state goes on, its history does not
            else:
                stdano.reset_net(net)
        losses.append(loss.item())
        accuracies.append((logits.argmax(1) == labels).float().mean().item())
    return sum(losses[-10:]) / 10, sum(accuracies[-10:]) / 10


def kept(net, events):
    """MiB that autograd keeps of a forward pass for the backward pass."""
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    stdano.reset_net(net)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(events).mean()
    loss.backward()
    return sum(sizes.values()) / 2**20


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="shorter sequences, and fewer of them")
    fast = parser.parse_args(argv).fast
    steps, T, chunk, hidden = (30, 400, 100, 32) if fast else (60, 2000, 100, 128)

    for name, carry in (("carried", True), ("reset", False)):
        loss, accuracy = train(steps, T, chunk, hidden, carry)
        print(f"state {name:7}  loss {loss:.3f}, accuracy {accuracy:.2f} in the last {chunk} of {T} steps")

    net, (events, _) = network(hidden), recordings(T, 32)
    print(f"all {T} steps at once  {kept(net, events):6.2f} MiB kept for backward")
    with stdano.two_level_checkpoints():
        print(f"two levels            {kept(net, events):6.2f} MiB")
    print(f"a chunk of {chunk} steps  {kept(net, events[:chunk]):6.2f} MiB")


if __name__ == "__main__":
    main()
