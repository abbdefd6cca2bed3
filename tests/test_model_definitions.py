"""VGG-11 and pre-activation ResNet-18 written once more, layer by layer, as papers write them."""

import pytest
import torch
import torch.nn.functional as F
from tolerances import TOLERANCES
from torch import nn

from stdano.models import create_model, merged, num_spiking_layers
from stdano.rewrite.convert import spiking_layers
from stdano_kernels import lif

T, B = 3, 2


def narrow(name):
    """A network whose neurons fire in all layers, so that the logits depend on all of it: with a strong input."""
    torch.manual_seed(0)
    model = create_model(name, "LIF", T=T, width=0.1, tau=1.5).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, 0.2, 0.8)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return model


def spikes(model, prefix, x):
    """BatchNorm in eval mode and LIF, by torch's function and the reference."""
    state = model.state_dict()
    mean, var, weight, bias = (state[f"{prefix}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    y = F.batch_norm(x.flatten(0, 1), mean, var, weight, bias)
    return lif(y.unflatten(0, x.shape[:2]), tau=1.5, backend="reference")


def conv(model, name, x, stride=1):
    weight = model.state_dict()[f"{name}.weight"]
    return merged(lambda y: F.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2), x)


def resnet18(model, x):
    """x = n1(bn1(x)), out = conv2(n2(bn2(conv1(x)))) + shortcut(x): the shortcut carries spikes."""
    x = conv(model, "stem", x)
    for number in range(8):
        name, stride = f"blocks.{number}", 2 if number in (2, 4, 6) else 1
        x = spikes(model, f"{name}.activation1", x)
        out = spikes(model, f"{name}.activation2", conv(model, f"{name}.conv1", x, stride))
        shortcut = x if number in (0, 1, 3, 5, 7) else conv(model, f"{name}.shortcut", x, stride)
        x = conv(model, f"{name}.conv2", out) + shortcut
    return model.head(spikes(model, "activation", x).mean((3, 4)))


def vgg11(model, x):
    for block, layers in enumerate((1, 1, 2, 2, 2)):
        for layer in range(layers):
            name = f"blocks.{block}.{layer}"
            x = spikes(model, f"{name}.activation", conv(model, f"{name}.conv", x))
        x = merged(lambda y: F.avg_pool2d(y, 2), x)
    assert x.shape[3:] == (1, 1)
    return model.head(x.expand(-1, -1, -1, 7, 7).flatten(2))


@pytest.mark.parametrize("plain", [resnet18, vgg11], ids=lambda function: function.__name__)
@pytest.mark.parametrize("shape", [(B, 3, 32, 32), (T, B, 3, 32, 32)], ids=["images", "frames"])
def test_is_the_network_of_the_papers(plain, shape):
    model, x = narrow(plain.__name__), torch.randn(shape, dtype=torch.float64)
    firing = []
    for layer in spiking_layers(model).values():
        layer.register_forward_hook(lambda module, inputs, out: firing.append(out.mean().item()))
    with torch.no_grad():
        expected = plain(model, x.expand(T, *x.shape) if x.dim() == 4 else x)
        torch.testing.assert_close(model(x), expected, **TOLERANCES[torch.float64]._asdict())
    assert len(firing) == num_spiking_layers(plain.__name__) and all(0.05 < rate < 0.95 for rate in firing)
