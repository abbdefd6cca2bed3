"""The operators as citizens of PyTorch: opcheck, torch.compile, autocast, function transforms."""

import copy
from functools import cache

import pytest
import torch
from kernels_common import (
    DECLARED,
    FUNCTIONS,
    NEURONS,
    STATES,
    assert_same_bits,
    by_dtype,
    every_backend,
    every_leaky_neuron,
    every_neuron,
    make_state,
    make_x,
    run,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stdano_kernels.define.shipped import variants
from stdano_kernels.fakes import CHECKPOINT_STEPS
from stdano_kernels.functional import kernel_for
from stdano_kernels.spec import traced

CASES = {
    "plain": dict(shape=(3, 2, 4)),
    "all outputs": dict(shape=(3, 2, 4), outputs=True),
    "state": dict(shape=(3, 2, 4), outputs=True, state=True),
    "checkpoints": dict(shape=(35, 2, 2), outputs=True, state=True),
    "scalar constants": dict(shape=(3, 2, 4), constants=()),
    "channels, channels last": dict(shape=(18, 2, 3, 5), constants=(3,), outputs=True, state=True, last=True),
    "bfloat16": dict(shape=(3, 2, 4), dtype=torch.bfloat16, constants=(4,), outputs=True),
    "float64": dict(shape=(17, 2, 2), dtype=torch.float64, outputs=True),
    "affine": dict(shape=(4, 2, 3, 5), affine=True),
    "affine, all outputs": dict(shape=(18, 2, 3, 5), constants=(3,), outputs=True, state=True, last=True, affine=True),
    "affine, bfloat16": dict(shape=(3, 2, 4), dtype=torch.bfloat16, affine=True),
    "affine, no neurons": dict(shape=(3, 0, 4), affine=True),
    "no steps": dict(shape=(0, 2, 4), outputs=True),
    "no neurons": dict(shape=(3, 0, 4), outputs=True),
}


def operator_arguments(
    neuron,
    shape,
    dtype=torch.float32,
    constants=None,
    outputs=False,
    state=False,
    last=False,
    grad=True,
    affine=False,
):
    x = make_x(shape, dtype)
    if last:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    kernel, names = known(neuron, dtype == torch.float64)
    states = list(make_state(neuron, x)) if state else []
    which = [] if constants is None else list(range(len(names)))
    tensors = [torch.full(constants, 1.3 + 0.2 * j, dtype=real) for j in which]
    affine = torch.tensor([[0.1], [0.9], [0.2]], dtype=real).repeat(1, shape[2]) if affine else None
    for t in (x, *states, *tensors, affine):
        if t is not None:
            t.requires_grad_(grad)
    values = [1.7 - 0.2 * j for j in range(len(names))]
    sequences = [0] if outputs else []
    return (
        x,
        states,
        tensors,
        affine,
        which,
        values,
        1.0,
        kernel,
        grad and x.shape[0] > CHECKPOINT_STEPS,
        outputs,
        sequences,
    )


@cache
def known(neuron, is_double):
    """The kernel's name of a neuron in its usual settings, and the names of its constants."""
    variant = variants(neuron)[0]
    name, missing = kernel_for(DECLARED[neuron], variant.plain, "cpu", is_double)
    assert missing is None
    return name, tuple(traced(DECLARED[neuron], variant).constants)


@every_neuron
@pytest.mark.parametrize("grad", (True, False), ids=("grad", "no grad"))
@pytest.mark.parametrize("case", CASES)
def test_opcheck_forward(neuron, case, grad):
    operator = torch.ops.stdano.scan_forward.default
    torch.library.opcheck(operator, operator_arguments(neuron, **CASES[case], grad=grad))


@every_neuron
@pytest.mark.parametrize("case", CASES)
def test_opcheck_backward(neuron, case):
    arguments = operator_arguments(neuron, **CASES[case], grad=False)
    x, state, constants, affine, *settings, _, outputs, sequences = arguments
    *_, checkpoints = torch.ops.stdano.scan_forward(*arguments[:-3], x.shape[0] > CHECKPOINT_STEPS, False, [])
    of_state = [torch.ones(x.shape[1:], dtype=checkpoints.dtype) for _ in STATES[neuron]] if outputs else []
    grads = (torch.ones_like(x), of_state, [torch.ones_like(x) for _ in sequences])
    operator = torch.ops.stdano.scan_backward.default
    torch.library.opcheck(operator, (*grads, x, state, checkpoints, constants, affine, *settings, sequences))


@pytest.mark.slow
def test_opcheck_of_constant_input():
    """Whose gradient is one step's backward, and all steps' by autograd."""
    arguments = operator_arguments("llif", **CASES["affine, all outputs"], grad=False)
    x, state, constants, affine, *settings, _, outputs, sequences = arguments
    x = x[0].expand(x.shape).requires_grad_()
    forward = (*arguments[1:-3], True, outputs, sequences)
    torch.library.opcheck(torch.ops.stdano.scan_forward.default, (x, *forward))
    *_, checkpoints = torch.ops.stdano.scan_forward(x.detach(), *forward)
    ones = torch.ones(x.shape)
    grads = (ones, [torch.ones_like(t) for t in state], [ones for _ in sequences])
    given = (*grads, x.detach(), state, checkpoints, constants, affine, *settings, sequences)
    torch.library.opcheck(torch.ops.stdano.scan_backward.default, given)
    assert torch.ops.stdano.scan_backward(*given)[0].shape == x.shape[1:]


# --- torch.compile ---


class Network(nn.Module):
    """A layer, neurons with a learnable tau for each channel, a layer; with the state handed from call to call."""

    def __init__(self, neuron, conv):
        super().__init__()
        torch.manual_seed(0)
        self.neuron, self.conv = neuron, conv
        self.first = nn.Conv2d(2, 4, 3, padding=1) if conv else nn.Linear(6, 4)
        self.tau = nn.Parameter(torch.full((4,), 2.0))
        self.last = nn.Linear(4, 3)

    def forward(self, x, state=None):  # [T, B, C, ...]
        y = self.first(x.flatten(0, 1)).unflatten(0, x.shape[:2]) * 2 + 0.2
        tau = self.tau if y.dim() > 2 else 2.0
        s, state = FUNCTIONS[self.neuron](y, tau=tau, state=state, return_state=True)
        s = s.mean((-1, -2)) if self.conv else s
        return self.last(s), state


def train(network, batches):
    """Losses and final parameters of a few steps, two calls each with the state carried over."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for x in batches:
        optimizer.zero_grad()
        y, state = network(x)
        z, _ = network(x, state)
        loss = (y.square() + z).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, [p.detach() for p in network.parameters()]


@every_leaky_neuron
@pytest.mark.parametrize("steps", (4, 18))
@pytest.mark.parametrize("conv", (False, True), ids=("linear", "conv channels last"))
def test_compiled_training_equals_eager(neuron, conv, steps):
    torch._dynamo.reset()
    shape = (steps, 2, 2, 5, 5) if conv else (steps, 2, 6)
    batches = [make_x(shape, seed=i) for i in range(3)]
    eager = Network(neuron, conv)
    if conv:
        eager = eager.to(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    (losses, parameters), (expected_losses, expected) = train(compiled, batches), train(eager, batches)
    for a, b in zip([*losses, *parameters], [*expected_losses, *expected], strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_compiled_by_inductor():
    """The one case with real code generation: what lies around the neuron may round differently."""
    torch._dynamo.reset()
    batches = [make_x((18, 2, 6), seed=i) for i in range(2)]
    eager = Network("llif", conv=False)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True)
    (losses, parameters), (expected_losses, expected) = train(compiled, batches), train(eager, batches)
    for a, b in zip([*losses, *parameters], [*expected_losses, *expected], strict=True):
        torch.testing.assert_close(a, b)


@every_leaky_neuron
def test_compiled_with_dynamic_shapes(neuron):
    """T, batch and size marked dynamic: one graph for all with several checkpoints, one each for one and none (torch
    traces sizes of 0 and 1 apart)."""
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def function(x, tau):
        s, state, v = FUNCTIONS[neuron](x * 1.1, tau=tau, return_state=True, return_v_seq=True)
        return s.sum() + v.square().sum() + state.v.sum()

    compiled = torch.compile(function, fullgraph=True, backend=graphs)
    for shape, graph_count in (
        ((33, 3, 4, 5), 1),
        ((40, 2, 4, 7), 1),
        ((97, 5, 4, 6), 1),
        ((17, 3, 4, 5), 2),
        ((32, 2, 4, 9), 2),
        ((4, 2, 4, 7), 3),
        ((11, 3, 4, 5), 3),
    ):
        x = make_x(shape).requires_grad_()
        for d in (0, 1, 3):
            torch._dynamo.mark_dynamic(x, d)
        tau = torch.full((4,), 1.7, requires_grad=True)
        actual = torch.autograd.grad(compiled(x, tau), (x, tau))
        expected = torch.autograd.grad(function(x, tau), (x, tau))
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
        assert graphs.frame_count <= graph_count


@every_neuron
def test_compiled_with_several_lengths(neuron):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: FUNCTIONS[neuron](x).sum(0), fullgraph=True, backend="aot_eager")
    for steps in (4, 8, 17, 40, 1):
        x = make_x((steps, 3, 5))
        assert torch.equal(compiled(x), FUNCTIONS[neuron](x).sum(0))


# --- autocast ---


@every_leaky_neuron
@by_dtype((torch.bfloat16, torch.float16))
def test_autocast_keeps_the_kernel_and_half_precision(neuron, dtype):
    """A layer under autocast gives half precision; the kernel takes it, fused, and answers in it."""
    called = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "stdano" in str(function):
                called.append((str(function), args[0].dtype))
            return function(*args, **(kwargs or {}))

    layer, x = nn.Linear(6, 4), make_x((5, 2, 6))
    tau = torch.full((4,), 2.0, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype), Record():
        y = layer(x)
        spikes, state = FUNCTIONS[neuron](y, tau=tau, return_state=True)
    assert y.dtype == spikes.dtype == dtype and state.v.dtype == torch.float32
    assert called == [("stdano.scan_forward.default", dtype)]
    spikes.float().sum().backward()
    assert tau.grad.dtype == torch.float32 and layer.weight.grad.isfinite().all()
    with torch.autocast("cpu", dtype=dtype):
        assert FUNCTIONS[neuron](x).dtype == torch.float32, "float32 input stays float32"


# --- function transforms: right, or an error that says so ---


def right_or_refused(function, expected):
    """The transform gives the expected result, or refuses in words that a user can act on."""
    try:
        actual = function()
    except RuntimeError as error:
        assert "stdano" in str(error) or "functorch" in str(error) or "forward AD" in str(error), str(error)
        return
    torch.testing.assert_close(actual, expected(), rtol=1e-6, atol=1e-6)


@every_backend
@every_neuron
@pytest.mark.parametrize("in_dim", (0, 1, 2))
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(neuron, backend, in_dim):
    x = make_x((5, 6, 7))

    def function(y):
        return FUNCTIONS[neuron](y, backend=backend)

    right_or_refused(
        lambda: torch.vmap(function, in_dims=in_dim)(x), lambda: torch.stack([function(y) for y in x.unbind(in_dim)])
    )


@every_backend
@every_leaky_neuron
@pytest.mark.parametrize("steps", (4, 18))
def test_func_grad(neuron, backend, steps):
    x, tau = make_x((steps, 2, 3)), torch.tensor(1.7)

    def loss(x, tau):
        return (FUNCTIONS[neuron](x, tau=tau, backend=backend) * torch.arange(3)).sum()

    leaves = [t.clone().requires_grad_() for t in (x, tau)]
    right_or_refused(
        lambda: torch.func.grad(loss, argnums=(0, 1))(x, tau), lambda: torch.autograd.grad(loss(*leaves), leaves)
    )


@every_neuron
@pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:.*torch.jit.script")
def test_per_sample_gradients(neuron):
    x = make_x((5, 4, 3))

    def gradient(backend):
        return torch.func.grad(lambda y: (FUNCTIONS[neuron](y, backend=backend) * torch.arange(3)).sum())

    right_or_refused(
        lambda: torch.vmap(gradient("cpu"))(x), lambda: torch.stack([gradient("reference")(y) for y in x.unbind(0)])
    )


@every_neuron
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_forward_mode(neuron):
    """There is no forward derivative: an error, never a tangent of zero."""
    x, tangent = make_x((5, 4)), torch.ones(5, 4)
    x64 = x.double().requires_grad_()

    def function(y, backend="cpu"):
        return FUNCTIONS[neuron](y, spike="soft", surrogate="sigmoid", backend=backend)

    def expected():  # the Jacobian times the tangent, by reverse mode
        jacobian = torch.autograd.functional.jacobian(lambda y: function(y, "reference"), x64)
        return (jacobian.flatten(2).sum(2)).float()

    right_or_refused(lambda: torch.func.jvp(function, (x,), (tangent,))[1], expected)


@every_neuron
def test_second_derivatives(neuron):
    """The kernels refuse in words, the reference differentiates twice."""
    x = make_x((5, 4)).requires_grad_()

    def gradient(backend):
        (grad,) = torch.autograd.grad(
            FUNCTIONS[neuron](x, surrogate="sigmoid", backend=backend).sum(), x, create_graph=True
        )
        return grad

    with pytest.raises(
        RuntimeError, match='stdano: the kernels have no second derivative.*create_graph.*backend="reference"'
    ):
        gradient("cpu").sum().backward()
    (second,) = torch.autograd.grad(gradient("reference").sum(), x)
    assert second.abs().sum() > 0


@every_neuron
def test_backward_twice_over_one_graph(neuron):
    """retain_graph=True works; without it the error says what to do about a state that was left behind."""
    x = make_x((20, 4)).requires_grad_()
    loss = FUNCTIONS[neuron](x).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@every_neuron
@pytest.mark.parametrize("reentrant", (False, True), ids=("new", "reentrant"))
def test_activation_checkpointing(neuron, reentrant):
    x = make_x((20, 4))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    FUNCTIONS[neuron](a).sum().backward()
    torch.utils.checkpoint.checkpoint(FUNCTIONS[neuron], b, use_reentrant=reentrant).sum().backward()
    assert torch.equal(a.grad, b.grad)


def test_changing_x_in_place_before_backward_is_noticed():
    for neuron in NEURONS:
        x = make_x((5, 4)).requires_grad_()
        y = x * 1
        spikes = FUNCTIONS[neuron](y)
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            spikes.sum().backward()


@every_leaky_neuron
def test_no_gradient_for_x_alone(neuron):
    """x without gradient, states and constants with: theirs come out the same."""
    x, tau = make_x((20, 2, 3)), torch.tensor(1.7)
    expected = run(neuron, x, tau=tau, cotangents={"spikes": torch.ones_like(x)})
    leaf = tau.clone().requires_grad_()
    spikes = FUNCTIONS[neuron](x, tau=leaf)
    spikes.sum().backward()
    assert_same_bits({"grad tau": leaf.grad}, expected, ["grad tau"])
