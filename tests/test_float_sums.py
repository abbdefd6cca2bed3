"""Sums of x and of x*x in pairs of floats, which devices take whose double is slow: on the host, against exact ones."""

import ctypes
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from processes import run

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = """
#include "cuda/float_sums.h"
extern "C" void sums(const float* x, int count, double* out) {
  stdano::generic::FloatSums sums;
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const float four[] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
    sums.add(four);
  }
  for (; i < count; ++i) {
    const float one[] = {x[i]};
    sums.add(one);
  }
  sums.finish();
  out[0] = sums.all[0], out[1] = sums.all[1];
}
"""


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    (folder / "sums.cpp").write_text(SOURCE)
    include = (f"-I{ROOT}/csrc", f"-I{ROOT}/stdano_kernels/include")
    flags = ("-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC")
    run(["g++", *flags, *include, folder / "sums.cpp", "-o", folder / "sums.so"], check=True)
    function = ctypes.CDLL(str(folder / "sums.so")).sums

    def call(x):
        out = (ctypes.c_double * 2)()
        function(x.ctypes.data_as(ctypes.c_void_p), len(x), out)
        return list(out)

    return call


random = np.random.default_rng(0)
sizes = 2.0 ** random.uniform(-120, 120, 1001)
X = {
    "normal": random.standard_normal(1001),
    "large mean": 1000 + 0.01 * random.standard_normal(1001),
    "one number": np.full(1001, 0.1),
    "alternating signs": (1 + 1e-3 * random.random(1001)) * (-1.0) ** np.arange(1001),
    "all magnitudes": sizes * random.choice((-1, 1), 1001),
    "small": 1e-30 * random.standard_normal(1001),
    "large": 1e30 * random.standard_normal(1001),
    "a few": np.array([1.0, 1e-9, 0.0]),
    "half": random.standard_normal(1001).astype(np.float16),
}


@pytest.mark.parametrize("name", X)
def test_sums_are_exact_to_twelve_digits(sums, name):
    x = np.asarray(X[name], dtype=np.float32)
    exact = [Fraction(float(v)) for v in x]
    for actual, terms in zip(sums(x), (exact, [v * v for v in exact]), strict=True):
        assert abs(Fraction(actual) - sum(terms)) <= Fraction(1, 10**12) * sum(map(abs, terms))


def test_what_is_no_number_stays(sums):
    for value in (np.inf, -np.inf, np.nan):
        x = np.array([1, value, 2], dtype=np.float32)
        np.testing.assert_array_equal(sums(x), [value, value * value])
