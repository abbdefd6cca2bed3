"""What a step of BatchNorm with a neuron, and of a super neuron, asks of torch besides stdano's own operators."""

import torch
from kernels_common import make_x
from torch.utils._python_dispatch import TorchDispatchMode

import stdano_kernels
from stdano_kernels.checks import is_dense

# Operators that launch nothing: memory and views.
FREE = ("empty", "new_empty", "view", "detach", "alias", "select", "as_strided")
C = 3


class TorchsOwn(TorchDispatchMode):
    """The names of torch's operators that may launch kernels; and what stdano's are given that is not dense, and so
    copied."""

    def __init__(self):
        super().__init__()
        self.names, self.not_dense = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, _, name = func.name().partition("::")
        if namespace.startswith("stdano"):
            self.not_dense += [t for t in args if isinstance(t, torch.Tensor) and not is_dense(t)]
        elif not name.startswith(FREE):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def bn_neuron(x, training, backend):
    weight, bias = torch.linspace(0.8, 1.5, C, device=x.device), torch.linspace(0, 0.3, C, device=x.device)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    mean, var = torch.full((C,), 0.3, device=x.device), torch.full((C,), 0.8, device=x.device)
    options = dict(training=training, backend=backend)
    return leaves, lambda: stdano_kernels.bn_neuron("llif", leaves[0], mean, var, *leaves[1:], **options)


def super_neuron(x, training, backend):
    leaves = [x.requires_grad_(), torch.full((3,), 1 / 3, device=x.device).requires_grad_()]
    mean, var = torch.full((3, C), 0.3, device=x.device), torch.full((3, C), 0.2, device=x.device)
    options = dict(training=training, backend=backend)
    return leaves, lambda: stdano_kernels.super_neuron(*leaves, mean, var, **options)


def step(make, device, backend, training=True, layout=lambda x: x):
    """A call, and what gives the gradients of its result."""
    x = layout(make_x((8, 4, C, 8, 8)).to(device))
    leaves, call = make(x, training, backend)
    grad = torch.ones(x.shape, device=x.device)
    if training:
        torch.autograd.grad(call(), leaves, grad)  # compiles what is compiled late
        return call, lambda y: torch.autograd.grad(y, leaves, grad)

    def without_gradients():
        with torch.no_grad():
            return call()

    without_gradients()
    return without_gradients, None
