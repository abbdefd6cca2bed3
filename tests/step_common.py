"""A train step of every public function and module, and what no such step may do on a GPU: wait for it."""

from contextlib import contextmanager

import torch
from kernels_common import FUNCTIONS, LEAKY, NEURONS, PAPER, make_cotangents, make_state, make_x
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import stdano
import stdano_kernels
from stdano.nodes.neurons import CANDIDATES, PARAMETRIC
from stdano.nodes.neurons import NEURONS as NODES

SHAPE = (9, 2, 4, 3, 5)
CHANNELS = SHAPE[2]


class Step:
    """A callable: forward and backward of a case on ``x``; its results are in ``tensors()``, which it moves."""

    def __init__(self, forward, x, parameters=(), buffers=()):
        self.forward, self.x, self.parameters, self.buffers = forward, x, list(parameters), list(buffers)
        self.cotangent = make_cotangents(NEURONS[0], x)["spikes"].to(x)

    def __call__(self):
        y = self.forward(self.x)
        leaves = [t for t in (self.x, *self.parameters) if t.requires_grad]
        return y.detach(), *torch.autograd.grad(y, leaves, self.cotangent.view(y.shape))

    def set_input(self, seed):
        self.x.detach().copy_(make_x(SHAPE, seed=seed).view(self.x.shape))


def _filled(value, device, shape=(CHANNELS,)):
    return torch.full(shape, value, device=device)


def _learnable(value, device, shape=(CHANNELS,)):
    return _filled(value, device, shape).requires_grad_()


def _function(neuron, device, backend):
    state = tuple(t.to(device) for t in make_state(neuron, make_x(SHAPE)))
    tau, v_threshold = _learnable(1.7, device), _learnable(0.9, device, ())

    def forward(x):
        plain = FUNCTIONS[neuron](x, backend=backend)
        spikes, final, v_seq = FUNCTIONS[neuron](
            x,
            tau=tau,
            v_threshold=v_threshold,
            state=state,
            return_state=True,
            return_v_seq=True,
            backend=backend,
        )
        return plain + spikes + v_seq + sum(final)

    return forward, (tau, v_threshold) if neuron in LEAKY else (v_threshold,), ()


def _bn_neuron(neuron, device, backend, training, momentum=0.1, group=None):
    weight, bias = _learnable(1.2, device), _learnable(0.1, device)
    running = _filled(0.3, device), _filled(0.8, device)
    settings = dict(training=training, momentum=momentum, process_group=group, backend=backend)
    return (
        lambda x: stdano_kernels.bn_neuron(neuron, x, *running, weight, bias, **settings),
        (weight, bias),
        running,
    )


def _super_neuron(neurons, device, backend, training, group=None):
    weights = _learnable(0.3, device, (len(neurons),))
    running = tuple(_filled(v, device, (len(neurons), CHANNELS)) for v in (0.3, 0.2))
    settings = dict(neurons=neurons, training=training, process_group=group, backend=backend)
    return lambda x: stdano_kernels.super_neuron(x, weights, *running, **settings), (weights,), running


def _module(module, device):
    """Each call a new sequence."""
    module = module.to(device)

    def forward(x):
        stdano.reset_net(module)
        return module(x)

    return forward, tuple(module.parameters()), tuple(module.buffers())


def _node(name, device, backend, **settings):
    constants = dict(v_threshold=nn.Parameter(torch.tensor(0.9)))
    if name != "IF":
        constants["tau"] = nn.Parameter(torch.full((CHANNELS,), 1.7))
    return _module(NODES[name](backend=backend, **constants, **settings), device)


def _single_steps(name, device, backend):
    node = NODES[name](backend=backend, step_mode="s", store_v_seq=True).to(device)

    def forward(x):
        node.reset()
        spikes = torch.stack([node(step) for step in x])
        return spikes + node.v_seq

    return forward, (), ()


def _synchronised_norm(device, group):
    norm = stdano.SynchronisedBatchNorm2d(CHANNELS, process_group=group, momentum=None).to(device)
    images = (SHAPE[0] * SHAPE[1], *SHAPE[2:])
    return lambda x: norm(x.view(images)).view(SHAPE), tuple(norm.parameters()), tuple(norm.buffers())


def _fused(device, backend):
    model = nn.Sequential(
        nn.Flatten(0, 1),
        nn.BatchNorm2d(CHANNELS, momentum=None),
        nn.Unflatten(0, SHAPE[:2]),
        stdano.LLIFNode(backend=backend),
    )
    assert stdano.fuse(model).fused
    return _module(model, device)


