"""The one table of tolerances. A test that needs another number is wrong, or has found something.

Nothing here was fitted to make a test pass: float64 follows from the number of operations, float32 from the error
of one step times the steps over which it accumulates, and everything promised as bit-equal is compared by bits.
"""

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    rtol: float
    atol: float


# Against the float64 reference.
TOLERANCES = {
    # About 40 steps of 20 operations, each 1.1e-16: 1e-13 without cancellation. The absolute part covers sums of
    # terms of order 10 that cancel.
    torch.float64: Tolerance(rtol=1e-10, atol=1e-12),
    # The same count at 6e-8 an operation gives 5e-5; values and gradients here are of order 1 to 10.
    torch.float32: Tolerance(rtol=1e-4, atol=2e-5),
    # Half precision is computed in float32 and rounded once, so a value may lie one rounding of its own dtype (2^-8
    # and 2^-11, relative) from the exact one. Equality to rounded float32 results is checked by bits instead.
    torch.bfloat16: Tolerance(rtol=2**-8, atol=1e-4),
    torch.float16: Tolerance(rtol=2**-11, atol=1e-4),
}

# Distance of the potential to the threshold, |u|, below which a spike may differ from the float64 reference's:
# potentials are of order 1 to 10 and a step's error (1e-6) accumulates over at most 1/(1 - a) = 3 steps, times ten.
SPIKE_BAND = {
    torch.float64: 1e-9,
    torch.float32: 3e-5,
    torch.bfloat16: 3e-5,
    torch.float16: 3e-5,
}

# One float64 sum in another order, relative to the sum of magnitudes.
REDUCTION = {
    torch.float64: Tolerance(rtol=1e-12, atol=1e-12),
    # Terms are float32, sums are double: what remains is the rounding of the result and of each chunk's share.
    torch.float32: Tolerance(rtol=1e-5, atol=1e-5),
    torch.bfloat16: Tolerance(rtol=1e-5, atol=1e-5),
    torch.float16: Tolerance(rtol=1e-5, atol=1e-5),
}

# Units in the last place, as neuron_math.h states them (at most 4 are allowed). exp of negative numbers:
# 1.061 is the worst of all floats from -87.3 to 0, at -5.84202623.
ULP = {"tanh": 3.0, "exp of negative": 1.1, "exp": 3.0, "reciprocal": 1.0, "atan": 2.0, "log": 1.0, "sigmoid": 4.0}

# Central differences of a primitive in float64 with a step of 1e-6: truncation 1e-12 times its third derivative
# (up to alpha^3), rounding 1e-16/1e-6.
NUMERICAL_DERIVATIVE = Tolerance(rtol=1e-6, atol=1e-8)

# One rounding to a dtype of half precision, relative: half a unit of its last place.
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}

# BatchNorm where the mean is 1000 deviations from 0. The variance is the difference of two numbers of order 1e6: in
# float64 it and all that follows is good to 1e6 * 2.2e-16 times the rounding errors of a sum over a few hundred terms
# (at most their number), on both sides. In float32, centred exactly (the mean's own rounding is made good), the usual
# errors remain.
LARGE_MEAN = {
    torch.float64: Tolerance(rtol=1e-7, atol=1e-7),
    torch.float32: Tolerance(rtol=1e-4, atol=2e-5),
}

# The simulator's own tests. CUDA's float32 functions are good to a few units in the last place (6e-8 each), exp in
# float64 to one. Sums of a few hundred float32 numbers, relative to the sum of magnitudes.
CUDA_MATH = Tolerance(rtol=2e-6, atol=1e-6)
CUDA_EXP64 = Tolerance(rtol=1e-15, atol=0)
FLOAT_SUM = 1e-5
