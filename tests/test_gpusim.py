"""The simulator of tests/gpusim on PTX that is written here; test_gpusim_snippets.py has what nvcc makes of CUDA code,
test_gpusim_device.py a whole device."""

import numpy as np
import pytest
import torch
from gpusim.ptx import LOG, Memory, Module, launches
from gpusim_common import lif_reference, raises

# Leaky neurons: one thread each, four time steps. {guard} keeps threads beyond the last neuron out.
LIF = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry lif(.param .u64 x, .param .u64 s, .param .u32 n, .param .f32 decay, .param .f32 threshold)
{{
  .reg .pred %p<4>;
  .reg .f32 %f<8>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [s];
  ld.param.u32 %r1, [n];
  ld.param.f32 %f1, [decay];
  ld.param.f32 %f2, [threshold];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.s32 %p1, %r5, %r1;
  {guard}
  mul.wide.s32 %rd3, %r5, 4;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
  mul.wide.s32 %rd4, %r1, 4;
  mov.f32 %f3, 0f00000000;
  mov.u32 %r6, 0;
$loop:
  ld.global.f32 %f4, [%rd1];
  mul.rn.f32 %f3, %f3, %f1;
  add.rn.f32 %f3, %f3, %f4;
  setp.ge.f32 %p2, %f3, %f2;
  selp.f32 %f5, 0f3F800000, 0f00000000, %p2;
  selp.f32 %f3, 0f00000000, %f3, %p2;
  st.global.f32 [%rd2], %f5;
  add.s64 %rd1, %rd1, %rd4;
  add.s64 %rd2, %rd2, %rd4;
  add.s32 %r6, %r6, 1;
  setp.lt.s32 %p3, %r6, 4;
  @%p3 bra $loop;
$end:
  ret;
}}
"""
RIGHT = LIF.format(guard="@%p1 bra $end;")
N = 100


def run(x, s, ptx=RIGHT, blocks=2, **options):
    memory = Memory()
    pointers = [memory.alloc(x, writable=False), memory.alloc(s, **options)]
    return Module(ptx).kernel("lif").run(memory, (blocks,), (64,), [*pointers, x.shape[1], 0.5, 1.0])


@pytest.fixture
def x():
    x = torch.randn(4, N)
    x[0, :3] = 1.0  # exactly at the threshold
    return x


def test_a_kernel_gives_its_values_and_is_counted(x):
    s = torch.full_like(x, float("nan"))
    before = len(LOG)
    log = run(x.numpy(), s.numpy())
    assert torch.equal(s, lif_reference(x, 0.5, 1.0))
    assert LOG[before:] == [log] and (log.name, log.grid, log.block) == ("lif", (2, 1, 1), (64, 1, 1))
    assert log.bytes_loaded == log.bytes_stored == 4 * x.numel()
    assert log.ops["ld.global"] == x.numel() and log.ops["ret"] == 128


def test_a_predicate_is_written_as_a_number(x):
    """LLVM's true is -1."""
    s = torch.zeros_like(x)
    run(x.numpy(), s.numpy(), LIF.format(guard="mov.pred %p4, -1;\n  @%p4 bra $end;"))
    assert not s.any()


def test_a_missing_guard_is_out_of_bounds(x):
    few = x[:, :40].numpy().copy()
    message = raises("out of bounds", run, few, few.copy(), LIF.format(guard=""), blocks=1)
    assert "thread (40, 0, 0) of block (0, 0, 0)" in message and "ld.global" in message


def test_stores_are_checked(x, monkeypatch):
    s = np.empty((4, N), np.float32)
    raises("read-only", run, x.numpy(), s, writable=False)
    raises("misaligned 4-byte store", run, x.numpy(), s, offset=2)
    same = RIGHT.replace("add.s64 %rd2, %rd2, %rd3;", "")
    raises("two threads store different values to one address", run, x.numpy(), s, same)
    monkeypatch.setattr(launches, "MAX_LANES", 64)  # blocks one after the other
    block = RIGHT.replace("mul.wide.s32 %rd3, %r5, 4;", "mul.wide.s32 %rd3, %r4, 4;")
    raises("block 0 stores to the same address", run, x.numpy(), s, block)


def test_reading_what_was_never_written_is_noticed(x):
    s = np.empty((4, N), np.float32)
    raises("never-written", run, x.numpy(), s, RIGHT.replace("f32 %f4, [%rd1]", "f32 %f4, [%rd2]"), uninit=True)


def test_what_is_not_modelled_is_an_error(x):
    s = np.empty((4, N), np.float32)
    raises("opcode not modelled", run, x.numpy(), s, RIGHT.replace("mul.rn.f32", "wmma.mma.f32"))
    raises("invalid configuration", run, x.numpy(), s, blocks=0)
