"""A step of BatchNorm with a neuron, and of a super neuron, is a few launches, and torch has no part in it."""

import pytest
from gpu_common import every_backend
from launches_common import TorchsOwn, bn_neuron, step, super_neuron


@every_backend
@pytest.mark.parametrize("make", (bn_neuron, super_neuron))
def test_three_launches_each_way(launches, backend, make):
    """CUDA's super neuron counts spikes in a launch of its own: its neurons' kernels know nothing of channels."""
    call, back = step(make, "cuda", backend)
    with launches() as forward, TorchsOwn() as torchs:
        y = call()
    with launches() as backward, torchs:
        back(y)
    counting = make is super_neuron and backend == "cuda"
    assert (len(forward), len(backward), torchs.names) == (4 if counting else 3, 3, []), (forward, backward)


@every_backend
def test_evaluation_is_two(launches, backend):
    """One makes what normalises of the running statistics, in double, which no thread of the neuron's has to repeat."""
    call, _ = step(bn_neuron, "cuda", backend, training=False)
    with launches() as forward, TorchsOwn() as torchs:
        call()
    assert (len(forward), torchs.names) == (2, [])
