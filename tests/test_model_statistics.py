"""sync_statistics: two processes with parts of a batch, of different size, do what one does with the whole."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from processes import HANG_SECONDS
from tolerances import ROUNDING, TOLERANCES
from torch import nn

import stdano
from stdano.models import create_model
from stdano.nodes.norms import SynchronisedBatchNorm2d

SHARES = (2, 3)
T, C = 2, 3
TOLERANCE = TOLERANCES[torch.float64]._asdict()
NORMS = {
    "defaults": dict(),
    "no parameters": dict(affine=False, momentum=None),
    "nothing tracked": dict(track_running_stats=False, eps=0.1),
}
# Neurons, whether images or frames, whether fused.
NETWORKS = {
    "fused, images": ("LIF", "images", True),
    "fused, frames": ("0120", "frames", True),
    "apart": ("LLIF", "images", False),
    "super": ("super", "images", True),
}

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


def cases(sync=True):
    """Modules, each with a whole batch as its input and the dimension of the batch."""
    torch.manual_seed(0)
    kind = SynchronisedBatchNorm2d if sync else nn.BatchNorm2d
    images = torch.randn(sum(SHARES), C, 8, 8, dtype=torch.float64) + 0.3
    for name, settings in NORMS.items():
        norm = kind(C, **settings).double()
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
        yield name, norm, images, 0
    for name, (neurons, what, fused) in NETWORKS.items():
        model = create_model("vgg-small", neurons, T=T, width=0.1, tau=1.5, sync_statistics=sync).double()
        if fused:
            stdano.fuse(model)
        whole = images if what == "images" else images * torch.tensor([1.0, -0.5]).view(T, 1, 1, 1, 1)
        yield name, model, whole, whole.dim() - 4


def train(module, x):
    """Output, gradient of the input, gradients of parameters, statistics after two batches, output in eval mode."""
    for factor in (1.0, 0.7):
        stdano.reset_net(module)
        x = (factor * x).detach().requires_grad_()
        y = module(x)
    (y * torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype) * (y.detach() + 0.3)).sum().backward()
    grads = [p.grad for p in module.parameters()]
    buffers = [b.clone() for b in module.buffers()]
    stdano.reset_net(module.eval())
    own = getattr(module, "track_running_stats", True)  # otherwise eval is by this process's batch
    return y.detach(), x.grad, grads, buffers, module(x).detach() if own else None


def part(rank, x, dim):
    return x.split(SHARES, dim)[rank]


def empty_share(rank):
    """The first process holds no sample: the other one alone makes the statistics."""
    norm = SynchronisedBatchNorm2d(C).double()
    x = torch.randn(4, C, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (x[:0] if rank == 0 else x).requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    return y.detach(), x.grad, norm.running_mean, norm.running_var


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=HANG_SECONDS)
    )
    try:
        results = {name: train(module, part(rank, x, dim)) for name, module, x, dim in cases()}
        torch.save((results, empty_share(rank)), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def of_one():
    """By torch's own BatchNorm, or stdano's without processes."""
    return {name: (train(module, x), dim) for name, module, x, dim in cases(sync=False)}


@pytest.mark.parametrize("name", (*NORMS, *NETWORKS))
def test_two_processes_equal_one(of_two, of_one, name):
    (y, grad, grads, buffers, evaluated), dim = of_one[name]
    results = [results[name] for results, _ in of_two]
    batch = 1 if name in NETWORKS else 0  # logits are [T, B, classes]
    torch.testing.assert_close(torch.cat([r[0] for r in results], batch), y, **TOLERANCE)
    torch.testing.assert_close(torch.cat([r[1] for r in results], dim), grad, **TOLERANCE)
    for k, whole in enumerate(grads):
        torch.testing.assert_close(sum(r[2][k] for r in results), whole, **TOLERANCE)
    for k, whole in enumerate(buffers):
        assert torch.equal(results[0][3][k], results[1][3][k])
        torch.testing.assert_close(results[0][3][k], whole, **TOLERANCE)
    if evaluated is not None:
        torch.testing.assert_close(torch.cat([r[4] for r in results], batch), evaluated, **TOLERANCE)
    assert grad.any()


def test_parts_alone_differ(of_one):
    """Otherwise the test above would show nothing."""
    for name, module, x, dim in cases(sync=False):
        alone = train(module, part(0, x, dim))[1]
        assert not torch.allclose(alone, part(0, of_one[name][0][1], dim), **TOLERANCE)


def test_a_process_without_samples_takes_part(of_two):
    (y, grad, *running), expected = of_two[0][1], of_two[1][1]
    assert y.shape == grad.shape == (0, C, 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(running, expected[2:], strict=True))
    for a, b in zip(expected, empty_share(1), strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_one_process_is_batch_norm():
    """Without torch.distributed, and as one process of it, bit for bit; in all that is saved as well."""
    ours, others = SynchronisedBatchNorm2d(C), nn.BatchNorm2d(C)
    others.load_state_dict(ours.state_dict())
    for x in (torch.randn(4, C, 5, 5), torch.randn(2, C, 5, 5)):
        assert torch.equal(ours(x), others(x))
    ours.eval(), others.eval()
    assert torch.equal(ours(x), others(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), others.buffers(), strict=True))
    with pytest.raises(ValueError, match="expected 4D input"):
        ours(torch.randn(4, C))


def test_synchronised_function_in_one_process(tmp_path):
    """The function of several processes, with a group of one: half precision, layouts, a wrong input."""
    from stdano_kernels.synchronised import synchronised_batch_norm

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        settings = dict(momentum=0.1, eps=1e-5, process_group=dist.group.WORLD)
        weight, bias = torch.rand(C, requires_grad=True), torch.rand(C, requires_grad=True)
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(4, C, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
            y = synchronised_batch_norm(x, None, None, weight, bias, **settings)
            expected = nn.functional.batch_norm(x, None, None, weight, bias, True)
            assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
            grads = [torch.autograd.grad(out.float().pow(3).sum(), (x, weight, bias)) for out in (y, expected)]
            # Half precision: x's gradient is rounded once more, before what the statistics add.
            largest = grads[1][0].abs().max().item() * ROUNDING.get(dtype, 0.0)
            tolerance = TOLERANCES[dtype]._replace(atol=TOLERANCES[dtype].atol + largest)._asdict()
            for a, b in zip((y, *grads[0]), (expected, *grads[1]), strict=True):
                torch.testing.assert_close(a, b, **tolerance)
        with pytest.raises(ValueError, match=r"x must be \[N, C, ...\], got a tensor of shape \[3\]"):
            synchronised_batch_norm(torch.zeros(3), None, None, **settings, weight=None, bias=None)
    finally:
        dist.destroy_process_group()
