"""Activation checkpointing gives the gradients and states without it, whichever way segments are cut, or an error
before backward."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import BatchNormNeuron, SuperNeuron
from stdano.nodes.neurons import NEURONS

CHUNKS = 4


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 2, 6, generator=generator).requires_grad_() for _ in range(CHUNKS)]


def without(function, x):
    return function(x)


def segment(function, x):
    return checkpoint(function, x, use_reentrant=False)


def reentrant(function, x):
    return checkpoint(function, x, use_reentrant=True)


def kept_elsewhere(function, x):
    def inner(x):
        with save_on_cpu():
            return function(x)

    return segment(inner, x)


def by_step(node, x):
    """A module in step mode "s" over all steps."""
    return torch.stack([node(step) for step in x])


def chunks(a, b, xs, run):
    return [run(lambda x: b(a(x)), x) for x in xs]


def nested(a, b, xs, run):
    return [run(lambda x: run(b, run(a, x)), x) for x in xs]


def shared(a, b, xs, run):
    """One neuron twice in a segment, and in a segment of its own within that."""
    return [run(lambda x: a(run(a, x) + b(x)), x) for x in xs]


def truncated(a, b, xs, run):
    out = []
    for x in xs:
        out.append(run(lambda x: b(a(x)), x))
        a.detach(), b.detach()
    return out


def sequences(a, b, xs, run):
    out = []
    for x in xs:
        stdano.reset_net(nn.ModuleList((a, b)))
        out.append(run(lambda x: b(a(x)), x))
    stdano.reset_net(nn.ModuleList((a, b)))
    return out


def streams(a, b, xs, run):
    """Two sequences in turn through the same neurons, whose potentials are swapped outside of the segments."""
    kept, out = [None, None], []
    for i, x in enumerate(xs):
        if kept[i % 2] is None:
            a.reset(), b.reset()
        else:
            a.v, b.v = kept[i % 2]
        out.append(run(lambda x: b(a(x)), x))
        kept[i % 2] = (a.v, b.v)
    return out


def changed_inside(a, b, xs, run):
    """The segment reads and writes the potential, and cuts its history."""

    def inner(x):
        first = a(x)
        a.v = 0.5 * a.v + first[-1]
        b.detach()
        again = b(a(first))
        b.reset()
        return again + b(x) + a.v

    return [run(inner, x) for x in xs]


def steps(a, b, xs, run):
    a.step_mode = b.step_mode = "s"
    return [run(lambda x: b(a(x)), step) for x in xs for step in x]


def steps_inside(a, b, xs, run):
    a.step_mode = b.step_mode = "s"
    return [run(lambda x: by_step(b, by_step(a, x)), x) for x in xs]


def potentials(a, b, xs, run):
    """The loss looks at potentials, inside of the segment."""
    a.store_v_seq = True

    def inner(x):
        out = b(a(x))
        return out + a.v_seq.sum(0)

    return [run(inner, x) for x in xs]


SCENARIOS = (
    chunks,
    nested,
    shared,
    truncated,
    sequences,
    streams,
    changed_inside,
    steps,
    steps_inside,
    potentials,
)
# How backward goes through the outputs: together, the first alone, one by one in order and twice.
BACKWARDS = {
    "together": lambda out: sum((i + 1) * y.sum() for i, y in enumerate(out)).backward(),
    "first alone": lambda out: out[0].sum().backward(),
    "in order": lambda out: [y.sum().backward(retain_graph=True) for y in out],
    "twice": lambda out: [sum(y.sum() for y in out).backward(retain_graph=True) for _ in range(2)],
}


def results(scenario, run, backward, name="LLIF"):
    settings = dict(surrogate_function="atan", **({} if name == "IF" else {"tau": 1.7}))
    a, b = (NEURONS[name](v_threshold=nn.Parameter(torch.tensor(t)), **settings) for t in (0.8, 0.6))
    xs = inputs()
    out = scenario(a, b, xs, run)
    states = [t.detach().clone() for n in (a, b) if n._state is not None for t in n._state]
    backward(out)
    after = [t.detach() for n in (a, b) if n._state is not None for t in n._state]
    assert all(torch.equal(s, t) for s, t in zip(states, after, strict=True)), "backward moved the state"
    grads = [t.grad for t in (*xs, a.v_threshold, b.v_threshold)]
    return [*(y.detach() for y in out), *states, *(torch.zeros(()) if g is None else g for g in grads)]


def assert_same(ours, others):
    for a, b in zip(ours, others, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backward", BACKWARDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_gradients_without_checkpointing(scenario, backward):
    go = BACKWARDS[backward]
    assert_same(results(scenario, segment, go), results(scenario, without, go))


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron(name):
    go = BACKWARDS["in order"]
    assert_same(results(steps_inside, segment, go, name), results(steps_inside, without, go, name))


def test_other_hooks_inside_of_a_segment():
    go = BACKWARDS["together"]
    assert_same(results(shared, kept_elsewhere, go), results(shared, without, go))


def test_without_early_stop():
    go = BACKWARDS["in order"]
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        assert_same(results(streams, segment, go), results(streams, without, go))


@pytest.mark.parametrize("scenario", (sequences, truncated, steps, steps_inside), ids=lambda s: s.__name__)
def test_reentrant_segments(scenario):
    """One neuron alone; between segments its state has no history, as after detach()."""

    def run(forward, detach):
        node = NEURONS["LIF"](v_threshold=nn.Parameter(torch.tensor(0.8)))
        xs = inputs()

        def each(function, x):
            y = forward(function, x)
            if detach:
                node.detach()
            return y

        out = scenario(node, nn.Identity() if scenario in (steps, steps_inside) else _Nothing(), xs, each)
        sum((i + 1) * y.sum() for i, y in enumerate(out)).backward()
        return [*(y.detach() for y in out), *(x.grad for x in xs), node.v_threshold.grad]

    assert_same(run(reentrant, False), run(without, True))


class _Nothing(nn.Identity):
    def detach(self):
        pass


@pytest.mark.parametrize("outer", (segment, reentrant))
@pytest.mark.parametrize("inner", (segment, reentrant))
def test_kinds_nested(inner, outer):
    def run(inner, outer):
        node, other = NEURONS["SLIF"](), NEURONS["LIF"]()
        x = inputs()[0]
        y = outer(lambda x: node(inner(other, x)) + node(inner(lambda z: z * 2, x)), x)
        y.sum().backward()
        return [y.detach(), x.grad]

    assert_same(run(inner, outer), run(without, without))


def test_a_state_with_a_history_does_not_enter_a_reentrant_segment():
    node, x = NEURONS["LIF"](), inputs()[0]
    node(x)
    with pytest.raises(RuntimeError, match="use_reentrant=True starts from a state that carries gradients.*detach"):
        checkpoint(node, x, use_reentrant=True)
    node.detach()
    checkpoint(node, x, use_reentrant=True)


def test_another_function_that_runs_its_forward_again():
    """Reentrant checkpoints of other libraries."""

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, function, x):
            ctx.function = function
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx, grad):
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                y = ctx.function(x)
            torch.autograd.backward(y, grad)
            return None, x.grad

    def run(forward):
        node = BatchNormNeuron(6, "LIF", momentum=0.5)
        xs = inputs()
        out = []
        for x in xs:
            out.append(forward(node, x))
            node[1].detach()
        sum(y.sum() for y in out).backward()
        return [*(y.detach() for y in out), *(x.grad for x in xs), node[0].running_var, node[1].v.detach()]

    assert_same(run(Again.apply), run(without))


def test_a_neuron_in_an_ordinary_backward_hook_carries_its_state():
    node, expected = NEURONS["LIF"](step_mode="s"), NEURONS["LIF"](step_mode="s")
    x = torch.full((5, 2), 0.4, requires_grad=True)
    for _ in range(3):
        y = x * 2
        y.register_hook(lambda grad: _call(node, grad))
        y.sum().backward()
        expected(torch.ones(5, 2))
    assert torch.equal(node.v, expected.v)


def _call(node, grad):
    node(grad)


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_statistics_move_once(use_reentrant):
    """The same layer twice in each of two segments."""

    def run(forward):
        torch.manual_seed(0)
        layers = nn.ModuleList((SuperNeuron(6), BatchNormNeuron(6)))
        for x in inputs()[:2]:
            stdano.reset_net(layers)
            forward(lambda x: layers[1](layers[0](layers[0](x))), x).sum().backward()
        return [*layers.state_dict().values()]

    assert_same(run(lambda f, x: checkpoint(f, x, use_reentrant=use_reentrant)), run(without))


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_what_is_remembered_goes_with_the_graph(use_reentrant):
    node, x = NEURONS["LIF"](), inputs()[0]
    with torch.no_grad():
        for _ in range(3):
            node(x)
            checkpoint(node, x, use_reentrant=use_reentrant)
    gc.collect()
    assert len(node._segments._entries) == 0
    out = [checkpoint(lambda x: node(node(x)), x, use_reentrant=use_reentrant) for _ in range(3)]
    assert len(node._segments._entries) == 3
    alive = weakref.ref(out[0].grad_fn)
    sum(y.sum() for y in out).backward()
    node.reset()
    del out
    assert alive() is None and len(node._segments._entries) == 0


def test_a_function_that_does_something_else_the_second_time():
    first, second, x = NEURONS["LIF"](), NEURONS["LIF"](), inputs()[0]
    calls = iter((first, second))
    y = checkpoint(lambda x: next(calls)(x), x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="calls a LIFNode again that did not run in the first call"):
        y.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("run", (segment, reentrant))
def test_compiled_within_a_checkpoint(run):
    """A compiled neuron runs uncompiled where its state must be seen, also where it was compiled elsewhere before."""

    def results(compiled):
        node, norm = NEURONS["LIF"](), SuperNeuron(6)
        with torch.no_grad():
            norm.alpha.copy_(torch.tensor([0.1, 0.2, 0.3]))
        net = nn.Sequential(norm, node)
        graphs = CompileCounterWithBackend("aot_eager")
        forward = torch.compile(net, backend=graphs) if compiled else net
        xs = inputs()
        with torch.no_grad():
            forward(xs[0])
        forward(xs[1])
        net[1].detach()
        out = []
        for x in xs[2:]:
            out.append((run if compiled else without)(forward, x))
            node.detach()
        sum(y.sum() for y in out).backward()
        assert not compiled or graphs.frame_count >= 2
        return [*(y.detach() for y in out), *(x.grad for x in xs[2:]), node.v, *norm.state_dict().values()]

    for a, b in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_a_checkpoint_that_is_compiled():
    def results(compiled):
        node = NEURONS["LIF"]()
        node(inputs()[0])
        node.detach()
        x = inputs()[1]

        def forward(x):
            return checkpoint(node, x, use_reentrant=False)

        (torch.compile(forward, backend="aot_eager") if compiled else forward)(x).sum().backward()
        return [x.grad, node.v]

    assert_same(results(True), results(False))
