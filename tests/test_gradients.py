"""gradcheck in float64 with soft spikes, where every function is differentiable, for the reference and the kernels:
all inputs (x, states, tau, v_threshold) and all outputs (spikes, final states, potentials)."""

import pytest
import torch
from kernels_common import FUNCTIONS, OPTIONS, every_backend, every_neuron, make_state, make_x, options_of, short

SETTINGS = [{k: o[k] for k in ("v_reset", "decay", "decay_input")} for o in OPTIONS]
# Triangle has kinks, at distance 1/alpha from the threshold and at none of the potentials below (asserted).
SURROGATES = {"sigmoid": 2.0, "atan": 1.5, "triangle": 0.25, "piecewise_exp": 1.0, "fast_sigmoid": 1.0}


def check(neuron, backend, x, tau, v_threshold, state, **settings):
    constants = options_of(neuron, {"tau": tau, "v_threshold": v_threshold})
    tensors = [t.double().requires_grad_() for t in (x, *constants.values(), *state)]

    def function(x, *others):
        constant_tensors, state = others[: len(constants)], others[len(constants) :]
        spikes, final, v_seq = FUNCTIONS[neuron](
            x,
            state=state or None,
            spike="soft",
            return_state=True,
            return_v_seq=True,
            backend=backend,
            **dict(zip(constants, constant_tensors, strict=True)),
            **options_of(neuron, settings),
        )
        return (spikes, *final, v_seq)

    assert torch.autograd.gradcheck(function, tensors)


@every_backend
@every_neuron
@pytest.mark.parametrize("settings", SETTINGS, ids=short)
def test_gradcheck_settings(neuron, backend, settings):
    x = make_x((4, 1, 2), torch.float64)
    state = make_state(neuron, x)
    check(neuron, backend, x, torch.tensor(1.8), torch.tensor(0.9), state, surrogate="sigmoid", alpha=2.0, **settings)


@every_backend
@pytest.mark.parametrize("neuron", ("lif", "slif"))
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradcheck_surrogates(neuron, backend, surrogate):
    x = make_x((3, 1, 2), torch.float64)
    alpha = SURROGATES[surrogate]
    if surrogate in ("piecewise_exp", "fast_sigmoid"):
        # Their derivative has a kink at u = 0; the primitive is smooth enough for differences away from it.
        _, v_seq = FUNCTIONS[neuron](x, surrogate=surrogate, alpha=alpha, spike="soft", return_v_seq=True)
        assert v_seq.abs().min() > 1e-3
    check(neuron, backend, x, torch.tensor(1.8), torch.tensor(0.9), (), surrogate=surrogate, alpha=alpha)


@every_backend
@every_neuron
@pytest.mark.parametrize("per_channel", ("tau", "v_threshold", "both"))
def test_gradcheck_channels(neuron, backend, per_channel):
    x = make_x((3, 1, 2, 2), torch.float64)
    tau = torch.tensor([1.5, 2.5]) if per_channel != "v_threshold" else torch.tensor(2.0)
    v_threshold = torch.tensor([0.8, 1.1]) if per_channel != "tau" else torch.tensor(1.0)
    check(neuron, backend, x, tau, v_threshold, (), surrogate="atan", alpha=1.5)


@every_neuron
def test_gradcheck_across_checkpoints(neuron):
    """T = 18: two chunks, so the second starts from a saved state."""
    x = make_x((18, 1, 1), torch.float64)
    state = make_state(neuron, x)
    check(neuron, "cpu", x, torch.tensor(1.8), torch.tensor(0.9), state, surrogate="sigmoid", alpha=2.0)


@every_backend
def test_gradcheck_slif_with_tau_min(backend):
    """beta so large that tau_min acts after a strong spike and not after a weak one."""
    x = torch.tensor([[2.5, 0.1], [0.4, 0.6], [1.5, 0.2]], dtype=torch.float64)
    check(
        "slif",
        backend,
        x,
        torch.tensor(1.4),
        torch.tensor(1.0),
        (),
        surrogate="sigmoid",
        alpha=2.0,
        beta=0.6,
        tau_min=1.2,
    )


@every_backend
@every_neuron
def test_reference_gradgradcheck_is_left_to_the_reference(neuron, backend):
    """The reference differentiates twice (soft spikes, smooth surrogate); the kernels say that they do not."""
    x = make_x((3, 2), torch.float64).requires_grad_()

    def function(x):
        return FUNCTIONS[neuron](x, spike="soft", surrogate="sigmoid", backend=backend)

    if backend == "reference":
        assert torch.autograd.gradgradcheck(function, (x,))
    else:
        (grad,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            grad.sum().backward()
