"""Networks: layers, numbers, what they take, and that other tools understand them."""

import copy

import pytest
import torch
from torch import nn

import stdano
from stdano import LIFNode, LLIFNode, SLIFNode, SuperNeuron, convert, fuse, reset_net
from stdano.models import MODELS, ablations, create_model, neuron_string, num_spiking_layers
from stdano.models.blocks import SharedDropout
from stdano.nodes.candidates import DIGITS
from stdano.nodes.neurons import CANDIDATES
from stdano.rewrite.convert import execution_order, spiking_layers

LAYERS = {"vgg-small": 4, "vgg11": 8, "vgg13": 10, "vgg16": 13, "resnet18": 17}
KINDS = {digit: CANDIDATES[name] for digit, name in DIGITS.items()}


def tiny(name, neurons="LIF", **more):
    return create_model(name, neurons, **{**dict(T=2, width=0.05, num_classes=7), **more})


def test_the_models_and_their_layers():
    assert {name: num_spiking_layers(name) for name in MODELS} == LAYERS


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_numbered_in_order_of_execution(name):
    """Each digit arrives at its layer, as the run shows, as torch.fx tells, and as convert numbers them."""
    digits = "".join([*KINDS][k * k % len(KINDS)] for k in range(LAYERS[name]))
    model, ran = tiny(name, digits), []
    for layer in spiking_layers(model).values():
        layer.register_forward_hook(lambda module, inputs, output: ran.append(type(module)))
    model(torch.randn(1, 3, 32, 32))
    assert ran == [KINDS[digit] for digit in digits]
    assert [type(layer) for _, layer in execution_order(model)] == ran
    assert [type(layer) for layer in spiking_layers(convert(tiny(name), digits)).values()] == ran


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("in_channels", "size"), [(3, 32), (2, 48), (2, 64), (3, 128)])
def test_sizes_and_channels(name, in_channels, size):
    model = tiny(name, in_channels=in_channels, size=size)
    with torch.no_grad():
        assert model(torch.randn(2, in_channels, size, size)).shape == (2, 2, 7)
        reset_net(model)
        assert model(torch.randn(3, 1, in_channels, size, size)).shape == (3, 1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_an_image_is_the_input_of_every_step(name):
    """Though its convolution is computed once: values, gradients and running statistics."""
    model = tiny(name, "LLIF", tau=1.5).double()
    other = copy.deepcopy(model)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    y, z = model(x), other(x.repeat(2, 1, 1, 1, 1))
    torch.testing.assert_close(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    for (key, parameter), same in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad, msg=key)
        assert parameter.grad.abs().sum() > 0, key
    for buffer, same in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, same)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_all_pairs_of_norm_and_neuron_are_fused(name, training):
    model = tiny(name, neuron_string(name, "SLIF-1"), tau=1.2).double()
    fused = copy.deepcopy(model)
    report = fuse(fused)
    assert (len(report.fused), report.left) == (LAYERS[name], [])
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for m in (model, fused):
        m.train(training)
    torch.testing.assert_close(fused(x), model(x))
    assert fused.state_dict().keys() == model.state_dict().keys()


def test_full_widths():
    """Weights of convolutions, two numbers a channel of each norm, the linear layer."""
    sizes = {name: sum(p.numel() for p in create_model(name).parameters()) for name in MODELS}
    vgg11 = 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
    norms = 2 * (64 + 128 + 2 * 256 + 4 * 512)
    assert sizes["vgg11"] == vgg11 + norms + 49 * 512 * 10 + 10
    assert (
        sizes["resnet18"] == 11_172_170
    )  # as pre-activation ResNet-18s for CIFAR-10 have, less what a stem's norm has
    assert sizes["vgg11"] < sizes["vgg13"] < sizes["vgg16"] and sizes["vgg-small"] < 100_000
    assert sum(p.numel() for p in create_model("vgg11", width=0.5).parameters()) < sizes["vgg11"] / 2


def test_small_images():
    assert create_model("vgg-small", in_channels=1, size=8)(torch.randn(2, 1, 8, 8)).shape == (4, 2, 10)


def test_super_neurons_and_what_they_become():
    model = tiny("resnet18", "super", T=4, tau=1.2, alpha=2.0, gamma=0.2, candidates=("LIF", "SLIF"))
    layers = [layer for layer in model.modules() if isinstance(layer, SuperNeuron)]
    assert len(layers) == 17 and all(layer.neurons == ("LIF", "SLIF") for layer in layers)
    assert (layers[3].tau, layers[3].surrogate_alpha, layers[3].gamma) == (1.2, 2.0, 0.2)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(layer.alpha.grad.abs().sum() > 0 for layer in layers)
    convert(model, {"SuperNeuron": lambda layer: layer.node()})
    assert all(isinstance(layer, (LIFNode, SLIFNode)) and layer.tau == 1.2 for layer in spiking_layers(model).values())


