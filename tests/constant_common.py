"""Constant input beside its copies, on the CPU and on a device."""

import torch
from kernels_common import FUNCTIONS, STATES, assert_same_bits, compute_dtype, make_affine, make_state, make_x

# name: steps, shape of one, what else the neuron is given.
CASES = {
    "short": (4, (2, 3, 5, 5), ()),
    "channels last": (5, (2, 3, 5, 5), ("channels last", "state")),
    "affine": (2, (1, 3, 7, 1), ("affine", "channels last")),
    "checkpoints": (33, (2, 3, 5), ("state", "affine", "constants")),
    "one a neuron": (8, (2, 3, 4), ("neurons",)),
}


def case(neuron, name, dtype):
    """One step, how many there are, and the neuron's arguments."""
    steps, shape, what = CASES[name]
    step = make_x(shape, dtype)
    if "channels last" in what:
        step = step.contiguous(memory_format=torch.channels_last)
    x = step.expand(steps, *shape)
    given = {}
    if "affine" in what:
        given["affine"] = make_affine(x)
    if "state" in what:
        given["state"] = make_state(neuron, x)
    real = compute_dtype(dtype)
    if "constants" in what:
        given |= {"v_threshold": torch.tensor([0.9, 1.0, 1.1], dtype=real)}
    if "neurons" in what:
        given |= {"v_threshold": 0.9 + 0.2 * torch.rand(shape, dtype=real, generator=torch.Generator().manual_seed(4))}
    return step, steps, given


def call(neuron, x, given, device="cpu", **settings):
    """Everything that a call gives, by name, and "grad NAME" of what goes in besides x."""

    def leaf(value):
        if isinstance(value, tuple):
            return tuple(map(leaf, value))
        return value.to(device).detach().requires_grad_()

    given = {name: leaf(value) for name, value in given.items()}
    spikes, final, values = FUNCTIONS[neuron](
        x, return_state=True, return_sequences=STATES[neuron], **given, **settings
    )
    out = {"spikes": spikes, **final._asdict()}
    out |= {f"all of {name}": t for name, t in zip(STATES[neuron], values, strict=True)}
    generator = torch.Generator().manual_seed(7)
    gs = [(torch.randint(-64, 65, t.shape, generator=generator) / 32).to(t) for t in out.values()]
    torch.autograd.backward(list(out.values()), gs)
    for name, value in given.items():
        for k, t in enumerate(value if isinstance(value, tuple) else (value,)):
            out[f"grad {name} {k}"] = t.grad
    return {name: t.detach().cpu() for name, t in out.items()}


def constant(neuron, step, steps, given, device="cpu", **settings):
    start = step.to(device).detach().requires_grad_()
    out = call(neuron, start.expand(steps, *step.shape), given, device, **settings)
    return out | {"grad x": start.grad.cpu()}


def assert_as_copies(neuron, step, steps, given):
    """In half precision each step's gradient is seen before it is rounded, in a call of x in float32 whose spikes'
    gradient has the same values."""
    actual = constant(neuron, step, steps, given)
    copies = step.expand(steps, *step.shape).clone().requires_grad_()
    expected = call(neuron, copies, given)
    assert actual["spikes"].stride() == expected["spikes"].stride()
    wide = copies
    if step.dtype in (torch.float16, torch.bfloat16):
        wide = copies.detach().float().requires_grad_()
        call(neuron, wide, given)
    total = wide.grad[-1]
    for t in reversed(range(steps - 1)):
        total = total + wide.grad[t]
    assert_same_bits(actual, expected | {"grad x": total.to(step.dtype)})
