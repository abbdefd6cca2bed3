"""BatchNormNeuron: in everything the pair BatchNorm2d -> neuron on the merged T*B, in one kernel."""

import copy
import pickle

import pytest
import torch
from kernels_common import product, short
from tolerances import TOLERANCES
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import BatchNormNeuron, LIFNode, LLIFNode, SynchronisedBatchNorm2d
from stdano.models import merged
from stdano.nodes.neurons import CANDIDATES

T, B, C = 4, 3, 5
by_neuron = pytest.mark.parametrize("neuron", CANDIDATES)


def images(dtype=torch.float64, seed=0, shape=(T, B, C, 6, 7)) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1.3 * x + torch.linspace(-1, 1, shape[2], dtype=torch.float64).view(-1, *[1] * (len(shape) - 3))).to(dtype)


def pair(neuron="LLIF", dtype=torch.float64, settings=None, **norm_settings):
    """The module and the plain pair, with the same numbers in both."""
    settings = settings or {}
    ours = BatchNormNeuron(C, neuron, **norm_settings, **settings).to(dtype)
    plain = nn.Sequential(nn.BatchNorm2d(C, **norm_settings), CANDIDATES[neuron](**settings)).to(dtype)
    for parameter in plain[0].parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    if plain[0].running_mean is not None:
        plain[0].running_mean.normal_(0.0, 0.3)
        plain[0].running_var.uniform_(0.5, 2.0)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def apart(plain, x):
    return plain[1](merged(plain[0], x))


def steps(forward, modules, xs):
    """Outputs, gradients of inputs and parameters over several calls, the state carried."""
    results = []
    for x in xs:
        x = x.detach().requires_grad_()
        y = forward(x)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        (y * weight).sum().backward(retain_graph=True)
        results += [y.detach(), x.grad]
    return results + [p.grad for p in modules.parameters()]


def assert_equal(ours, plain, dtype):
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCES[dtype]._asdict())


def same_buffers(ours, plain, dtype):
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert_equal(list(ours.state_dict().values()), list(plain.state_dict().values()), dtype)


@by_neuron
@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize(
    "settings", product(affine=(True, False), track_running_stats=(True, False), momentum=(0.2, None)), ids=short
)
def test_equals_the_pair(neuron, training, dtype, settings):
    ours, plain = pair(neuron, dtype, {} if neuron == "IF" else {"tau": 1.5}, **settings)
    ours.train(training), plain.train(training)
    xs = [images(dtype, seed) for seed in range(3)]
    expected = steps(lambda x: apart(plain, x), plain, xs)
    assert 0.05 < expected[0].mean() < 0.95
    assert_equal(steps(ours, ours, xs), expected, dtype)
    same_buffers(ours, plain, dtype)
    assert torch.equal(ours[1].v > 0.5, plain[1].v > 0.5)


@pytest.mark.parametrize("shape", ((T, B, C), (T, B, C, 7), (T, B, C, 2, 3, 2)), ids=str)
@pytest.mark.parametrize("fused", (True, False), ids=("fused", "apart"))
def test_any_number_of_dimensions(shape, fused):
    ours, plain = pair()
    if not fused:
        stdano.unfuse(ours)
    x = images(shape=shape)
    assert torch.equal(
        ours(x), apart(plain, x.flatten(3).unsqueeze(-1) if x.dim() > 3 else x[..., None, None]).view_as(x)
    )


@pytest.mark.parametrize("backend", ("reference", "cpu"))
def test_backends_and_learned_constants(backend):
    constants = {"v_threshold": 0.8, "backend": backend, "v_reset": None, "store_v_seq": True}
    ours, plain = pair("SLIF", settings={**constants, "tau": nn.Parameter(torch.full((C,), 1.5))})
    plain[1].tau = nn.Parameter(plain[1].tau.detach().clone())
    xs = [images(seed=seed) for seed in range(2)]
    assert_equal(steps(ours, ours, xs), steps(lambda x: apart(plain, x), plain, xs), torch.float64)
    assert ours[1].tau.grad.abs().min() > 0
    assert_equal([ours[1].v_seq], [plain[1].v_seq], torch.float64)


