"""neuron_math.h and half.h on their own, compiled into a small program with g++."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import ULP

ROOT = Path(__file__).parent.parent
# The flags that results depend on, as in setup.py; -O2 instead of -O3 compiles faster and means the same.
FLAGS = ["-O2", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'stdano_kernels' / 'include'}"]

HARNESS = r"""
#include "neuron_math.h"
#include "half.h"
#include <cstdio>
#include <limits>
#include <vector>
using namespace stdano::generic;

template <class real> using Integer = std::conditional_t<sizeof(real) == 4, uint32_t, uint64_t>;

// |actual - exact| in units of the last place of exact.
template <class real> double ulp(real actual, long double exact) {
  int exponent;
  std::frexp(exact, &exponent);
  const int digits = std::numeric_limits<real>::digits, lowest = std::numeric_limits<real>::min_exponent;
  if (exponent < lowest) exponent = lowest;
  return (double)(std::fabs((long double)actual - exact) / std::ldexp(1.0L, exponent - digits));
}

// Numbers with bits from first to last in steps.
template <class real, class F> double worst(Integer<real> first, Integer<real> last, Integer<real> step, F error) {
  double most = 0;
  for (Integer<real> bits = first; last - bits >= step; bits += step) {
    const double e = error(bit_cast<real>(bits));
    if (!(e <= most)) most = e;  // a NaN stays
  }
  return most;
}

template <class real> void accuracy(const char* name, Integer<real> step) {
  const Integer<real> infinity = bit_cast<Integer<real>>(std::numeric_limits<real>::infinity());
  const auto bits = [](double x) { return bit_cast<Integer<real>>((real)x); };
  const double limit = sizeof(real) == 4 ? 87.3 : 708.0;  // exp_negative stays at this from there on
  std::printf("\"%s\": {", name);
  const auto tanh_error = [](real x) { return ulp(tanh_(x), std::tanh((long double)x)); };
  std::printf("\"tanh\": %.4f, ", worst<real>(0, infinity, step, tanh_error));
  const double not_odd = worst<real>(0, infinity, step * 31, [](real x) { return (double)(tanh_(-x) != -tanh_(x)); });
  std::printf("\"tanh_odd\": %.1f, ", not_odd);
  const auto exp_error = [](real x) { return ulp(exp_negative(-x), std::exp(-(long double)x)); };
  std::printf("\"exp of negative\": %.4f, ", worst<real>(0, bits(limit), step, exp_error));
  // To where it overflows, and down to normal numbers.
  const auto any_exp_error = [limit](real x) {
    const double up = x < limit + 1 ? ulp(exp_(x), std::exp((long double)x)) : 0;
    return std::fmax(up, ulp(exp_(-x), std::exp(-(long double)x)));
  };
  std::printf("\"exp\": %.4f, ", worst<real>(0, bits(limit), step, any_exp_error));
  const auto log_error = [](real x) { return ulp(log_(x), std::log((long double)x)); };
  std::printf("\"log\": %.4f, ", worst<real>(1, infinity, step, log_error));
  const auto sigmoid_error = [](real x) {
    const long double up = 1 / (1 + std::exp(-(long double)x)), down = 1 / (1 + std::exp((long double)x));
    return std::fmax(ulp(sigmoid_(x), up), ulp(sigmoid_(-x), down));
  };
  std::printf("\"sigmoid\": %.4f, ", worst<real>(0, bits(limit), step, sigmoid_error));
  const auto reciprocal_error = [](real x) { return ulp(reciprocal(x), 1 / (long double)x); };
  const auto atan_error = [](real x) { return ulp(atan_(x), std::atan((long double)x)); };
  std::printf("\"atan\": %.4f, ", worst<real>(0, infinity, step, atan_error));
  const Integer<real> smallest = bits(std::ldexp(1.0, -100)), largest = bits(std::ldexp(1.0, 100));
  std::printf("\"reciprocal\": %.4f, ", worst<real>(smallest, largest, step, reciprocal_error));
  double powers = 0;
  for (int e = -99; e < 100; ++e) powers += reciprocal((real)std::ldexp(1.0, e)) != (real)std::ldexp(1.0, -e);
  std::printf("\"powers of two\": %.1f, ", powers);
  const real inf = std::numeric_limits<real>::infinity(), nan = std::numeric_limits<real>::quiet_NaN();
  std::printf("\"special of any\": [%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d], ", exp_(inf) == inf, exp_(-inf) == 0,
              exp_(nan) != exp_(nan), exp_((real)0) == 1, log_(inf) == inf, log_((real)0) == -inf,
              log_((real)-1) != log_((real)-1), log_(nan) != log_(nan), sigmoid_(inf) == 1, sigmoid_(-inf) == 0,
              sigmoid_(nan) != sigmoid_(nan));
  std::printf("\"special\": [%d, %d, %d, %d, %d, %d, %d, %d, %d]}", tanh_(inf) == 1, tanh_(-inf) == -1,
              tanh_(nan) != tanh_(nan),
              tanh_((real)0) == 0 && std::signbit(tanh_((real)-0.0)),
              exp_negative((real)0) == 1, exp_negative((real)-0.0) == 1,
              exp_negative(nan) != exp_negative(nan), exp_negative(-inf) >= 0 && exp_negative(-inf) < 1e-37,
              tanh_(std::numeric_limits<real>::max()) == 1);
}

