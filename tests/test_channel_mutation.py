"""A mistake in the passes around channels (BatchNorm, the affine input) and in the super neuron must fail a test, as in
test_mutation.py."""

import mutations
import pytest
from channels_common import EIGHT
from selection import sample

pytestmark = mutations.marks
trees = mutations.trees

SUPER, CHANNELS, NORM = "csrc/cpu/super_neuron.h", "csrc/cpu/channels.h", "csrc/norm.h"


def layouts(function, arguments, dtype="float32"):
    return f"test_super_layouts.{function}({arguments}, test_super_layouts.torch.{dtype})"


PAPER = "('lif', 'llif', 'slif')"
CODES = layouts("test_codes_are_the_neurons_spikes", f"{PAPER}, 5")
CODES_OF_TWO = layouts("test_codes_are_the_neurons_spikes", "('lif', 'slif'), 5")
CODES_OF_EIGHT = layouts("test_codes_are_the_neurons_spikes", f"{EIGHT}, 5")
SUMS = layouts("test_sums_and_moments", f"{PAPER}, 'whole and partial block', 'contiguous'")
SUMS_OF_EIGHT = layouts("test_sums_and_moments", f"{EIGHT}, 'whole and partial block', 'contiguous'")
# Blocks that begin within a channel's run; and at another channel than the first where channels are innermost.
SUMS_WITHIN = layouts("test_sums_and_moments", f"{PAPER}, 'large images', 'contiguous'")
SUMS_INNERMOST = layouts("test_sums_and_moments", f"{PAPER}, 'many channels', 'contiguous'")
GRADIENT = layouts("test_the_gradient_is_that_of_the_neurons_own_kernels", f"{PAPER}, 5")
# Rows of numbers; runs of a channel have loops of their own.
AFFINE_ROWS = "test_norm_groups.test_equals_the_composition('channels last', 'weight and bias')"
AFFINE_RUNS = "test_norm_groups.test_equals_the_composition('as it is', 'weight and bias')"
AFFINE = "test_affine.test_float32('lif', 4, 'all')"
BATCH_NORM = "test_batch_norm.test_weight_bias_and_statistics('lif', ('weight', 'bias'), 'given', True)"
GROUPS = "test_norm_groups.test_equals_the_passes_apart('images', 'llif', 4, 'weight and bias')"
# Of Python's numbers, which compiled graphs have.
COMPILED_NORM = "test_channel_operators.test_compiled_batch_norm_equals_eager('lif', 4, ('weight', 'bias'), True)"
COMPILED_SUPER = "test_channel_operators.test_compiled_super_neuron_equals_eager(dict(neurons=('slif', 'lif')), True)"


def decode(count):
    return layouts("test_y_is_the_sum_of_its_codes_rows", f"{count}, 'whole and partial block', 'contiguous'")


