"""The simulator's own tests: what nvcc makes of small kernels, executed on the CPU, against numpy and Python's integers
and fractions; and kernels with mistakes, which it must notice."""

import fractions

import numpy as np
import pytest
import torch
from gpusim.ptx import Memory, Module, launches
from gpusim_common import FOLDER, assert_sum, blocks, launch, lif_reference, numbers, raises
from processes import run
from tolerances import CUDA_EXP64, CUDA_MATH

from stdano_kernels.toolkit import find_toolkit

TOOLKIT, WHY = find_toolkit(torch.version.cuda)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(TOOLKIT is None, reason=f"needs nvcc: {WHY}")]


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    """The snippets as PTX."""
    ptx = tmp_path_factory.mktemp("snippets") / "snippets.ptx"
    options = ["-std=c++17", "-O3", "-w", "-ptx", "-arch=compute_86"]
    run([TOOLKIT / "bin" / "nvcc", *options, FOLDER / "snippets.cu", "-o", ptx], check=True)
    return Module(ptx.read_text())


def test_f64(m):
    n = 1000
    a, b, c = (numbers(n, np.float64, s) for s in (1, 2, 3))
    c[:200] = -(a * b)[:200]  # cancellation: only an exact fma gets the rounding error of the product
    a[200], c[201] = np.nan, np.nan
    o = np.empty((9, n))
    launch(m, "f64_ops", [a, b, c, o], [n], blocks(n))
    for i in range(200):
        exact = fractions.Fraction(a[i]) * fractions.Fraction(b[i]) + fractions.Fraction(c[i])
        assert o[0, i] == float(exact), i
    with np.errstate(all="ignore"):
        wanted = [a / b, np.sqrt(np.abs(a)), 1 / b, np.fmin(a, c), np.fmax(a, c), a * b + c]
        for i, w in enumerate(wanted, 1):
            np.testing.assert_array_equal(o[i], w, err_msg=str(i))
        np.testing.assert_allclose(o[7], np.exp(a), **CUDA_EXP64._asdict())
        rest = a.astype(np.float32).astype(np.float64) + np.trunc(b)
        np.testing.assert_array_equal(o[8], rest)


def test_f32(m):
    n = 4000
    a, b, c = (numbers(n, np.float32, s) for s in (1, 2, 3))
    a = np.clip(a, -80, 80)
    c[:500] = -(a * b)[:500]
    o = np.empty((16, n), np.float32)
    nan_a, nan_c = a.copy(), c.copy()
    launch(m, "f32_ops", [a, b, c, o], [n], blocks(n))
    for i in range(0, n, 7):
        exact = fractions.Fraction(float(a[i])) * fractions.Fraction(float(b[i]))
        exact += fractions.Fraction(float(c[i]))
        assert abs(fractions.Fraction(float(o[0, i])) - exact) <= abs(np.spacing(o[0, i])) / 2, i
    wide = a.astype(np.float64), b.astype(np.float64)
    exact = [a / b, np.sqrt(np.abs(a)), 1 / b, np.fmin(a, c), np.fmax(a, c)]
    for i, w in enumerate(exact, 1):
        np.testing.assert_array_equal(o[i], w, err_msg=str(i))
    assert (o[6] <= wide[0] + wide[1]).all() and (o[7] >= wide[0] * wide[1]).all()
    assert (np.nextafter(o[6], np.float32(np.inf)) > wide[0] + wide[1]).all()
    erf = torch.erf(torch.from_numpy(wide[0])).numpy()
    x = wide[0]
    close = [np.exp(x), np.tanh(x), np.arctan(x), np.sin(a * np.float32(3), dtype=np.float64)]
    close += [np.log(np.abs(x) + 1), erf, 1 / np.sqrt(np.abs(wide[1]))]
    for i, w in enumerate(close, 8):
        np.testing.assert_allclose(o[i], w, **CUDA_MATH._asdict(), err_msg=str(i))
    np.testing.assert_array_equal(o[15], np.floor(a) + np.rint(b))
    nan_a[0], nan_c[1] = np.nan, np.nan
    launch(m, "f32_ops", [nan_a, b, nan_c, o], [n], blocks(n))
    assert o[4, 0] == c[0] and o[5, 1] == a[1]


