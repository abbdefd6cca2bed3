"""A step of BatchNorm with a neuron, and of a super neuron, is one operator each way: torch has no part in it."""

import pytest
from launches_common import TorchsOwn, bn_neuron, step, super_neuron


@pytest.mark.parametrize("make", (bn_neuron, super_neuron))
def test_torch_has_no_part_in_a_train_step(make):
    call, back = step(make, "cpu", "cpu")
    with TorchsOwn() as torchs:
        back(call())
    assert torchs.names == []


@pytest.mark.parametrize("make", (bn_neuron, super_neuron))
def test_nor_in_evaluation(make):
    call, _ = step(make, "cpu", "cpu", training=False)
    with TorchsOwn() as torchs:
        call()
    assert torchs.names == []


@pytest.mark.parametrize("make", (bn_neuron, super_neuron))
def test_one_copy_of_what_is_not_dense(make):
    """Which backward is given, too."""
    call, back = step(make, "cpu", "cpu", layout=lambda x: x.repeat_interleave(2, -1)[..., ::2].detach())
    with TorchsOwn() as torchs:
        back(call())
    assert (torchs.names, torchs.not_dense) == (["copy_"], [])
