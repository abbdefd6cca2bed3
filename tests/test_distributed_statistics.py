"""Statistics over the processes of a group: two processes with 3 and 5 samples give what one gives with all 8."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from channels_common import RESETS, draw, run_bn, run_super, start_statistics
from kernels_common import NEURONS, assert_close, make_state, make_x
from processes import HANG_SECONDS
from tolerances import TOLERANCES

from stdano_kernels import bn_neuron, super_neuron

SHARES = (3, 5)
SHAPE = (4, sum(SHARES), 3, 5, 2)
SUPER_CASES = {
    "defaults": dict(),
    "two neurons, other resets": dict(neurons=("slif", "lif"), momentum=0.3, **RESETS[0]),
    "no running statistics": dict(statistics=None),
    "evaluation": dict(training=False),
}
BN_CASES = {
    **{name: dict(neuron=name) for name in NEURONS},
    "bias alone": dict(neuron="lif", given=("bias",), momentum=0.3),
    "no parameters": dict(neuron="slif", given=(), statistics=None),
    "evaluation": dict(neuron="llif", training=False),
}
# Sums over the batch: a process has its own part of them, as in torch.nn.SyncBatchNorm.
SUMMED = ("grad weights", "grad alpha", "grad weight", "grad bias")
SHARED = ("mean", "var")

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


def samples(rank, t, dim=1):
    """The part of a batch that a process holds; all of it where rank is None."""
    return t if rank is None else t.split(SHARES, dim)[rank].contiguous()


def run_case(kind, case, rank, group):
    """A call on this process's share of the input, of the state and of the incoming gradients."""
    x = make_x(SHAPE, torch.float64)
    if kind == "super":
        cotangent = samples(rank, draw(SHAPE, 1))
        return run_super(samples(rank, x), cotangent=cotangent, process_group=group, **SUPER_CASES[case])
    settings = dict(BN_CASES[case])
    neuron = settings.pop("neuron")
    state = tuple(samples(rank, t, 0) for t in make_state(neuron, x))
    cotangents = {"spikes": samples(rank, draw(SHAPE, 1)), "v_seq": samples(rank, draw(SHAPE, 2))}
    return run_bn(neuron, samples(rank, x), cotangents=cotangents, state=state, process_group=group, **settings)


def parameters_alone(rank, group):
    """x needs no gradient, so no process waits for another in backward."""
    x = samples(rank, make_x(SHAPE, torch.float64))
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    y = super_neuron(x, weights, None, None, training=True, process_group=group)
    (of_weights,) = torch.autograd.grad(y, weights, samples(rank, draw(SHAPE, 1)))
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    spikes = bn_neuron("lif", x, None, None, scale, training=True, process_group=group)
    (of_scale,) = torch.autograd.grad(spikes, scale, samples(rank, draw(SHAPE, 1)))
    return {"grad weights": of_weights, "grad weight": of_scale}


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=len(SHARES),
        timeout=timedelta(seconds=HANG_SECONDS),  # a process that waits in vain fails, and does not hang
    )
    try:
        group = dist.group.WORLD
        results = {
            **{("super", case): run_case("super", case, rank, group) for case in SUPER_CASES},
            **{("bn", case): run_case("bn", case, rank, group) for case in BN_CASES},
            ("weights", "alone"): parameters_alone(rank, group),
            ("empty", "share"): empty_share(rank, group),
        }
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def empty_share(rank, group):
    """The first process holds no sample: the statistics are the second's."""
    x = make_x(SHAPE, torch.float64)
    mine = x[:, :0] if rank == 0 else x
    mean, var = start_statistics((3, 3), torch.float64)
    leaf = mine.clone().requires_grad_()
    y = super_neuron(leaf, torch.ones(3).double(), mean, var, training=True, process_group=group)
    (grad,) = torch.autograd.grad(y, leaf, draw(SHAPE, 1)[:, : mine.shape[1]])
    bn_mean, bn_var = start_statistics((3,), torch.float64)
    spikes = bn_neuron("slif", mine, bn_mean, bn_var, training=True, process_group=group)
    return {"y": y.detach(), "grad x": grad, "mean": mean, "var": var, "spikes": spikes, "m": bn_mean, "v": bn_var}


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """Each process's results of every case, from one start of the two."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(process, (str(folder),), nprocs=len(SHARES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


def joined(parts):
    """What one process would have: samples side by side, sums added up, shared numbers once."""
    for name in set(SHARED) & set(parts[0]):
        assert torch.equal(parts[0][name], parts[1][name]), f"{name} must be the same in every process"
    out = {}
    for name, value in parts[0].items():
        pair = [p[name] for p in parts]
        if name in SUMMED:
            out[name] = pair[0] + pair[1]
        else:
            out[name] = value if name in SHARED else torch.cat(pair, 0 if "final" in name or "state" in name else 1)
    return out


@pytest.mark.parametrize("kind, case", (*(("super", c) for c in SUPER_CASES), *(("bn", c) for c in BN_CASES)))
def test_two_processes_equal_one(of_two_processes, kind, case):
    """Outputs, the gradient of x, the sums of the parameters' gradients, running statistics."""
    expected = run_case(kind, case, None, None)
    actual = joined([results[kind, case] for results in of_two_processes])
    if kind == "bn":
        assert torch.equal(actual["spikes"], expected["spikes"])
    assert set(actual) == set(expected)
    assert_close(actual, expected, TOLERANCES[torch.float64])


@pytest.mark.parametrize("kind", ("super", "bn"))
def test_the_processes_do_differ_without_a_group(of_two_processes, kind):
    """The statistics of 3 samples are not those of 8: otherwise the test above would show nothing."""
    case = "defaults" if kind == "super" else "lif"
    alone = run_case(kind, case, 0, None)
    tolerance = TOLERANCES[torch.float64]
    for name in ("grad x", *SHARED):
        assert not torch.allclose(alone[name], of_two_processes[0][kind, case][name], **tolerance._asdict())


def test_gradients_of_parameters_alone(of_two_processes):
    actual = joined([results["weights", "alone"] for results in of_two_processes])
    assert_close(actual, parameters_alone(None, None), TOLERANCES[torch.float64])


def test_a_process_without_samples_takes_part(of_two_processes):
    empty, other = (results["empty", "share"] for results in of_two_processes)
    assert empty["y"].shape == empty["grad x"].shape == (4, 0, 3, 5, 2)
    expected = empty_share(1, None)
    assert_close(other, expected, TOLERANCES[torch.float64])
    assert_close(empty, expected, TOLERANCES[torch.float64], ["mean", "var", "m", "v"])


def test_a_group_of_one_process_is_no_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for kind, case in (("super", "defaults"), ("bn", "slif")):
            actual, expected = (run_case(kind, case, None, group) for group in (dist.group.WORLD, None))
            assert all(torch.equal(actual[name], expected[name]) for name in expected)
        # One value for each channel in all processes: no process alone can tell, so it is no error.
        running = torch.zeros(3), torch.ones(3)
        bn_neuron("lif", torch.randn(1, 1, 3), *running, training=True, momentum=1.0, process_group=dist.group.WORLD)
        assert torch.equal(running[1], torch.zeros(3))
    finally:
        dist.destroy_process_group()
