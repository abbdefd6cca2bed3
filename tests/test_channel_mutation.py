"""Broken kernels of the super neuron, of BatchNorm and of the affine input must fail a test, as in test_mutation.py."""

import pytest
import test_mutation
from test_mutation import AVX2, GENERIC, assert_caught, build_without_mutation

pytestmark = test_mutation.pytestmark
unchanged_objects = test_mutation.unchanged_objects

SUPER, LOOPS, CHANNELS = "csrc/cpu/super_neuron.h", "csrc/cpu/super_loops.h", "csrc/cpu/channels.h"
# name: (file, text, replacement); each text stands in its file exactly once.
MUTATIONS = {
    "four steps: a spike erases the other neurons' bits": (
        LOOPS,
        "*codes |= -static_cast<int32_t>(fired) & bit;",
        "*codes = -static_cast<int32_t>(fired) & bit;",
    ),
    "sums: what is left of a run after groups of 32": (
        SUPER,
        "for (int64_t i = 0; i < n; i += kLanes) {",
        "for (int64_t i = 0; i + kLanes <= n; i += kLanes) {",
    ),
    "backward: no gradient where a neuron was silent": (
        LOOPS,
        "fired ? table[2 * columns + i] : table[columns + i]",
        "fired ? table[2 * columns + i] : real(0)",
    ),
    "backward: LLIF's threshold is constant one step too early": (
        LOOPS,
        "steps == 1 && N::adapt_starts_at_threshold",
        "steps <= 2 && N::adapt_starts_at_threshold",
    ),
    "a block that starts within a channel counts a whole one": (
        CHANNELS,
        "g.channel_stride - b.begin % g.channel_stride;",
        "g.channel_stride;",
    ),
    "channels last: sums always from channel 0": (
        CHANNELS,
        "double* __restrict to = sums + channel;",
        "double* __restrict to = sums;",
    ),
    "affine: the centre is missing in the sum for scale": (
        CHANNELS,
        "fma_(gx, y - centre, sums.scale)",
        "fma_(gx, y, sums.scale)",
    ),
    "BatchNorm: what the statistics add has the wrong sign": (
        CHANNELS,
        "out[i] = g[i] + fma_(rows[kForwardBlock + i],",
        "out[i] = g[i] - fma_(rows[kForwardBlock + i],",
    ),
}

# Those that only the loops for usual cases have.
OF_USUAL_CASES = (
    "four steps: a spike erases the other neurons' bits",
    "backward: LLIF's threshold is constant one step too early",
)

SUBSET = dict(
    files=("test_super_layouts.py", "test_affine.py", "test_batch_norm.py"),
    selection="(float32 and (codes_are_the_neurons or y_is_the_sum or the_gradient_is_that or sums_and_moments)) "
    "or (test_super_layouts and every_layout and 4-float32) or (test_affine and test_float32 and 4-) "
    "or (test_weight_bias_and_statistics and training and lif)",
)


def level_of(mutation):
    return AVX2 if mutation in OF_USUAL_CASES else GENERIC


@pytest.fixture(scope="module", params=(GENERIC, AVX2))
def passing_build(request, unchanged_objects, tmp_path_factory):
    return build_without_mutation(unchanged_objects, tmp_path_factory.mktemp("passing"), request.param, **SUBSET)


def test_the_unchanged_build_passes(passing_build):
    assert " passed" in passing_build


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_caught(mutation, unchanged_objects, tmp_path):
    assert_caught(MUTATIONS[mutation], unchanged_objects, tmp_path, level_of(mutation), **SUBSET)
