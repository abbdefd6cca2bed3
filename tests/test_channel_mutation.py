"""Broken kernels of the super neuron, of BatchNorm and of the affine input must fail a test, as in test_mutation.py."""

import pytest
import test_mutation
from test_mutation import assert_caught, build_without_mutation

pytestmark = test_mutation.pytestmark
unchanged_objects = test_mutation.unchanged_objects

SUPER, CHANNELS, PASSES = "csrc/cpu/super_neuron.h", "csrc/cpu/channels.h", "csrc/cpu/passes.h"
# name: (file, text, replacement); each text stands in its file exactly once.
MUTATIONS = {
    "four steps: the bit of another neuron": (
        SUPER,
        "x.stride, codes, columns, 1 << k, n);",
        "x.stride, codes, columns, 4 >> k, n);",
    ),
    "a spike erases the other neurons' bits": (SUPER, "codes[i] |= fired ? bit : 0;", "codes[i] = fired ? bit : 0;"),
    "the state does not start at v_reset": (
        SUPER,
        "return {p.v_reset, N::initial_adapt(c)};",
        "return {real(0), N::initial_adapt(c)};",
    ),
    "decode: SLIF's row is LLIF's": (
        SUPER,
        "(code & 4) != 0 ? table[3 * columns + i]",
        "(code & 4) != 0 ? table[2 * columns + i]",
    ),
    "decode: each piece of memory starts at the block's first channel": (
        SUPER,
        "decode_loop(call.codes + offset, table + first,",
        "decode_loop(call.codes + offset, table,",
    ),
    "sums: what is left of a run after groups of 32": (
        SUPER,
        "for (int64_t i = 0; i < n; i += lanes) {",
        "for (int64_t i = 0; i + lanes <= n; i += lanes) {",
    ),
    "backward: no gradient where a neuron was silent": (
        SUPER,
        "fired ? table[2 * columns + i] : table[columns + i]",
        "fired ? table[2 * columns + i] : real(0)",
    ),
    "backward: the last neuron's gradient alone": (
        SUPER,
        "gx[t * columns + i] += gx_row[i];",
        "gx[t * columns + i] = gx_row[i];",
    ),
    "backward: LLIF's threshold is constant one step too early": (
        SUPER,
        "steps == 1 && N::adapt_starts_at_threshold",
        "steps <= 2 && N::adapt_starts_at_threshold",
    ),
    "backward: the last block, which is not full, is left out": (
        SUPER,
        "(g.N + super_block(g) - 1) / super_block(g)",
        "g.N / super_block(g)",
    ),
    "a block that starts within a channel counts a whole one": (
        CHANNELS,
        "g.channel_stride - b.begin % g.channel_stride;",
        "g.channel_stride;",
    ),
    "channels last: a block starts with channel 0": (
        CHANNELS,
        "channels_innermost(g) ? b.begin % g.channels : b.begin",
        "channels_innermost(g) ? 0 : b.begin",
    ),
    "channels last: sums always from channel 0": (
        CHANNELS,
        "double* __restrict to = sums + channel;",
        "double* __restrict to = sums;",
    ),
    "affine: the centre is missing in the sum for scale": (
        CHANNELS,
        "fma_(gx, y[i] - rows[i], rows[4 * columns + i])",
        "fma_(gx, y[i], rows[4 * columns + i])",
    ),
    "affine, four steps: each reads the first one's input": (
        PASSES,
        "map.adjoint(from + t * g.inner, gx",
        "map.adjoint(from, gx",
    ),
    "BatchNorm: what the statistics add has the wrong sign": (
        CHANNELS,
        "out[i] = g[i] + fma_(rows[kForwardBlock + i],",
        "out[i] = g[i] - fma_(rows[kForwardBlock + i],",
    ),
    "BatchNorm: squares in float": (
        CHANNELS,
        "static_cast<double>(x[i]) * static_cast<double>(x[i])",
        "static_cast<double>(x[i] * x[i])",
    ),
}

SUBSET = dict(
    files=("test_super_layouts.py", "test_affine.py", "test_batch_norm.py"),
    selection="(float32 and (codes_are_the_neurons or y_is_the_sum or the_gradient_is_that or sums_and_moments)) "
    "or (test_super_layouts and every_layout and 4-float32) or (test_affine and test_float32 and 4-) "
    "or (test_weight_bias_and_statistics and training and lif)",
)


@pytest.fixture(scope="module")
def passing_build(unchanged_objects, tmp_path_factory):
    return build_without_mutation(unchanged_objects, tmp_path_factory.mktemp("passing"), **SUBSET)


def test_the_unchanged_build_passes(passing_build):
    assert " passed" in passing_build


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_caught(mutation, passing_build, unchanged_objects, tmp_path):
    assert_caught(MUTATIONS[mutation], unchanged_objects, tmp_path, **SUBSET)