def test_channels_last():
    ours, plain = pair()
    x = images().flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (T, B))
    y = ours(x)
    assert y.stride() == x.stride()
    assert torch.equal(y, apart(plain, x))


def test_soft_spikes_pass_gradcheck():
    ours = BatchNormNeuron(2, "LLIF", spike="soft", tau=1.5).double()
    x = images(shape=(3, 2, 2, 2)).requires_grad_()

    def function(x, weight, bias):
        stdano.reset_net(ours)
        return torch.func.functional_call(ours, {"0.weight": weight, "0.bias": bias}, (x,))

    arguments = (torch.tensor([0.8, 1.2]).double().requires_grad_(), torch.tensor([0.1, 0.3]).double().requires_grad_())
    assert torch.autograd.gradcheck(function, (x, *arguments))


def test_autocast_normalises_in_float32():
    """The plain pair rounds the normalised tensor to bfloat16; here it only ever exists in float32."""
    ours, plain = pair("LIF", torch.float32)
    conv = nn.Conv2d(2, C, 3, padding=1)
    x = images(torch.float32, shape=(T, B, 2, 6, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(merged(conv, x))
        currents = merged(conv, x)
    assert y.dtype == currents.dtype == torch.bfloat16
    assert torch.equal(y.float(), apart(plain, currents.float()))
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in (*ours.parameters(), *conv.parameters()))
    same_buffers(ours, plain, torch.float32)


@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_a_half_precision_module_computes_in_float32(training):
    ours, _ = pair("LIF", torch.bfloat16)
    ours.train(training)
    exact = copy.deepcopy(ours).float()
    x = images(torch.bfloat16)
    assert torch.equal(ours(x).float(), exact(x.float()))


def test_state_dict_loads_both_ways():
    ours, plain = pair()
    ours(images())
    plain.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == [
        f"0.{n}" for n in ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    ]
    assert torch.equal(ours[0].running_var, plain[0].running_var)
    assert isinstance(ours[0], nn.BatchNorm2d) and type(ours[1]) is LLIFNode


@pytest.mark.parametrize(
    "twin_of", (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))), ids=("deepcopy", "pickle")
)
def test_copies_have_their_own_norm(twin_of):
    ours, _ = pair()
    ours(images())
    twin = twin_of(ours)
    assert twin[1]._link.norm is twin[0] and twin[0].forward.__self__ is twin[1]._link
    before = copy.deepcopy(ours.state_dict())
    assert torch.equal(twin(images()), copy.deepcopy(ours)(images()))
    assert twin[0].num_batches_tracked == 2
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