# name: (file, text, replacement, the tests that are run); each text stands in its file exactly once.
OF_CPU = {
    "encode: a spike erases the other neurons' bits": (SUPER, "code |= spikes", "code = spikes", CODES_OF_TWO),
    "encode: one bit for all": (SUPER, "? bit << k : 0;", "? bit : 0;", CODES_OF_TWO),
    "encode: the fifth neuron erases the bits of those before": (
        SUPER,
        "int32_t code = codes[i];\n    for",
        "int32_t code = 0;\n    for",
        CODES_OF_EIGHT,
    ),
    "encode: the fifth neuron has the first's bit": (
        SUPER,
        "1 << k, to, block.size",
        "1, to, block.size",
        CODES_OF_EIGHT,
    ),
    "of eight neurons the first four are left out": (SUPER, "count >= 4", "count == 4", CODES_OF_EIGHT),
    "encode: every four steps are the last": (
        SUPER,
        "nullptr, first + count == g.T, false",
        "nullptr, true, false",
        CODES,
    ),
    "encode: codes of the steps before stay": (
        SUPER,
        "std::memset(to, 0, block.size);",
        "",
        CODES_OF_TWO,
    ),
    "encode: a block goes on where the one before ended": (
        SUPER,
        "walk.prepare(block);\n      walk.start_at_rest();\n    }\n    for",
        "walk.prepare(block);\n      if (block.begin == 0) walk.start_at_rest();\n    }\n    for",
        CODES,
    ),
    "counts of the first neuron for all": (
        SUPER,
        "static_cast<uint8_t>(1 << k), count)",
        "static_cast<uint8_t>(1), count)",
        CODES,
    ),
    "channels last: counts of the first neuron for all": (
        SUPER,
        "static_cast<double>(codes[i] >> k & 1)",
        "static_cast<double>(codes[i] & 1)",
        layouts("test_every_layout_gives_the_same_numbers", "'large images', 'channels_last', 4"),
    ),
    "decode: another order of sums": (
        SUPER,
        "for (int k = 0; k < count; ++k) sum +=",
        "for (int k = count; k-- > 0;) sum +=",
        decode(3),
    ),
    "decode: the first neuron's bit for all": (
        SUPER,
        "(code & bit << k) != 0 ? table",
        "(code & bit) != 0 ? table",
        decode(3),
    ),
    "decode: the fifth neuron begins anew": (SUPER, "k == 0 ? table : y", "table", decode(8)),
    "decode: the fifth neuron's spikes are the first's": (
        SUPER,
        "decode_bits<neurons>(codes, 1 << k",
        "decode_bits<neurons>(codes, 1",
        decode(8),
    ),
    "sums: what is left of a run after whole lanes": (
        SUPER,
        "for (int j = 0; i < n; ++i, ++j) add(i, j);",
        "",
        SUMS,
    ),
    "sums: the fifth neuron adds to the sum of all": (
        SUPER,
        "double *all = k == 0 ? own : nullptr",
        "double *all = own",
        SUMS_OF_EIGHT,
    ),
    "sums: the fifth neuron's spikes are the first's": (
        SUPER,
        "codes + first, 1 << k, g + first",
        "codes + first, 1, g + first",
        SUMS_OF_EIGHT,
    ),
    "backward: no gradient where a neuron was silent": (
        SUPER,
        "!= 0 ? fired[i] : silent[i])",
        "!= 0 ? fired[i] : real(0))",
        GRADIENT,
    ),
    "backward: the first neuron's table for all": (
        SUPER,
        "ChannelNumbers<real>::rows * k * g.channels",
        "ChannelNumbers<real>::rows * 0 * g.channels",
        GRADIENT,
    ),
    "backward: the first neuron's spikes for all": (
        SUPER,
        "codes.stride + first, 1 << k,",
        "codes.stride + first, 1,",
        GRADIENT,
    ),
    "backward: the first neuron alone": (SUPER, "k > 0 && t < T", "k < 0 && t < T", GRADIENT),
    "backward: a gradient from behind the last step": (
        SUPER,
        "walk.keep(x, out, T, true, false);",
        "walk.keep(x, out, T - 1, true, false);",
        GRADIENT,
    ),
    "a block that starts within a channel counts a whole one": (
        CHANNELS,
        "g.channel_stride - b.begin % g.channel_stride;",
        "g.channel_stride;",
        SUMS_WITHIN,
    ),
    "channels last: sums always from channel 0": (
        CHANNELS,
        "double* __restrict to = sums + channel;",
        "double* __restrict to = sums;",
        SUMS_INNERMOST,
    ),
    "channels last: tables always from channel 0": (
        CHANNELS,
        "per_channel + channel, count",
        "per_channel, count",
        layouts("test_y_is_the_sum_of_its_codes_rows", "3, 'many channels', 'contiguous'"),
    ),
    "moments: squares of the first channel": (
        CHANNELS,
        "sums[channel], squares[channel]);",
        "sums[channel], squares[0]);",
        SUMS,
    ),
    "moments: what is left of a run after groups of 16": (
        CHANNELS,
        "for (; i + lanes <= n; i += lanes) {",
        "for (; i < n; i += lanes) {",
        SUMS,
    ),
    "affine: the centre is left out": (CHANNELS, "y[i] - centre[i], shift[i])", "y[i], shift[i])", AFFINE),
    "affine: the centre is missing in the sum for scale": (
        CHANNELS,
        "y[i] - centre[i], of_scale[i])",
        "y[i], of_scale[i])",
        AFFINE_ROWS,
    ),
    "affine: the gradient is not scaled": (CHANNELS, "g[i] = scale[i] * g[i];", ";", AFFINE_ROWS),
    "affine: long runs: the gradient is not scaled": (CHANNELS, "g[i + j] = scale * g[i + j];", ";", AFFINE_RUNS),
    "affine: long runs: the centre is missing in the sum for scale": (
        CHANNELS,
        "y[i + j] - centre, of_scale[j])",
        "y[i + j], of_scale[j])",
        AFFINE_RUNS,
    ),
    "BatchNorm: what the statistics add has the wrong sign": (
        CHANNELS,
        "out[i] = g[i] + fma_(slope[i],",
        "out[i] = g[i] - fma_(slope[i],",
        BATCH_NORM,
    ),
    "groups: sums of the first channel for all": (NORM, "sum[1] / call.count -", "sum[0] / call.count -", GROUPS),
    "groups: one factor of the slope": (NORM, "* scale * inverse * inverse", "* scale * inverse", GROUPS),
    "groups: running variance without Bessel's correction": (
        NORM,
        "variance * (count / fewer)",
        "variance",
        AFFINE_RUNS,
    ),
    "groups: the gradient of scale is that of weight": (NORM, "(of_scale * inverse)", "(of_scale)", GROUPS),
    "groups: the last channels are left out": (
        "csrc/cpu/norm.h",
        "(group + 1) * size < g.channels ? (group + 1) * size : g.channels",
        "(group + 1) * size < g.channels ? (group + 1) * size : group * size",
        "test_norm_groups.test_equals_the_passes_apart('a last group', 'llif', 4, 'weight and bias')",
    ),
}
# What is computed from the sums, in Python.
OF_PYTHON = {
    "BatchNorm: one factor of the slope": (
        "stdano_kernels/normalise.py",
        "scale * inverse * inverse",
        "scale * inverse",
        COMPILED_NORM,
    ),
    "BatchNorm: the variance is not centred": (
        "stdano_kernels/moments.py",
        "(square - mean * mean)",
        "square",
        COMPILED_NORM,
    ),
    "super neuron: sign of the offset": (
        "stdano_kernels/mixture.py",
        "-(scale * mean)",
        "(scale * mean)",
        COMPILED_SUPER,
    ),
    "super neuron: variance of a count": (
        "stdano_kernels/mixture.py",
        "mean * (1 - mean)",
        "mean * mean",
        COMPILED_SUPER,
    ),
    "super neuron: what statistics add where it fired": (
        "stdano_kernels/mixture.py",
        "fired = silent + scale * slope",
        "fired = silent",
        COMPILED_SUPER,
    ),
    "super neuron: running variance without Bessel's correction": (
        "stdano_kernels/moments.py",
        "moments.unbiased()",
        "moments.variance",
        COMPILED_SUPER,
    ),
}


@pytest.mark.slow
def test_unchanged_passes_pass(trees):
    trees.assert_passes(trees.with_library(), "\n".join({tests for *_, tests in OF_CPU.values()}))
    trees.assert_passes(trees.as_installed(), "\n".join({tests for *_, tests in OF_PYTHON.values()}))


@pytest.mark.parametrize("mutation", sample(OF_CPU))
def test_a_wrong_pass_is_caught(mutation, trees):
    *change, tests = OF_CPU[mutation]
    trees.assert_caught(trees.with_library(change), tests)


@pytest.mark.parametrize("mutation", sample(OF_PYTHON))
def test_wrong_numbers_of_a_channel_are_caught(mutation, trees):
    *change, tests = OF_PYTHON[mutation]
    trees.assert_caught(trees.as_installed(change), tests)
