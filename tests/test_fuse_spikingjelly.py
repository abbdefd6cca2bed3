"""fuse() on SpikingJelly's layers and models."""

import copy

import pytest
import torch
from fuse_common import B, T, assert_equal, everything
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode

layer = pytest.importorskip("spikingjelly.activation_based.layer", reason="SpikingJelly is not installed")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
functional = pytest.importorskip("spikingjelly.activation_based.functional")


def network(step_mode="m"):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3),
        layer.BatchNorm2d(4),
        neuron.LIFNode(),
        layer.Conv2d(4, 4, 3),
        layer.BatchNorm2d(4),
    )
    net.append(LLIFNode(tau=1.5))
    functional.set_step_mode(net, step_mode)
    return net.double()


@pytest.mark.parametrize("step_mode", ("m", "s"))
def test_its_norms_are_fused_and_its_neurons_named(step_mode):
    net = network(step_mode)
    assert stdano.fuse(net).left == [
        ("1", "2 (LIFNode) behind it is SpikingJelly's: call convert() first"),
        ("2", "LIFNode is SpikingJelly's: call convert() first"),
    ]
    stdano.convert(stdano.unfuse(net), {"LIF": "LIF"})
    twin = copy.deepcopy(net)
    assert stdano.fuse(net).fused == [("1", "2"), ("4", "5")]
    shape = (T, B, 2, 8, 8) if step_mode == "m" else (B, 2, 8, 8)
    xs = [torch.randn(shape).double() for _ in range(2)]
    assert_equal(everything(net, xs), everything(twin, xs))


def test_one_of_its_models():
    model = pytest.importorskip("spikingjelly.activation_based.model.sew_resnet")
    torch.manual_seed(0)
    net = model.sew_resnet18(spiking_neuron=neuron.LIFNode, num_classes=5, cnf="ADD", detach_reset=True)
    functional.set_step_mode(net, "m")
    stdano.convert(net.double(), "LLIF")
    twin, x = copy.deepcopy(net), torch.randn(2, 2, 3, 32, 32).double()
    report = stdano.fuse(net)
    assert len(report.fused) == 20 and not report.left
    assert stdano.fuse(copy.deepcopy(twin), x).fused == report.fused
    with torch.no_grad():
        assert_equal([net(x), *net.buffers()], [twin(x), *twin.buffers()])
    stdano.reset_net(net.eval())
    folded = stdano.fuse_conv_bn(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        assert_equal([folded(x)], [net(x)])


def test_step_modes_must_agree():
    net = nn.Sequential(layer.BatchNorm2d(4, step_mode="m"), LIFNode(step_mode="s"))
    assert dict(stdano.fuse(net).left)["0"] == 'it is in step_mode "m", but 1 (LIFNode) behind it in "s"'


def test_other_norms_are_left():
    net = nn.Sequential(layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4), LIFNode())
    assert stdano.fuse(net).left[0][0] == "1"