static uint64_t state = 88172645463325252ull;
static uint32_t next() {
  state ^= state << 13; state ^= state >> 7; state ^= state << 17;
  return (uint32_t)(state >> 32);
}

// Emulated (in this build) against real fma: any bits, sums that cancel, and sums at the edges of the range.
static float masked(uint32_t bits, uint32_t keep, uint32_t set) { return bit_cast<float>((bits & keep) | set); }

static void compare_fma(long n) {
  long different[4] = {};
  for (long i = 0; i < n; ++i) {
    const uint32_t ra = next(), rb = next(), rc = next();
    const float a = masked(ra, 0x83FFFFFFu, 0x3C000000u), b = masked(rb, 0x83FFFFFFu, 0x3C000000u);
    const float triples[4][3] = {
        {bit_cast<float>(ra), bit_cast<float>(rb), bit_cast<float>(rc)},
        {a, b, masked(rc, 0x83FFFFFFu, 0x3C000000u)},
        {a, b, bit_cast<float>(bit_cast<uint32_t>(-a * b) + rc % 5 - 2)},
        {masked(ra, 0x87FFFFFFu, 0x18000000u), masked(rb, 0x87FFFFFFu, 0x20000000u), masked(rc, 0x80FFFFFFu, 0)}};
    for (int kind = 0; kind < 4; ++kind) {
      const float* t = triples[kind];
      const float emulated = fma_(t[0], t[1], t[2]), real = __builtin_fmaf(t[0], t[1], t[2]);
      const bool both_nan = emulated != emulated && real != real;
      different[kind] += !both_nan && bit_cast<uint32_t>(emulated) != bit_cast<uint32_t>(real);
    }
  }
  std::printf("[%ld, %ld, %ld, %ld]", different[0], different[1], different[2], different[3]);
}

// All results over a set of random inputs, to compare builds with.
template <class real> static uint64_t digest(long n) {
  uint64_t hash = 14695981039346656037ull;
  const auto add = [&](real x) {
    hash = (hash ^ (x == x ? bit_cast<Integer<real>>(x) : 1)) * 1099511628211ull;
  };
  for (long i = 0; i < n; ++i) {
    real x = bit_cast<real>((Integer<real>)(((uint64_t)next() << 32) | next()));
    add(tanh_(x)); add(exp_negative(-abs_(x))); add(exp_(x)); add(log_(x)); add(sigmoid_(x)); add(atan_(x));
    if (abs_(x) > 1e-30 && abs_(x) < 1e30) add(reciprocal(abs_(x)));
    x = (real)(int32_t)next() / real(1 << 28);
    add(tanh_(x)); add(exp_negative(-abs_(x))); add(reciprocal(abs_(x) + real(1)));
    add(exp_(x)); add(log_(abs_(x))); add(sigmoid_(x)); add(atan_(x));
  }
  return hash;
}

static void convert_file(const char* mode, const char* from, const char* to) {
  FILE *in = std::fopen(from, "rb"), *out = std::fopen(to, "wb");
  const std::string_view m = mode;
  if (m == "to_half") {
    for (float x; std::fread(&x, 4, 1, in);) {
      const uint16_t bits[2] = {convert(x, bfloat16()).bits, convert(x, float16()).bits};
      std::fwrite(bits, 2, 2, out);
    }
  } else {
    for (uint16_t x; std::fread(&x, 2, 1, in);) {
      const float values[2] = {convert(bfloat16{x}, float()), convert(float16{x}, float())};
      std::fwrite(values, 4, 2, out);
    }
  }
  std::fclose(in); std::fclose(out);
}

