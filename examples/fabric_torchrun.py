"""Your own training loop in several processes, with Lightning Fabric and torchrun.

    torchrun --nproc-per-node 2 examples/fabric_torchrun.py
    python examples/fabric_torchrun.py
    torchrun --nproc-per-node 2 examples/fabric_torchrun.py --epochs 1 --channels 4

Each batch is divided among the processes, and BatchNorm takes its statistics over all of them. So one process and two
print the same losses, up to rounding: 0.2126 after two epochs. After five epochs the test accuracy is 0.975 with two
processes and 0.978 with one (2 CPU cores). On CPUs Fabric uses DDP with gloo. Needs stdano's extra [app].
"""

import argparse
import os

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.functional import cross_entropy

import stdano
from stdano.data import Batches, load_data
from stdano.models import merged
from stdano.settings import DataSettings

T = 4


class Block(nn.Module):
    """Convolution, BatchNorm over all processes, neuron."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = stdano.SynchronisedBatchNorm2d(outputs)
        self.neuron = stdano.LLIFNode(tau=1.5)

    def forward(self, x):
        x = merged(self.norm, merged(self.conv, x))  # merged: T and B are one dimension inside
        return self.neuron(x)


class Network(nn.Module):
    """Digits [B, 1, 8, 8] to logits [T, B, 10]."""

    def __init__(self, channels):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, channels), Block(channels, channels))
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 10))

    def forward(self, x):
        return merged(self.head, self.blocks(x.expand(T, *x.shape)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--channels", type=int, default=16, help="default: %(default)s")
    options = parser.parse_args(argv)

    fabric = Fabric(accelerator="cpu", devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))  # which torchrun sets
    fabric.launch()
    torch.manual_seed(0)  # the same weights everywhere
    net = Network(options.channels)
    fabric.print(stdano.fuse(net))
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))

    source = load_data(DataSettings(data="digits"), T)
    mine = dict(batch_size=64, rank=fabric.global_rank, world=fabric.world_size)  # 64: of all processes together
    train, test = Batches(source, "train", shuffle=True, **mine), Batches(source, "test", **mine)
    for epoch in range(options.epochs):
        net.train()
        total = torch.zeros(())
        for batch in train.epoch(epoch):
            with stdano.stateless(net):  # every batch begins at rest, and no state is left
                logits = model(batch.values)
            # The mean over the whole batch. DDP averages gradients, but the shares of the processes may differ in size.
            loss = cross_entropy(logits.mean(0), batch.labels, reduction="sum") * fabric.world_size / batch.total
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            total += loss.detach() * batch.total / fabric.world_size
        net.eval()
        right = torch.zeros(())  # the number of right answers
        with torch.no_grad(), stdano.stateless(net):
            for batch in test.epoch(0):
                right += (net(batch.values).mean(0).argmax(1) == batch.labels).sum()
        total, right = fabric.all_reduce(torch.stack([total, right]), reduce_op="sum")
        loss, accuracy = total / len(source.train), right / len(source.test)
        fabric.print(
            f"epoch {epoch + 1}: loss {loss:.4f}, test accuracy {accuracy:.4f}, processes: {fabric.world_size}"
        )


if __name__ == "__main__":
    main()
