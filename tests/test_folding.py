"""fuse_conv_bn(): norms folded into the layers in front of them."""

import copy

import pytest
import torch
from fuse_common import MODELS, B, T, make
from tolerances import TOLERANCES
from torch import nn

import stdano
from stdano import BatchNormNeuron, LIFNode
from stdano.models import merged

FOLDED = {"small": 3, "residual": 1, "views": 2, "stepwise": 1, "flat": 1, "module": 0}


def norms(model):
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fused", (False, True), ids=("plain", "fused"))
def test_same_spikes(name, fused):
    model, xs, _ = make(name)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    if fused:
        stdano.fuse(model)
    folded = stdano.fuse_conv_bn(model)
    assert len(norms(model)) - len(norms(folded)) == FOLDED[name]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with torch.no_grad():
        for x in xs:
            torch.testing.assert_close(folded(x), model(x), **TOLERANCES[torch.float64]._asdict())
    assert not any(m.training for m in folded.modules())


class Kinds(nn.Module):
    def __init__(self):
        super().__init__()
        self.transposed, self.norm1 = nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)
        self.grouped, self.pair = nn.Conv2d(4, 4, 3, groups=2), BatchNormNeuron(4)
        self.fc, self.flat_pair = nn.Linear(4, 4), BatchNormNeuron(4)
        self.shared, self.norm2, self.norm3 = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.norm1(self.transposed(x.flatten(0, 1)))
        x = self.pair(self.grouped(x).unflatten(0, (T, B))).mean((3, 4))
        x = self.flat_pair(self.fc(x)).flatten(0, 1)
        return self.norm2(self.shared(x)) + self.norm3(self.shared(x + 1))


def test_kinds_of_layers():
    torch.manual_seed(0)
    model = Kinds().double()
    model(torch.randn(T, B, 2, 6, 6).double())
    model.eval()
    stdano.reset_net(model)
    folded = stdano.fuse_conv_bn(model)
    assert [name for name, m in folded.named_modules() if m in norms(folded)] == ["norm2", "norm3"]
    assert isinstance(folded.pair[0], nn.Identity) and folded.pair[1]._link is None
    x = torch.randn(T, B, 2, 6, 6).double()
    torch.testing.assert_close(folded(x), model(x), **TOLERANCES[torch.float64]._asdict())


def test_a_norm_over_another_dimension_than_the_layers_raises():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    folded = stdano.fuse_conv_bn(model)
    folded(torch.randn(3, 4))
    with pytest.raises(
        ValueError, match=r"1 \(BatchNorm1d\) was folded .* inputs of 2 dimensions alone; got \[3, 4, 4\]"
    ):
        folded(torch.randn(3, 4, 4))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="model must be in eval mode, but in training mode are itself, 0"):
        stdano.fuse_conv_bn(nn.Sequential(nn.Conv2d(1, 1, 1)))
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    model[1].train()
    with pytest.raises(ValueError, match="in training mode are 1"):
        stdano.fuse_conv_bn(model)


def test_batch_statistics_cannot_be_folded():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)).eval()
    assert isinstance(stdano.fuse_conv_bn(model)[1], nn.BatchNorm2d)


def test_spikingjelly():
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    model = nn.Sequential(layer.Conv2d(2, 4, 3), layer.BatchNorm2d(4), LIFNode())
    functional.set_step_mode(model, "m")
    x = torch.randn(T, B, 2, 6, 6).double()
    model.double()(x)
    model.eval()
    functional.reset_net(model)
    folded = stdano.fuse_conv_bn(model)
    assert isinstance(folded[1], nn.Identity)
    assert torch.equal(folded(x), model(x))
    assert torch.equal(folded[2](merged(nn.Identity(), folded[0](x))), model(x))