def test_neurons_made_by_a_function():
    made = []

    def make(channels):
        made.append(channels)
        return LLIFNode(tau=1.0 + channels)

    model = create_model("vgg-small", make)
    assert made == [32, 32, 64, 64] and len(spiking_layers(model)) == 4
    with pytest.raises(TypeError, match="settings must not be given where neurons is a function, got tau"):
        create_model("vgg-small", make, tau=2.0)


def test_each_kind_takes_its_own_settings():
    layers = list(spiking_layers(tiny("vgg-small", "0120", gamma=0.3, tau_min=1.07, alpha=3.0)).values())
    assert layers[1].gamma == 0.3 and layers[2].tau_min == 1.07 and not hasattr(layers[0], "gamma")
    assert [layer.alpha for layer in layers] == [3.0] * 4
    with pytest.raises(TypeError, match="settings must be some of alpha, .*got taus"):
        tiny("vgg-small", taus=1.0)
    with pytest.raises(TypeError, match="settings must be some of alpha, .*got momenta"):
        tiny("vgg-small", "super", momenta=1.0)


def test_the_methods_of_the_ablation_study():
    """Table 1 of the paper, as its section 4.2 defines them."""
    resnet, vgg = ablations("resnet18"), ablations("vgg11")
    assert list(resnet) == [*CANDIDATES, *(f"{kind}-{x}" for kind in ("LLIF", "SLIF") for x in range(1, 5))]
    assert list(vgg) == [*CANDIDATES, *(f"{kind}-{x}" for kind in ("LLIF", "SLIF") for x in range(1, 6))]
    assert resnet["LLIF-1"] == "11110000000000000" and resnet["SLIF-4"] == "00000000000022220"
    assert [vgg[f"LLIF-{x}"] for x in range(1, 6)] == ["10000000", "01000000", "00110000", "00001100", "00000011"]
    assert resnet["SLIF"] == "2" * 17 and vgg["SLIF-3"] == "00220000"
    layers = [type(layer) for layer in spiking_layers(tiny("vgg11", "LLIF-4")).values()]
    assert layers == [KINDS[digit] for digit in "00001100"]


@pytest.mark.parametrize(
    ("neurons", "got"),
    [
        ("2000", "4 digits, '2000'"),
        ("200020000000010011", "18 digits, '200020000000010011'"),
        ("20002000000001003", "'20002000000001003'"),
        ("", "''"),
        ("LLIF-5", "'LLIF-5'"),
        ("lif", "'lif'"),
    ],
)
def test_wrong_strings(neurons, got):
    message = r"neurons must be 17 digits for resnet18 \(0 LIF, 1 LLIF, 2 SLIF\), or one of LIF, .*; got "
    with pytest.raises(ValueError, match=message + got):
        tiny("resnet18", neurons)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vgg12"}, "model must be one of vgg-small, vgg11, vgg13, vgg16, resnet18, got 'vgg12'"),
        ({"T": 0}, "T must be 1 or more for vgg11, got 0"),
        ({"in_channels": 0}, "in_channels must be 1 or more for vgg11, got 0"),
        ({"num_classes": 2.5}, "num_classes must be 1 or more for vgg11, got 2.5"),
        ({"size": 16}, "size must be 32 or more for vgg11, got 16"),
        ({"width": 0.0}, "width must be a finite number above 0 and at most 1000, got 0.0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"tau": -1.0}, "tau must be a finite number above 0, got -1.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"name": "vgg11", **change})


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 2, 2, 32, 32)])
def test_wrong_input(shape):
    with pytest.raises(ValueError, match=r"x must be images \[B, 3, H, W\] or frames \[T, B, 3, H, W\], got a tensor"):
        tiny("vgg-small")(torch.randn(shape))


def test_dropout_is_the_same_at_all_steps():
    layer = SharedDropout(0.5)
    y = layer(torch.ones(4, 2, 3, 5, 5))
    assert torch.equal(y, y[:1].expand_as(y)) and set(y.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(y[0, 0], y[0, 1])
    assert torch.equal(layer.eval()(y), y)
    assert sum(isinstance(module, SharedDropout) for module in tiny("vgg11", dropout=0.3).modules()) == 8


def test_layouts_copies_and_half_precision():
    model = tiny("resnet18", "LLIF").to(memory_format=torch.channels_last)
    fuse(model)
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), twin(x))
    reset_net(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
    logits.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_folding_for_inference():
    model = tiny("vgg11", "LLIF").double()
    model(torch.randn(8, 3, 32, 32, dtype=torch.float64))  # statistics
    reset_net(model)
    model.eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    folded = stdano.fuse_conv_bn(model)
    norms = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == ["blocks.0.0.activation.norm"]  # behind the first convolution, which repeats its result
    torch.testing.assert_close(folded(x), model(x))