def test_moving_and_replacing_parameters():
    ours, plain = pair(dtype=torch.float32)
    ours.double(), plain.double()
    assert torch.equal(ours(images()), apart(plain, images()))
    ours[0].weight = nn.Parameter(2 * torch.ones(C).double())
    plain[0].weight = ours[0].weight
    stdano.reset_net(ours), stdano.reset_net(plain)
    assert torch.equal(ours(images()), apart(plain, images()))


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_checkpointing_counts_a_batch_once(use_reentrant):
    ours, plain = pair(momentum=None)

    def train(module, forward):
        results = []
        for seed in range(2):
            x = images(seed=seed).requires_grad_()
            y = forward(x)
            (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
            module[1].detach()
            results += [y.detach(), x.grad]
        return results + [p.grad for p in module.parameters()]

    checkpointed = train(ours, lambda x: checkpoint(ours, x, use_reentrant=use_reentrant))
    assert_equal(checkpointed, train(plain, lambda x: apart(plain, x)), torch.float64)
    same_buffers(ours, plain, torch.float64)


def test_checkpointing_the_neuron_alone():
    ours, plain = pair()
    x, y = (images().requires_grad_() for _ in range(2))
    checkpoint(ours[1], ours[0](x), use_reentrant=False).sum().backward()
    apart(plain, y).sum().backward()
    assert_equal([x.grad], [y.grad], torch.float64)
    same_buffers(ours, plain, torch.float64)


def test_frozen_norm_in_a_training_model():
    ours, plain = pair()
    ours[0].eval(), plain[0].eval()
    assert torch.equal(ours(images()), apart(plain, images()))
    same_buffers(ours, plain, torch.float64)
    assert ours[0].num_batches_tracked == 0


@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_compiles_without_graph_breaks(training):
    ours, plain = pair(dtype=torch.float32)
    ours.train(training), plain.train(training)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    xs = [images(torch.float32, seed) for seed in range(2)]
    assert_equal(steps(compiled, ours, xs), steps(lambda x: apart(plain, x), plain, xs), torch.float32)
    same_buffers(ours, plain, torch.float32)


def test_single_process_synchronised_norm():
    ours, plain = pair(dtype=torch.float32)
    synchronised = BatchNormNeuron(C, sync=True)
    synchronised.load_state_dict(ours.state_dict())
    assert isinstance(synchronised[0], SynchronisedBatchNorm2d)
    assert torch.equal(synchronised(images(torch.float32)), apart(plain, images(torch.float32)))


def test_a_given_neuron_keeps_its_settings():
    node = LIFNode(tau=3.0)
    assert BatchNormNeuron(C, node)[1] is node
    assert isinstance(BatchNormNeuron(C, "LIFNode", tau=1.1)[1], LIFNode)
    assert "fused_with='BatchNorm2d'" in repr(node)


def test_convert_keeps_the_norm():
    ours, plain = pair("LIF")
    stdano.convert(ours, "SLIF"), stdano.convert(plain, "SLIF")
    assert torch.equal(ours(images()), apart(plain, images()))
    before = ours[1]
    with pytest.raises(
        ValueError,
        match=r"SLIFNode that is fused with its norm .* not a Identity of torch\.nn.*: call unfuse\(\) first",
    ):
        stdano.convert(ours, lambda old: nn.Identity())
    with pytest.raises(ValueError, match="must become another one without a norm"):
        stdano.convert(ours, lambda old: BatchNormNeuron(C)[1])
    assert ours[1] is before and before._link is not None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"neuron": "ELIF"}, ValueError, "neuron must be one of 'LIF', 'LLIF', 'SLIF', .* or a neuron, got 'ELIF'"),
        ({"neuron": nn.ReLU()}, TypeError, "neuron must be a name, .* or a neuron, got ReLU"),
        ({"neuron": LIFNode(), "tau": 2.0}, ValueError, "neuron must be a name where settings of one are given, tau"),
        ({"step_mode": "s"}, ValueError, "neuron must be in step_mode 'm', which takes all time steps, got 's'"),
        ({"neuron": BatchNormNeuron(2)[1]}, ValueError, r"must not have a norm of its own; call unfuse\(\)"),
        ({"process_group": object()}, ValueError, "process_group must be None without sync=True"),
        ({"tau": 0.0}, ValueError, "tau must be a finite number above 0, got 0.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        BatchNormNeuron(C, **arguments)


def test_wrong_inputs():
    ours, _ = pair()
    with pytest.raises(ValueError, match=r"BatchNorm2d must have 5 channels in dimension 2 .* got .*\[4, 3, 6, 2, 2\]"):
        ours(images(shape=(T, B, 6, 2, 2)))
    with pytest.raises(ValueError, match=r"dimension 2 of its input, got a tensor of shape \[4, 5\]"):
        ours(images()[:, 0, :, 0, 0])
    with pytest.raises(ValueError, match="more than one value for each channel in training"):
        ours(images(shape=(1, 1, C)))
    with pytest.raises(RuntimeError, match=r"call unfuse\(\) first, or use DistributedDataParallel"):
        ours[1]._replicate_for_data_parallel()
