"""The device operators as citizens of PyTorch: choice of backend, autocast, torch.compile, opcheck, modules, memory."""

import copy
import sys
import warnings

import pytest
import torch
from gpu_common import backward_arguments, every_backend, operator_arguments, operators, two_neurons
from kernels_common import (
    FUNCTIONS,
    HALF,
    STATES,
    by_dtype,
    every_leaky_neuron,
    every_neuron_of_the_paper,
    make_affine,
    make_cotangents,
    make_state,
    make_x,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import stdano_kernels
from stdano.nodes.neurons import CANDIDATES as NODES
from stdano_kernels import functional
from stdano_kernels.fakes import CHANNEL_OPERATORS
from stdano_kernels.registration import NAMESPACES

backends = sys.modules["stdano_kernels.backends"]  # whose name in the package is the function's


class Record(TorchDispatchMode):
    """Names and dtypes of stdano's operators that run inside."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "stdano" in str(function):
            self.calls.append((str(function).removesuffix(".default"), args[0].dtype))
        return function(*args, **(kwargs or {}))


def operators_of(call):
    with Record() as record:
        call()
    return [name for name, _ in record.calls]


# --- choice of the backend ---


@pytest.fixture
def without(monkeypatch):
    """Makes backends look as if they were not there."""

    def remove(*names):
        if "cuda" in names:
            monkeypatch.setattr(backends, "CUDA_EXTENSION_ERROR", "the CUDA kernels were left out")
        if "triton" in names:
            monkeypatch.setattr(backends, "_load_triton", lambda: "Triton was left out")
        backends.warn_once.cache_clear()

    yield remove
    backends.warn_once.cache_clear()


def test_backends_are_there_and_described():
    status = stdano_kernels.backends()
    assert status["cuda"].available and status["triton"].available, status
    assert set(status["cuda"].details) == {"toolkit", "architectures"}
    assert "." in status["cuda"].details["architectures"]


@pytest.mark.exhaustive  # a simulated device is slow, and large tensors are all there is to it
def test_auto_gives_large_tensors_to_triton():
    x = torch.zeros(4, 1 << 20, device="cuda")
    assert operators_of(lambda: stdano_kernels.lif(x)) == ["stdano_triton.scan_forward"]
    assert operators_of(lambda: stdano_kernels.lif(x[:, 1:])) == ["stdano.scan_forward"]
    compiled = torch.compile(stdano_kernels.lif)
    assert torch.equal(compiled(x), stdano_kernels.lif(x, backend="cuda"))


@two_neurons
def test_auto_takes_cuda_then_triton_then_the_reference(neuron, without):
    x, call = make_x((4, 3)).cuda(), functional.FUNCTIONS[neuron]
    expected = call(x.cpu())
    assert operators_of(lambda: call(x)) == ["stdano.scan_forward"]
    without("cuda")
    assert operators_of(lambda: call(x)) == ["stdano_triton.scan_forward"]
    assert torch.equal(call(x).cpu(), expected)
    without("triton")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert torch.equal(call(x).cpu(), expected)
    (warning,) = [w for w in seen if "stdano" in str(w.message)]
    assert "the CUDA kernels were left out; Triton was left out" in str(warning.message)
    assert warning.filename == __file__, "the warning points at the caller"


def test_an_explicit_backend_never_falls_back(without):
    x = make_x((4, 3)).cuda()
    with pytest.raises(ValueError, match='backend="cpu" needs x on a cpu device, got cuda:0'):
        stdano_kernels.lif(x, backend="cpu")
    for backend in ("cuda", "triton"):
        with pytest.raises(ValueError, match=f'backend="{backend}" needs x on a cuda device, got cpu'):
            stdano_kernels.lif(x.cpu(), backend=backend)
    with pytest.raises(RuntimeError, match='backend="triton" is not available here: .*not float64'):
        stdano_kernels.lif(x.double(), backend="triton")
    without("cuda", "triton")
    with pytest.raises(RuntimeError, match='backend="cuda" is not available here: the CUDA kernels were left out'):
        stdano_kernels.lif(x, backend="cuda")
    with pytest.raises(RuntimeError, match='backend="triton" is not available here: Triton was left out'):
        stdano_kernels.lif(x, backend="triton")


def test_float64_without_cuda_kernels_takes_the_reference(without):
    without("cuda")
    with pytest.warns(RuntimeWarning, match="not float64"):
        stdano_kernels.lif(make_x((4, 3), torch.float64).cuda())


@pytest.fixture
def answers(monkeypatch):
    """Changes what the driver answers, for which it is asked anew."""

    def change(owner, name, answer):
        monkeypatch.setattr(owner, name, answer)
        forget()

    def forget():
        for asked in (backends._device_error, backends._code_error, backends.warn_once):
            asked.cache_clear()

    yield change
    forget()


def test_a_device_that_the_build_has_no_code_for_gets_triton(answers):
    """A build for another architecture, or PTX that the driver is too old for: launches would fail."""
    assert torch.ops.stdano.cuda_code_error(torch.cuda.current_device()) == ""
    answers(torch.ops.stdano, "cuda_code_error", lambda index: "no kernel image is available")
    x = make_x((4, 3)).cuda()
    assert operators_of(lambda: stdano_kernels.lif(x)) == ["stdano_triton.scan_forward"]
    with pytest.raises(RuntimeError, match=r'backend="cuda" is not available here: .*\(no kernel image is available\)'):
        stdano_kernels.lif(x, backend="cuda")
    status = stdano_kernels.backends()
    assert "TORCH_CUDA_ARCH_LIST" in status["cuda"].reason and not status["cuda"].available
    assert status["triton"].available


def test_the_driver_is_asked_once(answers):
    asked, operator = [], torch.ops.stdano.cuda_code_error
    answers(torch.ops.stdano, "cuda_code_error", lambda index: asked.append(index) or operator(index))
    for _ in range(3):
        stdano_kernels.lif(make_x((4, 3)).cuda())
    assert stdano_kernels.backends()["cuda"].available
    assert asked == [torch.cuda.current_device()]


def test_the_driver_is_asked_while_shapes_are_traced(answers):
    """Inside a mode that takes every operation for one on tensors without values."""
    answers(torch.cuda, "get_device_name", torch.cuda.get_device_name)  # the same, to be asked anew
    with torch._subclasses.FakeTensorMode():
        spikes = stdano_kernels.lif(torch.empty(4, 3, device="cuda"))
    assert spikes.shape == (4, 3)


def test_a_device_that_is_too_old_is_named(answers):
    answers(torch.cuda, "get_device_capability", lambda index=None: (7, 2))
    with pytest.raises(RuntimeError, match="has compute capability 7.2; the kernels need 7.5"):
        stdano_kernels.lif(make_x((4, 3)).cuda(), backend="cuda")
    assert not stdano_kernels.backends()["triton"].available


# --- tracing, autocast, modules ---

CASES = {
    "plain": dict(shape=(3, 2, 4)),
    "checkpoints and everything": dict(shape=(17, 2, 3), outputs=True, state=True, constants=(3,)),
    "float16": dict(shape=(9, 2, 4), dtype=torch.float16, constants=()),
    "constants of neurons": dict(shape=(4, 2, 3), constants=(2, 3)),
    "affine": dict(shape=(3, 2, 4), affine=True),
    "no neurons": dict(shape=(3, 0, 4), outputs=True),
}


@every_backend
@two_neurons
@pytest.mark.parametrize("case", CASES)
def test_opcheck(backend, neuron, case):
    given = dict(CASES[case])
    x = make_x(given.pop("shape"), given.pop("dtype", torch.float32))
    constants = torch.ones(given.pop("constants")) if "constants" in given else None
    state = make_state(neuron, x) if given.pop("state", False) else ()
    affine = make_affine(x) if given.pop("affine", False) else None
    arguments = operator_arguments(neuron, x, state=state, constants=constants, affine=affine, save=True, **given)
    ops = operators(backend)
    torch.library.opcheck(ops.scan_forward.default, arguments)
    torch.library.opcheck(ops.scan_backward.default, backward_arguments(arguments, ops.scan_forward(*arguments)))


def test_schemas_agree():
    """Triton's operators take and return what the compiled ones do."""
    stdano_kernels.lif(make_x((1, 1)).cuda(), backend="triton")
    for name in ("scan_forward", "scan_backward", *CHANNEL_OPERATORS):
        ours, theirs = (
            str(getattr(getattr(torch.ops, space), name).default._schema).split("::")[1]
            for space in ("stdano_triton", "stdano")
        )
        assert ours == theirs


@every_backend
@every_leaky_neuron
@pytest.mark.parametrize("steps", (4, 18))
def test_compiled_equals_eager(backend, neuron, steps):
    """One opaque operator in a full graph, forward and backward, with the state handed over."""
    torch._dynamo.reset()

    def function(x, tau):
        s, state = FUNCTIONS[neuron](x * 1.5, tau=tau, return_state=True, backend=backend)
        t = FUNCTIONS[neuron](x + s, state=state, backend=backend)
        return (t * 2 + s).sum() + state.v.square().sum()

    x = make_x((steps, 3, 4)).cuda().requires_grad_()
    tau = torch.full((4,), 1.7, device="cuda", requires_grad=True)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    actual = torch.autograd.grad(compiled(x, tau), (x, tau))
    assert all(torch.equal(a, b) for a, b in zip(actual, torch.autograd.grad(function(x, tau), (x, tau)), strict=True))


@two_neurons
def test_compiled_auto(neuron, without):
    """The choice of the backend is made while the graph is traced, and does not break it."""
    x = make_x((4, 3)).cuda()
    for removed in ((), ("cuda",)):
        without(*removed)
        torch._dynamo.reset()
        compiled = torch.compile(lambda y: FUNCTIONS[neuron](y) * 2, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), FUNCTIONS[neuron](x) * 2)


