"""reset_net resets what carries a neuron's state, and nothing else."""

import pytest
import torch
from torch import nn

import stdano
from stdano.nodes.neurons import NEURONS


class Metric(nn.Module):
    total = 3.0

    def reset(self):
        self.total = 0.0


class Environment(nn.Module):
    def reset(self, seed):
        raise AssertionError("not a neuron")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.neurons = nn.ModuleList(Node() for Node in NEURONS.values())
        self.fused = stdano.BatchNormNeuron(6)
        self.metric, self.environment = Metric(), Environment()

    def forward(self, x):
        for neuron in self.neurons:
            x = neuron(x)
        return self.fused(x)

    def reset(self):
        stdano.reset_net(self)


@pytest.mark.parametrize("reset", (stdano.reset_net, Model.reset))
def test_neurons_alone(reset):
    model = Model()
    model(torch.rand(2, 3, 6))
    reset(model)
    assert all(neuron._state is None for neuron in (*model.neurons, model.fused[1]))
    assert model.metric.total == 3.0


def test_spikingjellys_layers():
    base = pytest.importorskip("spikingjelly.activation_based.base")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    class Delay(base.MemoryModule):
        def __init__(self):
            super().__init__()
            self.register_memory("kept", 0)

    model = nn.Sequential(Delay(), neuron.LIFNode(), Metric())
    model[0].kept = 2
    model[1](torch.ones(3))
    stdano.reset_net(model)
    assert model[0].kept == 0 and model[1].v == 0.0 and model[2].total == 3.0


def test_detach_net_keeps_states_and_cuts_their_history():
    x = torch.rand(3, 2, 4, requires_grad=True)
    net = nn.Sequential(stdano.LIFNode(), stdano.ALIFNode())
    whole = net(torch.cat([x, x]))
    stdano.reset_net(net)
    net(x)
    stdano.detach_net(net)
    later = torch.rand(3, 2, 4, requires_grad=True)
    y = net(later * 0 + x.detach())
    assert torch.equal(y, whole[3:]) and y.sum().backward() is None
    assert x.grad is None and later.grad is not None


@pytest.mark.parametrize("function", [stdano.reset_net, stdano.detach_net])
def test_a_model_is_a_module(function):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got list"):
        function([stdano.LIFNode()])
