"""Surrogates: derivative and primitive belong together, stay finite, and are the same in Python and C++."""

import pytest
import torch
from kernels_common import by_dtype, every_surrogate
from tolerances import NUMERICAL_DERIVATIVE, TOLERANCES

from stdano_kernels import SURROGATES, lif, surrogate

every_alpha = pytest.mark.parametrize("alpha", (0.25, 1.0, 2.0, 4.0))
EXTREME_U = [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1e30, -1e30, float("inf"), -float("inf")]
EXTREME_ALPHA = (1e-30, 1e-3, 1e3, 1e30)


def grid():
    """Odd multiples of 1/400 less a bit: no kink (0, 1/alpha, 1/(2 alpha)) lies within a step of the differences."""
    return torch.arange(-1601, 1602, 2, dtype=torch.float64) / 400 + 1e-4


def through_kernel(name, u, alpha, spike="hard", backend="cpu"):
    """Derivative (hard spikes: the gradient; T = 1, v_threshold 0) or primitive (soft spikes) as a backend has them."""
    x = u[None].clone().requires_grad_()
    spikes = lif(x, v_threshold=0.0, surrogate=name, alpha=alpha, spike=spike, backend=backend)
    if spike == "soft":
        return spikes[0].detach()
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    return grad[0]


@every_surrogate
@every_alpha
def test_derivative_is_that_of_the_primitive(surrogate, alpha):
    from stdano_kernels.surrogate import derivative, primitive

    u, step = grid(), 1e-6
    numerical = (primitive(surrogate, u + step, alpha) - primitive(surrogate, u - step, alpha)) / (2 * step)
    torch.testing.assert_close(numerical, derivative(surrogate, u, alpha), **NUMERICAL_DERIVATIVE._asdict())


@every_surrogate
@every_alpha
def test_primitive_is_a_step(surrogate, alpha):
    from stdano_kernels.surrogate import derivative, primitive

    u = grid()
    half = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(primitive(surrogate, torch.zeros(1).double(), alpha), half[None])
    torch.testing.assert_close(primitive(surrogate, u, alpha) + primitive(surrogate, -u, alpha), 2 * half.expand_as(u))
    assert (primitive(surrogate, u, alpha).diff() >= 0).all()
    torch.testing.assert_close(derivative(surrogate, u, alpha), derivative(surrogate, -u, alpha))
    assert (derivative(surrogate, u, alpha) >= 0).all()


@every_surrogate
@by_dtype((torch.float32, torch.float64))
@pytest.mark.parametrize("alpha", EXTREME_ALPHA)
def test_python_is_finite_everywhere(surrogate, dtype, alpha):
    from stdano_kernels.surrogate import derivative, primitive

    u = torch.tensor(EXTREME_U, dtype=dtype)
    assert derivative(surrogate, u, alpha).isfinite().all(), derivative(surrogate, u, alpha)
    assert primitive(surrogate, u, alpha).isfinite().all(), primitive(surrogate, u, alpha)


@every_surrogate
@by_dtype((torch.float32, torch.float64))
@pytest.mark.parametrize("alpha", EXTREME_ALPHA)
def test_kernels_are_finite_everywhere(surrogate, dtype, alpha):
    u = torch.tensor(EXTREME_U, dtype=dtype)
    derivative, primitive = through_kernel(surrogate, u, alpha), through_kernel(surrogate, u, alpha, "soft")
    assert derivative.isfinite().all(), derivative
    assert primitive.isfinite().all(), primitive


@every_surrogate
@by_dtype((torch.float32, torch.float64))
@pytest.mark.parametrize("alpha", EXTREME_ALPHA)
def test_kernels_at_the_threshold_and_at_infinity(surrogate, dtype, alpha):
    """The two values that are known for every alpha: the peak at u = 0, and nothing at infinity."""
    u = torch.tensor([0.0, float("inf"), -float("inf")], dtype=dtype)
    peak = {"sigmoid": alpha / 4, "atan": alpha / 2, "piecewise_exp": alpha / 2, "fast_sigmoid": 1.0}
    expected = torch.tensor([peak.get(surrogate, alpha), 0.0, 0.0], dtype=dtype)
    if surrogate == "rectangle":
        expected[1:] = 0.0
    torch.testing.assert_close(through_kernel(surrogate, u, alpha), expected, rtol=1e-6, atol=0)


@every_surrogate
@every_alpha
@by_dtype((torch.float32, torch.float64))
def test_kernels_have_the_same_derivative_and_primitive(surrogate, alpha, dtype):
    from stdano_kernels.surrogate import derivative, primitive

    u = grid().to(dtype)
    if surrogate == "rectangle":  # whose jump may fall on either side of a rounded 1/(2 alpha)
        u = u[(u.abs() - 0.5 / alpha).abs() > 1e-6]
    expected = {
        "derivative": derivative(surrogate, u.double(), alpha),
        "primitive": primitive(surrogate, u.double(), alpha),
    }
    actual = {
        "derivative": through_kernel(surrogate, u, alpha),
        "primitive": through_kernel(surrogate, u, alpha, "soft"),
    }
    tolerance = TOLERANCES[dtype]
    for name, value in expected.items():
        torch.testing.assert_close(actual[name].double(), value, rtol=tolerance.rtol, atol=tolerance.atol)


def test_names():
    with pytest.raises(ValueError, match="surrogate must be one of triangle, .*got 'step'"):
        surrogate.derivative("step", torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="surrogate must be one of triangle, .*got 'step'"):
        surrogate.primitive("step", torch.zeros(1), 1.0)
    assert len(set(SURROGATES)) == 6
