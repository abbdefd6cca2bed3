"""A neuron whose potential is exactly the threshold fires, in every kernel: forward, and where backward recomputes."""

import pytest
import torch
from gpu_common import assert_equals_cpu, every_backend
from kernels_common import every_neuron_of_the_paper, make_x, short
from test_gpu_super import assert_equals_cpu as assert_super_equals_cpu

THRESHOLD = 1.0
# The map of KINDS["affine"]: numbers that are exact in every dtype.
CENTRE, SCALE, SHIFT = 0.5, 2.0, 0.25
ALIGNED, ODD = (11, 2, 3, 8), (3, 2, 3, 5)


def at_the_threshold(shape, dtype, v_reset, kind=""):
    """(x, where): there each step brings the potential from its rest to the threshold, and the spike brings it back;
    thresholds and time constants that adapt stay what they are."""
    x = make_x(shape, dtype)
    where = torch.zeros(shape, dtype=torch.bool)
    where[..., ::3] = True
    value = THRESHOLD - (v_reset or 0.0)
    x[where] = (value - SHIFT) / SCALE + CENTRE if kind == "affine" else value
    return x, where


@every_backend
@every_neuron_of_the_paper
@pytest.mark.parametrize("shape", (ALIGNED, ODD), ids=short)
@pytest.mark.parametrize(
    "dtype, v_reset",
    (
        *((torch.float32, reset) for reset in (None, 0.0, 0.25)),
        (torch.float16, 0.0),
        (torch.bfloat16, None),
        (torch.float64, 0.0),
    ),
    ids=short,
)
def test_a_neuron_fires_at_its_threshold(backend, neuron, dtype, v_reset, shape):
    if dtype == torch.float64 and backend == "triton":
        pytest.skip("float64 has no Triton kernel")
    x, where = at_the_threshold(shape, dtype, v_reset)
    actual = assert_equals_cpu(neuron, x, backend=backend, v_reset=v_reset, v_threshold=THRESHOLD)
    assert (actual["spikes"][where] == 1).all() and not actual["spikes"].all()


KINDS = {
    "affine": lambda x: dict(affine=torch.tensor([[CENTRE], [SCALE], [SHIFT]]).expand(3, x.shape[2]).contiguous()),
    "constants": lambda x: dict(tau=torch.full((x.shape[2],), 1.7), v_threshold=torch.tensor(THRESHOLD)),
}


@every_backend
@every_neuron_of_the_paper
@pytest.mark.parametrize("v_reset", (None, 0.25))
@pytest.mark.parametrize("kind", KINDS)
def test_so_do_those_with_numbers_for_each_channel(backend, neuron, v_reset, kind):
    x, where = at_the_threshold(ALIGNED, torch.float32, v_reset, kind)
    settings = {"v_threshold": THRESHOLD, **KINDS[kind](x)}
    actual = assert_equals_cpu(neuron, x, backend=backend, v_reset=v_reset, **settings)
    assert (actual["spikes"][where] == 1).all() and not actual["spikes"].all()


@every_backend
@pytest.mark.parametrize(
    "dtype, v_reset, shape",
    (
        (torch.float32, None, ALIGNED),
        (torch.float32, 0.0, ODD),
        (torch.float32, 0.25, ALIGNED),
        (torch.float16, None, ODD),
        (torch.bfloat16, 0.0, ALIGNED),
    ),
    ids=short,
)
def test_so_does_each_neuron_of_a_super_neuron(backend, dtype, v_reset, shape):
    x, where = at_the_threshold(shape, dtype, v_reset)
    actual = assert_super_equals_cpu(backend, x, v_threshold=THRESHOLD, v_reset=v_reset, slif_v_reset=v_reset)
    every_one = actual["codes"].max()
    assert (actual["codes"][where] == every_one).all() and not (actual["codes"] == every_one).all()
