"""Models with norms and neurons for the tests of fuse and fuse_conv_bn, and what of them is compared."""

import pytest
import torch
from tolerances import TOLERANCES
from torch import nn

import stdano
from stdano import BatchNormNeuron, LIFNode, LLIFNode, SLIFNode
from stdano.models import create_model, merged

T, B = 4, 3


class Residual(nn.Module):
    """Pre-activation block: norm and neuron in front of each convolution, and a shortcut around them."""

    def __init__(self, channels=4):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.neuron1, self.neuron2 = LLIFNode(tau=1.5), SLIFNode(tau=1.5)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x):
        y = merged(self.conv1, self.neuron1(merged(self.norm1, x)))
        return x + merged(self.conv2, self.neuron2(merged(self.norm2, y)))


class Views(nn.Module):
    """view and reshape, a norm that is not fed to a neuron, a neuron without a norm, one whose norm is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.a_norm, self.a = nn.BatchNorm2d(4), LIFNode()
        self.b_norm, self.b = nn.BatchNorm2d(4), LIFNode()
        self.fc, self.c_norm, self.c = nn.Linear(4 * 36, 6), nn.BatchNorm1d(6), LLIFNode(tau=3.0)
        self.d = LIFNode()

    def forward(self, x):
        t, b = x.shape[0], x.shape[1]
        x = torch.relu(self.stem_norm(self.stem(x.flatten(0, 1))))
        x = self.a(self.a_norm(x).view(t, b, 4, 6, 6)).reshape(t * b, 4, 6, 6)
        normalised = self.b_norm(x)
        x = self.b(normalised.contiguous().view(t, b, 4, 6, 6)).flatten(0, 1) + normalised
        x = self.c_norm(self.fc(x.flatten(1)))
        return self.d(self.c(torch.reshape(x, (t, b, 6))))


class DataDependent(nn.Module):
    """torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.norm, self.neuron, self.block = nn.BatchNorm2d(4), LIFNode(), Residual()
        self.other_norm, self.other = nn.BatchNorm2d(4), LIFNode()

    def forward(self, x):
        x = self.block(self.neuron(merged(self.norm, x)))
        y = merged(self.other_norm, x)
        return self.other(y) if x.abs().sum() >= 0 else y


class Stepwise(nn.Module):
    """One step a call, the neuron in step mode "s"."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.neuron = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), LIFNode(step_mode="s")

    def forward(self, x):
        return torch.stack([self.neuron(self.norm(self.conv(x[t]))) for t in range(T)])


class Flat(nn.Module):
    """No batch: the norm's N is the neuron's T."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.neuron = nn.Linear(4, 7), nn.BatchNorm1d(7), LLIFNode(tau=1.5, store_v_seq=True)

    def forward(self, x):
        return self.neuron(self.norm(self.fc(x.mean((3, 4)).flatten(0, 1))))


MODELS = {
    "small": (
        lambda: create_model("vgg-small", "LLIF", T=T, in_channels=2, size=8, width=0.2, tau=1.5),
        (B, 2, 8, 8),
        4,
    ),
    "residual": (Residual, (T, B, 4, 6, 6), 2),
    "views": (Views, (T, B, 2, 6, 6), 2),
    "stepwise": (Stepwise, (T, B, 4, 6, 6), 1),
    "flat": (Flat, (T, B, 4, 6, 6), 1),
    "module": (lambda: BatchNormNeuron(4, "SLIF"), (T, B, 4, 6, 6), 1),
}
by_model = pytest.mark.parametrize("name", MODELS)


def make(name, dtype=torch.float64):
    build, shape, count = MODELS[name]
    torch.manual_seed(0)
    model = stdano.unfuse(build()).to(dtype)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, 0.2, 0.2)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
    return model, xs, count


def everything(model, xs, forward=None):
    """Outputs, gradients, states, statistics and a step of an optimiser; the state carries from input to input."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    results = []
    for x in xs:
        x = x.detach().requires_grad_()
        y = (model if forward is None else forward)(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward(retain_graph=True)
        results += [y.detach(), x.grad]
    results += [p.grad.clone() for p in model.parameters()]
    optimiser.step()
    results += [m.v.detach() for m in model.modules() if isinstance(m, stdano.BaseNode)]
    return results + [t.detach().clone() for t in model.state_dict().values()]


def assert_equal(ours, others, dtype=torch.float64):
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCES[dtype]._asdict())