int main(int argc, char** argv) {
  const std::string_view mode = argv[1];
  if (mode == "accuracy") {
    std::printf("{");
    accuracy<float>("float", 197);
    std::printf(", ");
    accuracy<double>("double", 1234567891013ull);
    std::printf("}");
  }
  if (mode == "fma") compare_fma(2000000);
  if (mode == "digest") {
    const unsigned long long of_float = digest<float>(1000000), of_double = digest<double>(100000);
    std::printf("[%llu, %llu]", of_float, of_double);
  }
  if (argc == 4) convert_file(argv[1], argv[2], argv[3]);
}
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Compiles the program with further flags; returns a function that runs it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("harness")
    (folder / "harness.cpp").write_text("#include <cmath>\n#include <string_view>\n#include <type_traits>\n" + HARNESS)

    def build(*flags):
        program = folder / ("program" + "".join(flags).replace("/", ""))
        if not program.exists():
            subprocess.run([compiler, *FLAGS, *flags, folder / "harness.cpp", "-o", program], check=True)
        return lambda *args: (
            subprocess.run([program, *map(str, args)], check=True, capture_output=True, text=True).stdout
        )

    return build


EMULATED = "-DSTDANO_EMULATE_FMA"


@pytest.fixture(scope="module")
def accuracy(harness):
    return json.loads(harness(EMULATED)("accuracy"))


@pytest.mark.slow
@pytest.mark.parametrize("function", ("tanh", "exp of negative", "exp", "reciprocal", "atan", "log", "sigmoid"))
@pytest.mark.parametrize("real", ("float", "double"))
def test_accuracy_in_units_of_the_last_place(accuracy, real, function):
    """Against long double, over the whole range: every 197th float, 7 million doubles."""
    assert accuracy[real][function] <= ULP[function]


@pytest.mark.parametrize("real", ("float", "double"))
def test_exact_properties(accuracy, real):
    assert accuracy[real]["tanh_odd"] == 0
    assert accuracy[real]["powers of two"] == 0


@pytest.mark.parametrize("real", ("float", "double"))
def test_special_values(accuracy, real):
    names = [
        "tanh(inf)",
        "tanh(-inf)",
        "tanh(nan)",
        "tanh(-0)",
        "exp(0)",
        "exp(-0)",
        "exp(nan)",
        "exp(-inf)",
        "tanh(max)",
    ]
    assert dict(zip(names, accuracy[real]["special"], strict=True)) == dict.fromkeys(names, 1)
    assert accuracy[real]["special of any"] == [1] * 11


def test_emulated_fma_is_fma(harness):
    """2 million triples each of: any bits at all, ordinary numbers, cancellation, subnormal results."""
    assert json.loads(harness(EMULATED)("fma")) == [0, 0, 0, 0]


def test_functions_agree_between_the_emulated_and_the_real_fma(harness):
    assert harness(EMULATED)("digest") == harness()("digest")


def test_functions_agree_between_optimisation_levels(harness):
    assert harness("-O0")("digest") == harness()("digest")


def same_floats(actual, expected):
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(actual), nan)
    assert np.array_equal(actual.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


def test_half_to_float_is_torchs_for_all_values(harness, tmp_path):
    every = np.arange(65536, dtype=np.uint16)
    every.tofile(tmp_path / "in")
    harness()("from_half", tmp_path / "in", tmp_path / "out")
    ours = np.fromfile(tmp_path / "out", dtype=np.float32).reshape(-1, 2)
    for column, dtype in enumerate((torch.bfloat16, torch.float16)):
        torchs = torch.from_numpy(every.view(np.int16)).view(dtype).float().numpy()
        same_floats(ours[:, column].copy(), torchs)


def floats_to_round():
    """Random bits (so all exponents, NaN and subnormal numbers), values of both half formats, ties between two
    neighbours and the floats next to those ties, limits."""
    generator = np.random.default_rng(0)
    halves = np.arange(65536, dtype=np.uint16).view(np.int16)
    values = [torch.from_numpy(halves).view(d).float().numpy() for d in (torch.bfloat16, torch.float16)]
    sets = [generator.integers(0, 2**32, 2_000_000, dtype=np.uint32).view(np.float32), *values]
    for v in values:
        v = np.sort(v[np.isfinite(v)].astype(np.float64))
        ties = ((v[1:] + v[:-1]) / 2).astype(np.float32)
        sets += [ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))]
    limits = [65504, 65519.996, 65520, 65536, 2**-24, 2**-25, 2**-26, 3.39e38, 3.4028235e38, np.inf, 0.0]
    limits = np.array(limits, dtype=np.float32)
    return np.concatenate([*sets, limits, -limits]).astype(np.float32)


def test_float_to_half_rounds_as_torch_does(harness, tmp_path):
    x = floats_to_round()
    x.tofile(tmp_path / "in")
    harness()("to_half", tmp_path / "in", tmp_path / "out")
    ours = np.fromfile(tmp_path / "out", dtype=np.uint16).reshape(-1, 2)
    for column, dtype in enumerate((torch.bfloat16, torch.float16)):
        back = torch.from_numpy(ours[:, column].copy().view(np.int16)).view(dtype)
        torchs = torch.from_numpy(x).to(dtype)
        same_floats(back.float().numpy(), torchs.float().numpy())
