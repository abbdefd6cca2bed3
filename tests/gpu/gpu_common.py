"""One call on the device and the same on the CPU."""

import pytest
import torch
from kernels_common import assert_close, assert_same_bits, make_cotangents, run
from tolerances import REDUCTION

from stdano_kernels.backends import select
from stdano_kernels.registration import NAMESPACES

BACKENDS = ("cuda", "triton")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
SUMS = ("grad tau", "grad v_threshold", "grad affine")


def operators(backend):
    """A backend's operators, which are loaded when they are first asked for."""
    select(backend, torch.empty(1, device="cuda"))
    return getattr(torch.ops, NAMESPACES[backend])


def to_device(value):
    """Tensors, alone or in dictionaries and tuples, in their own layout on the device."""
    if isinstance(value, dict):
        return {k: to_device(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(to_device, value))
    return value.cuda() if isinstance(value, torch.Tensor) else value


def device_run(neuron, x, *, backend, state=None, cotangents=None, **options):
    """kernels_common.run on the device, from CPU tensors to CPU tensors."""
    cotangents = make_cotangents(neuron, x) if cotangents is None else cotangents
    result = run(
        neuron,
        x.cuda(),
        backend=backend,
        state=to_device(state),
        cotangents=to_device(cotangents),
        **to_device(options),
    )
    return {name: t.cpu() for name, t in result.items()}


def assert_equals_cpu(neuron, x, *, backend, **options):
    """Every output and gradient has the CPU kernels' bits; the sums for constants, which are taken in another order,
    lie within the table's tolerance."""
    actual, expected = device_run(neuron, x, backend=backend, **options), run(neuron, x, **options)
    assert actual.keys() == expected.keys()
    assert_same_bits(actual, expected, [name for name in expected if name not in SUMS])
    assert_close(actual, expected, REDUCTION[x.dtype], [name for name in expected if name in SUMS])
    return actual


# The arguments of a super neuron's operators from `neurons` on, in their order.
SUPER_SETTINGS = dict(
    neurons=7,
    tau=1.7,
    v_threshold=0.9,
    v_reset=0.0,
    slif_v_reset=None,
    gamma=0.15,
    beta=0.2,
    tau_min=1.05,
    linear_decay=False,
    decay_input=False,
    surrogate=0,
    alpha=1.0,
    detach_reset=False,
    detach_adapt=False,
)


def super_settings(**changes):
    assert changes.keys() <= SUPER_SETTINGS.keys()
    return tuple({**SUPER_SETTINGS, **changes}.values())
