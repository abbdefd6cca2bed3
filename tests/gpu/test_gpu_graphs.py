"""A train step of every public function and module does not wait for the device, and can be captured: by
torch.cuda.graph, and by torch.compile(mode="reduce-overhead")."""

from contextlib import contextmanager

import pytest
import torch
from gpu_common import every_backend
from kernels_common import assert_close, assert_same_bits
from step_common import CASES, make_step, no_waits
from tolerances import TOLERANCES

every_case = pytest.mark.parametrize("case", CASES)
needs_graphs = pytest.mark.usefixtures("graphs")


def tensors(step, results):
    """All that a step gave and moved, by name."""
    named = {f"result {i}": t for i, t in enumerate(results)}
    return {**named, **{f"buffer {i}": t for i, t in enumerate(step.buffers)}}


@contextmanager
def waits_are_errors():
    """What torch knows about waits; an operation that the simulated device runs is not asked."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@every_backend
@every_case
def test_a_train_step_does_not_wait(backend, case):
    step = make_step(case, "cuda", backend)
    step()  # compiles what is compiled late
    with waits_are_errors(), no_waits():
        step()


@needs_graphs
@every_backend
@every_case
def test_a_captured_step_replays_on_new_inputs(backend, case):
    """Bit for bit what the step gives outside of a graph, running statistics included."""
    step, twin = make_step(case, "cuda", backend), make_step(case, "cuda", backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        twin()
    for seed in (1, 2):
        for one in (step, twin):
            one.set_input(seed)
        graph.replay()
        assert_same_bits(tensors(step, captured), tensors(twin, twin()))


@needs_graphs
@every_case
def test_reduced_overhead_equals_eager(case):
    """The compiler may round what is computed between kernels otherwise, so a spike may differ now and then."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    step, twin = make_step(case, "cuda"), make_step(case, "cuda")
    step.forward = torch.compile(step.forward, mode="reduce-overhead")
    for buffer in step.buffers:  # a module's are known to stay where they are
        torch._dynamo.mark_static_address(buffer)
    for seed in (0, 1, 2, 3):
        torch.compiler.cudagraph_mark_step_begin()
        for one in (step, twin):
            one.set_input(seed)
        actual, expected = (tensors(one, [t.clone() for t in one()]) for one in (step, twin))
        differing = (actual["result 0"] != expected["result 0"]).float().mean()
        assert differing < 1e-2
        if not differing:
            assert_close(actual, expected, TOLERANCES[torch.float32])
    assert counters["inductor"]["cudagraph_skips"] == 0
