"""What is kept for the backward pass: x itself, and beyond 16 steps one state every 16; and of calls' settings."""

import pytest
import torch
from kernels_common import FUNCTIONS, STATES, by_dtype, compute_dtype, every_neuron, make_state, make_x

import stdano_kernels
from stdano_kernels.fakes import CHECKPOINT_STEPS
from stdano_kernels.spec import spec_of


def saved_by(function):
    """The non-empty tensors that autograd keeps for a call, and its result."""
    saved = []

    def pack(t):
        if t.numel() > 0:
            saved.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = function()
    return saved, result


def bytes_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


@every_neuron
@by_dtype()
@pytest.mark.parametrize("steps", (1, 4, 16))
def test_short_sequences_keep_x_alone(neuron, steps, dtype):
    x = make_x((steps, 2, 3, 50), dtype).requires_grad_()
    saved, _ = saved_by(lambda: FUNCTIONS[neuron](x, return_state=True))
    assert [t.data_ptr() for t in saved] == [x.data_ptr()], "x itself, not a copy"
    assert bytes_of(saved) == bytes_of([x])


@every_neuron
@by_dtype()
@pytest.mark.parametrize("steps, chunks", ((17, 1), (32, 1), (33, 2), (48, 2), (49, 3), (160, 9)))
def test_long_sequences_keep_one_state_every_16_steps(neuron, steps, chunks, dtype):
    x = make_x((steps, 2, 3, 5), dtype).requires_grad_()
    saved, _ = saved_by(lambda: FUNCTIONS[neuron](x))
    x_saved, checkpoints = sorted(saved, key=lambda t: t.data_ptr() != x.data_ptr())
    assert x_saved.data_ptr() == x.data_ptr()
    assert checkpoints.shape == (chunks, len(STATES[neuron]), 30)
    assert checkpoints.dtype == compute_dtype(dtype)
    assert chunks == (steps - 1) // CHECKPOINT_STEPS


@every_neuron
def test_states_and_constants_are_kept_as_they_are(neuron):
    """x and states are the caller's own; of the constants there may be copies of C numbers."""
    x = make_x((4, 2, 3, 50)).requires_grad_()
    state = make_state(neuron, x)
    tau, threshold = torch.full((3,), 2.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    saved, _ = saved_by(lambda: FUNCTIONS[neuron](x, state=state, tau=tau, v_threshold=threshold))
    large = [t for t in saved if t.numel() > 3]
    assert {t.data_ptr() for t in large} == {t.data_ptr() for t in (x, *state)} and len(large) == 1 + len(state)
    assert sum(t.numel() for t in saved) - sum(t.numel() for t in large) <= 4 * 3


@every_neuron
def test_asking_for_potentials_keeps_nothing_more(neuron):
    x = make_x((4, 2, 3, 50)).requires_grad_()
    saved, _ = saved_by(lambda: FUNCTIONS[neuron](x, return_state=True, return_v_seq=True))
    assert bytes_of(saved) == bytes_of([x])


@every_neuron
@pytest.mark.parametrize("how", ("no_grad", "inference_mode", "nothing requires grad"))
@pytest.mark.parametrize("steps", (4, 40))
def test_inference_keeps_and_writes_nothing(neuron, how, steps):
    x = make_x((steps, 2, 3, 50))
    contexts = {"no_grad": torch.no_grad(), "inference_mode": torch.inference_mode()}
    outputs = []
    operator = torch.ops.stdano.scan_forward.default

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is operator:
                outputs.append(result)
            return result

    with contexts.get(how, torch.enable_grad()), Record():
        if how in contexts:
            x.requires_grad_()
        saved, spikes = saved_by(lambda: FUNCTIONS[neuron](x))
    assert saved == [] and not spikes.requires_grad
    ((spikes, state, sequences, checkpoints),) = outputs
    assert (spikes.numel(), state, sequences, checkpoints.numel()) == (x.numel(), [], [], 0)


@every_neuron
def test_potentials_and_states_are_written_only_when_asked_for(neuron):
    x = make_x((4, 2, 3, 50)).requires_grad_()
    outputs = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.stdano.scan_forward.default:
                spikes, *lists, checkpoints = result
                outputs.append(
                    [spikes.numel(), *[[t.numel() for t in of_one] for of_one in lists], checkpoints.numel()]
                )
            return result

    states = [300] * len(STATES[neuron])
    with Record():
        FUNCTIONS[neuron](x)
        FUNCTIONS[neuron](x, return_state=True)
        FUNCTIONS[neuron](x, return_v_seq=True)
    assert outputs == [[1200, [], [], 0], [1200, states, [], 0], [1200, [], [1200], 0]]


def test_settings_that_change_each_step_are_not_all_kept():
    x, known = torch.zeros(1, 1), spec_of(stdano_kernels.neurons.NEURONS["lif"]).known
    for step in range(2500):
        stdano_kernels.lif(x, alpha=1.0 + step / 1000)
    assert 0 < len(known) <= 1000