@every_backend
@two_neurons
@by_dtype(HALF)
def test_autocast_keeps_the_kernel_and_half_precision(backend, neuron, dtype):
    """A layer under autocast gives half precision; one fused kernel takes it and answers in it."""
    layer, x = nn.Linear(6, 4).cuda(), make_x((5, 2, 6)).cuda()
    tau = torch.full((4,), 2.0, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype=dtype), Record() as record:
        y = layer(x)
        spikes, state = FUNCTIONS[neuron](y, tau=tau, return_state=True, backend=backend)
    assert y.dtype == spikes.dtype == dtype and state.v.dtype == torch.float32
    assert record.calls == [(f"{NAMESPACES[backend]}.scan_forward", dtype)]
    spikes.float().sum().backward()
    assert tau.grad.dtype == torch.float32 and layer.weight.grad.isfinite().all()


@every_backend
@every_neuron_of_the_paper
def test_modules_train_as_on_the_cpu(backend, neuron):
    """Two steps of the same network, the neurons on the device and on the CPU."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, padding=1)
    nodes = {
        device: NODES[neuron.upper()](step_mode="m", backend=b) for device, b in (("cpu", "auto"), ("cuda", backend))
    }
    results = {}
    for device, node in nodes.items():
        layer = copy.deepcopy(conv).to(device)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, foreach=False)
        for step in range(2):
            x = make_x((9, 2, 2, 5, 6), seed=step).to(device)
            node.reset()
            y = node(layer(x.flatten(0, 1)).unflatten(0, (9, 2)))
            optimizer.zero_grad()
            (y * make_cotangents(neuron, y.cpu())["spikes"].to(device)).mean().backward()
            optimizer.step()
        results[device] = [y.detach().cpu(), *(p.detach().cpu() for p in layer.parameters())]
    # cuDNN's convolution rounds otherwise on a real device, where a spike may then differ
    assert (results["cuda"][0] != results["cpu"][0]).float().mean() < 1e-2
    for a, b in zip(results["cuda"][1:], results["cpu"][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


# --- what is kept ---


@every_backend
@two_neurons
@by_dtype((torch.float32, *HALF))
@pytest.mark.parametrize("steps, chunks", ((1, 0), (8, 0), (9, 1), (16, 1), (17, 2), (33, 4)))
def test_kept_for_backward(backend, neuron, dtype, steps, chunks):
    """x itself, and beyond 8 steps one state in float32 every 8."""
    saved = []

    def pack(t):
        saved.append(t) if t.numel() > 0 else None
        return t

    x = make_x((steps, 2, 15), dtype).cuda().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        FUNCTIONS[neuron](x, backend=backend)
    assert saved[0].data_ptr() == x.data_ptr()
    expected = [(chunks, len(STATES[neuron]), 30)] if chunks else []
    assert [tuple(t.shape) for t in saved[1:]] == expected
    assert all(t.dtype == torch.float32 for t in saved[1:])


@every_backend
def test_wrong_tensors_are_refused_by_the_operators_themselves(backend):
    """Who calls an operator directly gets an error, not a wild read."""
    forward, x = operators(backend).scan_forward, make_x((3, 2, 4)).cuda()
    x, _, _, affine, which, values, *rest = operator_arguments("llif", x.cpu(), outputs=True)
    errors = (RuntimeError, ValueError, TypeError)
    right = torch.zeros(2, 4, device="cuda")
    for wrong in (right.cpu(), right[:, :3], right.double()):
        with pytest.raises(errors, match="state"):
            forward(x, [right, wrong], [], affine, which, values, *rest)
    with pytest.raises(errors, match="states"):
        forward(x, [right], [], affine, which, values, *rest)
    one_a_channel = torch.ones(4, device="cuda")
    for wrong in (one_a_channel[:3], one_a_channel.double(), one_a_channel.cpu(), torch.ones(8, device="cuda")[::2]):
        with pytest.raises(errors, match="constants"):
            forward(x, [], [wrong], affine, [0], values, *rest)
    with pytest.raises(errors, match="constants"):
        forward(x, [], [], affine, which, values[1:], *rest)
