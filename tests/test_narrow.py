"""Few channels, innermost in memory, on a CPU: no convolution of 1 x 1 with a stride, of which oneDNN's backward writes
beyond its memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from stdano.models import MODELS, create_model
from stdano.models.blocks import FEW_CHANNELS
from stdano.models.resnet import Block

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

from stdano.training.setup import channels_last_is_right

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", MODELS)
def test_no_network_has_one(name):
    for width in (0.01, 0.1, 0.2, 0.24, 0.25):
        assert channels_last_is_right(create_model(name, width=width), CPU)


def test_a_stride_by_hand_is_a_stride():
    for channels in (FEW_CHANNELS - 1, FEW_CHANNELS):
        make = type("Make", (), {"norm": lambda _, n: nn.BatchNorm2d(n), "neuron": lambda _, n: nn.ReLU()})()
        block = Block(channels, 20, 2, make, 0.0).double()
        assert block.shortcut.stride == ((1, 1) if channels < FEW_CHANNELS else (2, 2))
        assert block.shortcut.weight.shape == (20, channels, 1, 1)
        x = torch.randn(2, 3, channels, 9, 8, dtype=torch.float64)
        with torch.no_grad():
            block.conv2.weight.zero_()
        spikes = block.activation1(x).flatten(0, 1)
        expected = nn.functional.conv2d(spikes, block.shortcut.weight, stride=2).unflatten(0, (2, 3))
        torch.testing.assert_close(block(x), expected)


def test_networks_of_ones_own_keep_their_layout():
    few, grouped = nn.Conv2d(FEW_CHANNELS - 1, 8, 1, stride=2), nn.Conv2d(8, 8, 1, stride=(1, 2))
    right = [nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(FEW_CHANNELS, 8, 1, stride=2)]
    assert channels_last_is_right(nn.Sequential(*right), CPU)
    for wrong in (few, grouped):
        assert not channels_last_is_right(nn.Sequential(*right, wrong), CPU)
        assert channels_last_is_right(wrong, CUDA)


@pytest.mark.slow
def test_a_narrow_resnet_trains(tmp_path):
    """In a process of its own, which dies where memory is overwritten."""
    code = """
import torch
from stdano import fuse
from stdano.models import create_model
torch.set_num_threads(1)
net = create_model("resnet18", "LLIF", T=2, width=0.1, in_channels=1).to(memory_format=torch.channels_last)
fuse(net)
for _ in range(3):
    torch.manual_seed(0)
    for layer in net.modules():
        getattr(layer, "reset", lambda: None)()
    net(torch.randn(16, 1, 8, 8)).square().mean().backward()
assert all(p.grad.isfinite().all() for p in net.parameters())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