def test_f16_bf16(m):
    n = 1024
    a, b = torch.randn(n).half(), torch.randn(n).half()
    o = np.empty((5, n), np.float16)
    launch(m, "half_ops", [a.numpy(), b.numpy(), o], [n], blocks(n))
    x, y = a.double(), b.double()
    wanted = [x + y, x * y, x * y + x, torch.maximum(x, y), torch.where(x > y, x - y, -x)]
    for got, w in zip(o, wanted, strict=True):
        np.testing.assert_array_equal(got, w.half().numpy())
    a, b = torch.randn(n).bfloat16(), torch.randn(n).bfloat16()
    o = torch.empty(3, n, dtype=torch.bfloat16)
    arrays = [t.view(torch.int16).numpy() for t in (a, b, o)]
    launch(m, "bfloat_ops", arrays, [n], blocks(n))
    x, y = a.double(), b.double()
    assert torch.equal(o[0], (x + y).bfloat16())
    assert torch.equal(o[1], (x * y + x).bfloat16())
    bits = (a.float() * 1.01).view(torch.int32) & -65536
    assert torch.equal(o[2].float(), bits.view(torch.float32))


def test_integers(m):
    n = 2000
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    b = rng.integers(-5000, 5000, n).astype(np.int32)
    b[b == 0] = 3
    o = np.empty((14, n), np.int64)
    launch(m, "int_ops", [a, b, o], [n], blocks(n))

    def wrap(v, bits, signed=True):
        v &= (1 << bits) - 1
        return v - (1 << bits) if signed and v >> (bits - 1) else v

    def quotient(p, q):
        return abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1)

    for i in range(n):
        p, q = int(a[i]), int(b[i])
        up, uq = p & 0xFFFFFFFF, q & 0xFFFFFFFF
        lp = wrap(p * 1234567891011, 64)
        ulp = lp & (1 << 64) - 1
        assert o[0, i] == quotient(p, q) and o[1, i] == p - q * quotient(p, q)
        assert o[2, i] == up // uq and o[3, i] == quotient(lp, q) and o[4, i] == p * q >> 32
        assert o[5, i] == wrap(ulp * (0x123456789ABCDEF * uq & (1 << 64) - 1) >> 64, 64)
        ffs = (up & -up).bit_length()
        assert o[6, i] == up.bit_count() + 100 * (32 - uq.bit_length()) + 10000 * ffs
        assert o[7, i] == int(f"{up:032b}"[::-1], 2)
        both = up | uq << 32
        chosen = [both >> 8 * k & 255 for k in (5, 1, 7, 3)]
        perm = sum(v << 8 * k for k, v in enumerate(chosen))
        funnel = ((uq << 7) | (up >> 25)) & 0xFFFFFFFF
        assert o[8, i] == funnel ^ perm
        assert o[9, i] == wrap((p >> 5) ^ (up >> 3) ^ (p << 4), 32)
        assert o[10, i] == min(p, q) + max(up, uq)
        shifted = (ulp << 33 & (1 << 64) - 1) >> 20
        assert o[11, i] == wrap(quotient(lp, 10) + (lp >> 40) + shifted, 64)
        assert o[12, i] == wrap(p, 8) + wrap(q, 16) + (p & 255)
        assert o[13, i] == wrap(abs(p) & ~(q | 12345), 32)


