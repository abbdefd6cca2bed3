"""One launch forward, one backward, and the bytes that the two have to move: nothing else."""

import pytest
import torch
from gpu_common import every_backend, to_device, two_neurons
from kernels_common import (
    FUNCTIONS,
    HALF,
    STATES,
    by_dtype,
    every_neuron,
    make_affine,
    make_cotangents,
    make_state,
    make_x,
)

K = 8  # steps between two checkpoints on a device


def bytes_of(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def train_step(launches, neuron, x, backend, **options):
    """Launches of a forward and of a backward call."""
    leaf = x.cuda().requires_grad_()
    options = to_device(options)
    gs = make_cotangents(neuron, x)["spikes"].to(x.dtype).cuda()
    torch.autograd.grad(FUNCTIONS[neuron](leaf, backend=backend, **options), leaf, gs)  # compiles what is compiled late
    with launches() as forward:
        spikes = FUNCTIONS[neuron](leaf, backend=backend, **options)
    with launches() as backward:
        torch.autograd.grad(spikes, leaf, gs)
    return forward, backward


def assert_moved(launch, loaded, stored):
    if launch.loaded is None:
        return  # a real device does not say
    assert (launch.loaded, launch.stored) == (loaded, stored)


@every_backend
@two_neurons
@by_dtype((torch.float32, *HALF))
@pytest.mark.parametrize("steps", (1, 4, K))
@pytest.mark.parametrize("size", (64, 37))
def test_short_sequences_move_x_and_spikes_alone(launches, backend, neuron, dtype, steps, size):
    """2 numbers an element forward, 3 backward; nothing is kept but x."""
    x = make_x((steps, 3, size), dtype)
    (forward,), (backward,) = train_step(launches, neuron, x, backend)
    assert_moved(forward, bytes_of(x), bytes_of(x))
    assert_moved(backward, 2 * bytes_of(x), bytes_of(x))


@every_backend
@every_neuron
@pytest.mark.parametrize("steps", (K + 1, 2 * K, 2 * K + 1, 40))
def test_long_sequences_move_a_state_every_eight_steps_more(launches, backend, neuron, steps):
    x = make_x((steps, 3, 32))
    (forward,), (backward,) = train_step(launches, neuron, x, backend)
    checkpoints = (steps - 1) // K * len(STATES[neuron]) * bytes_of(x[0])
    assert checkpoints <= 2 * bytes_of(x) / K
    assert_moved(forward, bytes_of(x), bytes_of(x) + checkpoints)
    assert_moved(backward, 2 * bytes_of(x) + checkpoints, bytes_of(x))


@every_backend
@two_neurons
@pytest.mark.parametrize("layout", ("batch first", "channels last", "time innermost"))
def test_layouts_are_not_copied(launches, backend, neuron, layout):
    orders = {"batch first": (1, 0, 2, 3), "channels last": (0, 1, 3, 2), "time innermost": (1, 2, 3, 0)}
    order = orders[layout]
    x = make_x((4, 2, 6, 5)).permute(order).contiguous()
    x = x.permute(*(order.index(d) for d in range(4)))
    leaf = x.cuda().requires_grad_()
    gs = make_cotangents(neuron, x)["spikes"].cuda().as_strided(leaf.shape, leaf.stride())
    for _ in range(2):  # the first call compiles what is compiled late
        with launches() as forward:
            spikes = FUNCTIONS[neuron](leaf, backend=backend)
        with launches() as backward:
            torch.autograd.grad(spikes, leaf, gs)
    assert len(forward) == len(backward) == 1
    assert_moved(forward[0], bytes_of(x), bytes_of(x))
    assert_moved(backward[0], 2 * bytes_of(x), bytes_of(x))


@every_backend
@two_neurons
def test_states_and_potentials_move_when_asked_for(launches, backend, neuron):
    x = make_x((4, 3, 32))
    state = make_state(neuron, x)
    states = bytes_of(*state)
    options = dict(backend=backend, state=to_device(state), return_state=True, return_v_seq=True)
    leaf = x.cuda().requires_grad_()
    FUNCTIONS[neuron](leaf, **options)
    with launches() as forward:
        spikes, final, potentials = FUNCTIONS[neuron](leaf, **options)
    assert len(forward) == 1
    assert_moved(forward[0], bytes_of(x) + states, 2 * bytes_of(x) + states)
    outputs = (spikes, *final, potentials)
    gradients = [torch.ones_like(t) for t in outputs]
    torch.autograd.grad(outputs, leaf, gradients, retain_graph=True)
    with launches() as backward:
        torch.autograd.grad(outputs, leaf, gradients)
    assert len(backward) == 1
    # x, two gradients of its size, the initial states and the gradients of the final ones; also the gradients of the
    # initial states, which are part of the operator's results
    assert_moved(backward[0], 3 * bytes_of(x) + 2 * states, bytes_of(x) + states)


@every_backend
@two_neurons
def test_inference_stores_spikes_alone(launches, backend, neuron):
    x = make_x((40, 3, 32))
    with torch.no_grad():
        FUNCTIONS[neuron](x.cuda(), backend=backend)
        with launches() as forward:
            FUNCTIONS[neuron](x.cuda(), backend=backend)
    assert len(forward) == 1
    assert_moved(forward[0], bytes_of(x), bytes_of(x))


@every_backend
@two_neurons
@pytest.mark.parametrize("constants", ("tau", "both"))
def test_learnable_constants_take_one_small_launch_more(launches, backend, neuron, constants):
    """The whole sequence is one launch each way all the same; the second one adds up what its threads found."""
    x = make_x((4, 2, 6, 8))
    values = {"tau": torch.full((6,), 2.0), "v_threshold": torch.full((6,), 1.0)}
    values = {k: v.requires_grad_() for k, v in values.items() if constants == "both" or k == constants}
    forward, backward = train_step(launches, neuron, x, backend, **values)
    assert len(forward) == 1 and len(backward) == 2


def test_warps_add_up_what_belongs_to_one_sum(launches):
    """The second launch of a scalar gets a number of each warp; of channels that cut warps, one of each thread."""
    x = make_x((4, 4, 5, 7))
    tau = torch.tensor(2.0).requires_grad_()
    threads, warps = 4 * 5 * 7, 5
    for affine, loaded in ((None, 8 * warps), (make_affine(x), 8 * (warps + 2 * threads))):
        options = {} if affine is None else {"affine": affine}
        _, backward = train_step(launches, "lif", x, "cuda", tau=tau, **options)
        if backward[1].loaded is not None:
            assert backward[1].loaded == loaded


@every_backend
@two_neurons
def test_a_constant_for_each_neuron_takes_no_launch_more(launches, backend, neuron):
    """Nothing is added up: each neuron's gradient is written as it is."""
    x = make_x((4, 2, 6, 8))
    tau = torch.full((2, 6, 8), 2.0).requires_grad_()
    forward, backward = train_step(launches, neuron, x, backend, tau=tau)
    assert len(forward) == len(backward) == 1
    assert_moved(forward[0], bytes_of(x, tau), bytes_of(x))
    assert_moved(backward[0], 2 * bytes_of(x) + bytes_of(tau), bytes_of(x, tau))


@two_neurons
def test_triton_compiles_once_for_all_lengths_and_sizes(neuron):
    """A new number of neurons finds the compiled kernel, and so does a new T above 8; up to there each has its own."""
    from stdano_kernels.triton.ops import scan_backward, scan_forward

    def count():
        return [sum(len(cache[0]) for cache in k.device_caches.values()) for k in (scan_forward, scan_backward)]

    def step(*shape):
        x = make_x(shape).cuda().requires_grad_()
        FUNCTIONS[neuron](x, backend="triton").sum().backward()

    # aligned and not; sequences with checkpoints, of whole parts and with a rest
    for shape in ((4, 3, 16), (4, 3, 5), (16, 3, 16), (16, 3, 5), (17, 3, 16), (17, 3, 5), (12, 3, 16)):
        step(*shape)
    before = count()
    for shape in ((4, 1, 64), (24, 2, 1600), (33, 3, 48), (9, 1, 1), (13, 3, 7), (16, 17, 31), (4, 5, 3), (20, 3, 16)):
        step(*shape)
    assert count() == before
