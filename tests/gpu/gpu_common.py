"""One call on the device and the same on the CPU."""

import pytest
import torch
from channels_common import members
from kernels_common import DECLARED, PAPER, assert_close, assert_same_bits, make_cotangents, run
from tolerances import REDUCTION

from stdano_kernels.backends import select
from stdano_kernels.registration import NAMESPACES

BACKENDS = ("cuda", "triton")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
# What the loops around a neuron's step do with memory does not depend on the neuron: one with one state, and one with
# two and with constants of its own.
two_neurons = pytest.mark.parametrize("neuron", ("lif", "alif"))


def operators(backend):
    """A backend's operators, which are loaded when they are first asked for."""
    select(backend, torch.empty(1, device="cuda"))
    return getattr(torch.ops, NAMESPACES[backend])


def to_device(value):
    """Tensors, alone or in dictionaries, lists and tuples, in their own layout on the device."""
    if isinstance(value, dict):
        return {k: to_device(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(to_device, value))
    return value.cuda() if isinstance(value, torch.Tensor) else value


def device_run(neuron, x, *, backend, state=None, cotangents=None, **options):
    """kernels_common.run on the device, from CPU tensors to CPU tensors."""
    cotangents = make_cotangents(neuron, x) if cotangents is None else cotangents
    try:
        result = run(
            neuron,
            x.cuda(),
            backend=backend,
            state=to_device(state),
            cotangents=to_device(cotangents),
            **to_device(options),
        )
    except RuntimeError as error:
        if backend == "cuda" and "the CUDA kernels are compiled for the usual settings" in str(error):
            pytest.skip("settings that Triton serves")
        raise
    return {name: t.cpu() for name, t in result.items()}


def assert_equals_cpu(neuron, x, *, backend, **options):
    """Every output and gradient has the CPU kernels' bits; the sums for constants, which are taken in another order,
    lie within the table's tolerance."""
    actual, expected = device_run(neuron, x, backend=backend, **options), run(neuron, x, **options)
    assert actual.keys() == expected.keys()
    sums = [name for name in expected if name.removeprefix("grad ") in (*DECLARED[neuron].constants, "affine")]
    assert_same_bits(actual, expected, [name for name in expected if name not in sums])
    assert_close(actual, expected, REDUCTION[x.dtype], sums)
    return actual


def operator_arguments(neuron, x, *, state=(), constants=None, affine=None, save=False, outputs=False, **settings):
    """The arguments of scan_forward on the device. ``constants``: a tensor that each of them is, or numbers."""
    (kernel,), (*values, alpha) = members((neuron,), x, tau=1.7, v_threshold=0.9, **settings)
    which = [] if constants is None else list(range(len(values)))
    tensors = [constants * value for value in values] if which else []
    arguments = (x, list(state), tensors, affine, which, values, alpha, kernel, save, outputs, [0] if outputs else [])
    return tuple(map(to_device, arguments))


def backward_arguments(forward, results):
    """The arguments of scan_backward from those of scan_forward and what it gave: a gradient of 1 for everything."""
    x, state, constants, affine, *settings = forward
    spikes, final, sequences, checkpoints = results
    grads = (torch.ones_like(spikes), [torch.ones_like(t) for t in final], [torch.ones_like(t) for t in sequences])
    return (*grads, x, state, checkpoints, constants, affine, *settings[:4], settings[-1])


def super_arguments(x, neurons=PAPER, **settings):
    """Kernels of a super neuron's operators, and the constants and alpha of each."""
    return members(neurons, x, **{"tau": 1.7, "v_threshold": 0.9, "gamma": 0.15, "beta": 0.2, **settings})