def test_bytes(m):
    n = 1024
    code = np.random.default_rng(0).integers(0, 4, n).astype(np.uint8)
    packed, back = np.empty(n // 4, np.uint8), np.empty(n, np.int8)
    log = launch(m, "pack_codes", [code, packed, back], [n], blocks(n // 4))
    q = code.reshape(-1, 4)
    np.testing.assert_array_equal(packed, q[:, 0] | q[:, 1] << 2 | q[:, 2] << 4 | q[:, 3] << 6)
    np.testing.assert_array_equal(back, code.astype(np.int8) - 2)
    assert log.bytes_stored == n // 4 + n
    x = np.arange(-128, 128).astype(np.int8)
    o = np.empty(256, np.float32)
    launch(m, "signed_bytes", [x, o], [256], 4)
    np.testing.assert_array_equal(o, x * np.float32(0.5))


def test_local_memory(m):
    n, steps = 333, 9
    x = numbers((steps * n), np.float32).reshape(steps, n)
    o = np.empty_like(x)
    log = launch(m, "local_array", [x, o], [n, steps], blocks(n))
    assert log.ops["ld.local"] > 0 and log.ops["st.local"] > 0
    v, h = np.zeros(n, np.float32), []
    for t in range(steps):
        v = v * np.float32(0.5) + x[t]
        h.append(v)
    g = np.zeros(n, np.float32)
    for t in reversed(range(steps)):
        g = g * np.float32(0.5) + h[t]
        np.testing.assert_array_equal(o[t], g)
    raises("local memory out of bounds", launch, m, "local_array", [x, o], [8, 33], 1)


def test_predication(m):
    n = 301
    x = numbers(n, np.float32)
    keep = (x > 0).astype(np.uint8)
    o = np.empty_like(x)
    log = launch(m, "predicated", [x, o, keep], [n], blocks(n))
    np.testing.assert_array_equal(o, np.where(keep, x, 0))
    assert log.bytes_loaded == n + 4 * int(keep.sum()) and log.bytes_stored == 4 * n


def test_atomics(m):
    n, channels = 3000, 7
    x = numbers(n, np.float32)
    channel = np.random.default_rng(1).integers(0, channels, n).astype(np.int32)
    sums, count = np.zeros(channels, np.float32), np.zeros(channels, np.int32)
    order, top = np.zeros(n, np.int32), np.full(channels, -(10**9), np.int32)
    dsum, cas = np.zeros(1), np.zeros(1, np.uint64)
    arrays = [x, channel, sums, count, order, top, dsum, cas]
    launch(m, "atomics", arrays, [n], blocks(n))
    np.testing.assert_array_equal(count, np.bincount(channel))
    for c in range(channels):
        mine = x[channel == c]
        assert_sum(sums[c], mine)
        assert sorted(order[channel == c]) == list(range(mine.size))
        assert top[c] == int((mine * np.float32(1000)).astype(np.int32).max())
    assert_sum(dsum[0], x)
    assert cas[0] == channel[:200].sum()


def test_warp_functions(m):
    n = 256
    x = np.random.default_rng(0).integers(0, 100, n).astype(np.int32)
    o = np.empty((8, n), np.int32)
    launch(m, "warp_ops", [x, o], [n], 4)
    w = x.reshape(-1, 32)
    total = np.repeat(w.sum(1), 32)
    lane = np.arange(32)
    np.testing.assert_array_equal(o[0], total)
    np.testing.assert_array_equal(o[1].reshape(-1, 32)[:, 0], w.sum(1))
    index = w[:, lane * 7 % 32] + w[:, lane // 8 * 8 + 3]
    np.testing.assert_array_equal(o[2], index.reshape(-1))
    np.testing.assert_array_equal(o[3], np.cumsum(w, 1).reshape(-1))
    odd = ((w & 1).astype(np.uint64) << lane.astype(np.uint64)).sum(1).astype(np.uint32)
    np.testing.assert_array_equal(o[4].view(np.uint32), np.repeat(odd, 32))
    votes = (w > 90).any(1) * 2 + (w > 5).all(1)
    np.testing.assert_array_equal(o[5], np.repeat(votes, 32))
    np.testing.assert_array_equal(o[6], total)
    even = np.repeat((w % 2 == 0).sum(1), 32)
    wanted = np.where(x & 1, np.repeat(odd, 32).view(np.int32), even)
    np.testing.assert_array_equal(o[7], wanted)
    f = np.ones(64, np.float32)
    message = raises("does not take part", launch, m, "shuffle_partial", [f, f.copy()], [45], 1)
    assert "thread (44, 0, 0)" in message


def test_shared_memory(m):
    n, channels = 1000, 5
    x = numbers(n * channels, np.float32).reshape(n, channels)
    o = np.zeros(channels, np.float32)
    for block in (32, 96, 160, 256):
        launch(m, "channel_sum", [x, o], [n, channels], channels, block)
        assert_sum(o, x)
    raises("does not take part", launch, m, "channel_sum", [x, o], [n, channels], 1, 100)
    x = numbers(500, np.float32)
    o = np.zeros(4, np.float32)
    launch(m, "tree_sum", [x, o], [500], 4, 128, shared=512)
    for b in range(4):
        part = x[b * 128 : (b + 1) * 128]
        sign = -1 if (part > 2.5).any() or (b == 3 and x[0] > 2.5) else 1
        assert_sum(sign * o[b], part)
    codes = np.random.default_rng(0).integers(0, 1000, 5000).astype(np.int32)
    bins = np.zeros(16, np.int32)
    launch(m, "shared_atomics", [codes, bins], [5000], blocks(5000, 128), 128)
    np.testing.assert_array_equal(bins, np.bincount(codes & 15, minlength=16))
    raises("shared memory out of bounds", launch, m, "tree_sum", [x, o], [500], 4, 128, shared=256)
    raises("shared-memory race", launch, m, "tree_sum_race", [x, o], [500], 2, 128, shared=512)
    raises("divergent barrier", launch, m, "barrier_in_branch", [np.zeros(64, np.float32)])


def test_64_bit_index(m):
    first, n = 5 << 30, 100
    x, o = numbers(n, np.float32), np.empty(n, np.float32)
    mem = Memory()
    args = [mem.alloc(x) - 4 * first, mem.alloc(o) - 4 * first, first, n]
    m.kernel("far_index").run(mem, (2,), (64,), args)
    np.testing.assert_array_equal(o, x + 1)


def test_parameters_and_variables(m):
    x, o = numbers(200, np.float32), np.empty(64, np.float32)
    mem = Memory()
    value = np.array([mem.alloc(x), 3, 5, 11], np.int64).tobytes()
    m.kernel("by_value").run(mem, (1,), (64,), [value, mem.alloc(o)])
    np.testing.assert_array_equal(o, x[np.arange(64) * 3 + 5] + 11)
    o = np.empty(65, np.float32)
    launch(m, "variables", [o])
    table = np.array([0.5, 1.5, -2, 8], np.float32)
    np.testing.assert_array_equal(o[:64], table[np.arange(64) % 4])
    launch(m, "variables", [o])
    assert o[64] in (8, 9)
    x = np.random.default_rng(0).integers(0, 9, 64).astype(np.int32)
    o = np.empty(64, np.int32)
    launch(m, "jump_table", [x, o])
    for i, v in enumerate(x):
        reverse = int(f"{i:032b}"[::-1], 2)
        leading = 32 - i.bit_length()
        cases = [i * 3 + 1, i.bit_count(), i * i, i ^ 77, i // 3, 5 - i, reverse, leading, -1]
        assert o[i] == np.array(cases[v]).astype(np.int32), (i, v)


def test_mistakes_are_noticed(m, monkeypatch):
    x, o = np.ones(1000, np.float32), np.zeros(1000, np.float32)
    launch(m, "unguarded", [x, o], (), 10, 100)
    message = raises("out of bounds", launch, m, "unguarded", [x, o], (), 16, 64)
    assert "thread (40, 0, 0) of block (15, 0, 0)" in message, message
    raises("without any buffer", m.kernel("unguarded").run, Memory(), (1,), (32,), [0, 0])
    mem = Memory()
    args = [mem.alloc(x, offset=4), mem.alloc(o), 250]
    raises("misaligned 16-byte load", m.kernel("vectorised").run, mem, (4,), (64,), args)
    mem = Memory()
    args = [mem.alloc(x, writable=False), mem.alloc(o), 250]
    m.kernel("vectorised").run(mem, (4,), (64,), args)
    raises("read-only", m.kernel("vectorised").run, mem, (4,), (64,), [args[0], args[0], 250])
    mem = Memory()
    args = [mem.alloc(x, uninit=True), mem.alloc(o), 250]
    raises("never-written", m.kernel("vectorised").run, mem, (4,), (64,), args)
    raises("different values to one address", launch, m, "same_target", [o], (), 2)
    monkeypatch.setattr(launches, "MAX_LANES", 64)  # blocks one after the other
    raises("block 0 stores to the same address", launch, m, "same_target", [o], (), 2)
    raises("assertion", launch, m, "asserting", [np.arange(64, dtype=np.int32)])
    raises("invalid configuration", launch, m, "unguarded", [x, o], (), 1, 2000)


def test_lif(m):
    """A slice of the grid after the other: the threads are more than are simulated at once."""
    n, steps = 65536, 4
    assert n > launches.MAX_LANES
    x = torch.randn(steps, n)
    s = torch.empty_like(x)
    log = launch(m, "lif", [x.numpy(), s.numpy()], [n, steps, 0.5, 1.0], n // 256, 256)
    assert torch.equal(s, lif_reference(x, 0.5, 1.0))
    assert log.bytes_loaded == log.bytes_stored == 4 * n * steps