def _packed_spikes(device, backend):
    def forward(x):
        with stdano.packed_spikes():
            return FUNCTIONS[NEURONS[0]](x, backend=backend).square()

    return forward, (), ()


# name: a function of device and backend that gives forward, parameters and buffers.
CASES = {
    **{name: lambda *a, n=name: _function(n, *a) for name in NEURONS},
    **{f"bn_neuron {name}": lambda *a, n=name: _bn_neuron(n, *a, True) for name in NEURONS},
    "bn_neuron eval": lambda *a: _bn_neuron(NEURONS[0], *a, False),
    "bn_neuron, momentum a tensor": lambda *a: _bn_neuron(NEURONS[0], *a, True, _filled(0.1, a[0], ())),
    "super_neuron": lambda *a: _super_neuron(PAPER, *a, True),
    "super_neuron eval": lambda *a: _super_neuron(PAPER, *a, False),
    "super_neuron, other order": lambda *a: _super_neuron(PAPER[::-1], *a, True),
    "super_neuron, two": lambda *a: _super_neuron(PAPER[:0:-1], *a, True),
    **{cls.__name__: lambda *a, n=name: _node(n, *a) for name, cls in NODES.items()},
    **{f"{cls.__name__}, steps": lambda *a, n=name: _single_steps(n, *a) for name, cls in NODES.items()},
    **{cls.__name__: lambda d, b, c=cls: _module(c(backend=b), d) for cls in PARAMETRIC.values()},
    "BatchNormNeuron": lambda d, b: _module(stdano.BatchNormNeuron(CHANNELS, backend=b), d),
    "BatchNormNeuron, momentum=None": lambda d, b: _module(
        stdano.BatchNormNeuron(CHANNELS, momentum=None, backend=b), d
    ),
    "SuperNeuron": lambda d, b: _module(stdano.SuperNeuron(CHANNELS, backend=b), d),
    "SuperNeuron, momentum=None": lambda d, b: _module(
        stdano.SuperNeuron(CHANNELS, tuple(CANDIDATES)[:0:-1], momentum=None, backend=b), d
    ),
    "fuse": _fused,
    "packed_spikes": _packed_spikes,
}
# Those with a process group.
GROUP_CASES = {
    "bn_neuron, group": lambda d, b, g: _bn_neuron(NEURONS[0], d, b, True, group=g),
    "super_neuron, group": lambda d, b, g: _super_neuron(PAPER, d, b, True, group=g),
    "SynchronisedBatchNorm2d": lambda d, b, g: _synchronised_norm(d, g),
}
COVERED = {name.split()[0].rstrip(",") for name in (*CASES, *GROUP_CASES)}


def make_step(case, device, backend="auto", group=None, seed=0):
    """The train step of a case, its parameters the same each time."""
    torch.manual_seed(0)
    made = GROUP_CASES[case](device, backend, group) if case in GROUP_CASES else CASES[case](device, backend)
    return Step(made[0], make_x(SHAPE, seed=seed).to(device).requires_grad_(), *made[1:])


class _NoWaits(TorchDispatchMode):
    """Of operations."""

    READ = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2")
    COPIES = ("_to_copy", "copy_", "index", "index_put_", "_index_put_impl_")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.READ:
            raise AssertionError(f"{function} makes the host wait for the device")
        out = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        # A tensor of the CPU's without dimensions goes into other operations as a number.
        devices = {t.device for t in tensors if t.dim() > 0 or name in self.COPIES}
        if len(devices) > 1:
            raise AssertionError(f"{function} copies between {' and '.join(sorted(map(str, devices)))}")
        return out


class _NoNumbers(TorchFunctionMode):
    """Of tensors made from Python's numbers, which are made on the CPU and copied: no operation shows it."""

    MADE = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, torch.Tensor.new_tensor)
    INDEXED = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        index = args[1] if function in self.INDEXED else ()
        if function in self.MADE or any(isinstance(i, list) for i in (index if isinstance(index, tuple) else [index])):
            raise AssertionError(f"{function.__name__} makes a tensor on the CPU and copies it")
        return function(*args, **(kwargs or {}))


@contextmanager
def no_waits():
    """Refuses what makes the host wait for a GPU: values read from tensors, copies between devices, tensors made of
    Python's numbers, indices that are such tensors. It tells by the calls, so on any device, "meta" included."""
    with _NoWaits(), _NoNumbers():
        yield
