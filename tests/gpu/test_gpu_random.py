"""Random declarations: the Triton kernels against the CPU kernels, bit for bit."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from kernels_common import assert_same_bits, make_x
from random_neurons import declarations
from test_random_neurons import FEW, results


def check(neuron, settings, steps):
    x = make_x((steps, 2, 3, 5))
    expected = results(neuron, {**settings, "alpha": 0.75}, x, "cpu")
    actual = results(neuron, {**settings, "alpha": 0.75}, x.cuda(), "triton")
    assert_same_bits({name: t.cpu() for name, t in actual.items()}, expected)


@hypothesis_settings(max_examples=2, derandomize=True, **FEW)
@given(declarations())
def test_random_declarations(drawn):
    check(*drawn, steps=9)


@pytest.mark.slow
@hypothesis_settings(max_examples=12, **FEW)
@given(declarations())
def test_more_random_declarations(drawn):
    check(*drawn, steps=4)
