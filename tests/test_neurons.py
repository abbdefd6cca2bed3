"""The modules: settings, carried state, and what PyTorch does to modules."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
import stdano_kernels
from stdano import LIFNode, LLIFNode, SLIFNode
from stdano.nodes.neurons import CANDIDATES

NODES = list(CANDIDATES.values())
nodes = pytest.mark.parametrize("Node", NODES)


def random_input(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.5


def function_of(node: stdano.BaseNode):
    return stdano_kernels.function(node.neuron)


def network(**settings) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), LLIFNode(**settings), nn.Linear(8, 5), SLIFNode(**settings))


@nodes
def test_arguments_are_those_of_spikingjelly(Node):
    names = list(inspect.signature(Node).parameters.values())
    positional = [p.name for p in names if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        "tau",
        "decay_input",
        "v_threshold",
        "v_reset",
        "surrogate_function",
        "detach_reset",
        "step_mode",
        "backend",
        "store_v_seq",
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in names[len(positional) :])


@nodes
def test_module_equals_function(Node):
    x = random_input(5, 3, 4)
    node = Node(1.3, True, 0.8, None, "sigmoid", True, alpha=2.0, decay="linear")
    expected = function_of(node)(
        x, tau=1.3, decay_input=True, v_threshold=0.8, v_reset=None, surrogate="sigmoid", alpha=2.0, decay="linear"
    )
    assert torch.equal(node(x), expected)


@nodes
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_state_carries_from_call_to_call(Node, backend):
    x = random_input(8, 3, 4)
    node = Node(backend=backend, store_v_seq=True)
    whole = node(x)
    v, v_seq = node.v, node.v_seq
    assert v_seq.shape == x.shape
    node.reset()
    assert node.v == 0.0 and node.v_seq is None
    parts = torch.cat([node(x[:3]), node(x[3:])])
    assert torch.equal(parts, whole)
    assert torch.equal(node.v, v)
    assert torch.equal(node.v_seq, v_seq[3:])


@nodes
def test_single_steps_equal_one_call(Node):
    x = random_input(6, 3, 4)
    whole, single = Node(store_v_seq=True), Node(step_mode="s", store_v_seq=True)
    assert torch.equal(torch.stack([single(step) for step in x]), whole(x))
    assert torch.equal(single.v, whole.v)
    assert torch.equal(single.v_seq, whole.v_seq)


@nodes
def test_v_can_be_set(Node):
    node, x = Node(), random_input(4, 3, 4)
    node.v = torch.full((3, 4), 0.9)
    assert torch.equal(node.v, torch.full((3, 4), 0.9))
    rest = {LIFNode: (), LLIFNode: (torch.ones(3, 4),), SLIFNode: (torch.zeros(3, 4),)}[Node]
    assert torch.equal(node(x), function_of(node)(x, state=(torch.full((3, 4), 0.9), *rest)))
    node.v = 0.0
    assert node.v == 0.0
    with pytest.raises(ValueError, match="v must be a tensor or the resting potential 0.0, got 0.5"):
        node.v = 0.5


def test_adaptation_is_visible():
    x = -random_input(4, 3, 5).abs()
    long, short = LLIFNode(gamma=0.2), SLIFNode()
    assert long.theta == 1.0 and short.p == 0.0
    long(x)
    short(-4 * x)
    assert torch.all(long.theta > 1.0)
    assert torch.any(short.p > 0)


@nodes
def test_learnable_constants_are_parameters(Node):
    node = Node(tau=nn.Parameter(torch.full((4,), 1.5)), v_threshold=nn.Parameter(torch.tensor(1.0)))
    assert {name for name, _ in node.named_parameters()} == {"tau", "v_threshold"}
    node(random_input(6, 5, 4, 3)).sum().backward()
    assert node.tau.grad.shape == (4,) and node.tau.grad.abs().min() > 0
    assert node.v_threshold.grad < 0


@nodes
def test_extra_repr_shows_every_setting(Node):
    node = Node(tau=nn.Parameter(torch.full((4,), 1.5)))
    shown = repr(node)
    for name in inspect.signature(Node).parameters:
        assert f"{'surrogate' if name == 'surrogate_function' else name}=" in shown
    assert "tau=Parameter[4]" in shown


@nodes
def test_state_dict_has_no_state(Node):
    node = Node(store_v_seq=True)
    node(random_input(4, 3, 5))
    assert node.state_dict() == {}
    Node().load_state_dict(node.state_dict())


@nodes
def test_deepcopy_and_pickle_with_live_graph(Node):
    x = random_input(4, 3, 5).requires_grad_()
    node = Node(store_v_seq=True)
    out = node(x)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert torch.equal(twin.v, node.v) and not twin.v.requires_grad
        assert torch.equal(twin.v_seq, node.v_seq)
        assert torch.equal(twin(x), copy.deepcopy(node)(x))
    out.sum().backward()  # the graph of the original is untouched
    assert x.grad is not None


def test_moving_a_module_moves_its_state():
    node = LLIFNode()
    node(random_input(4, 3, 5))
    assert node.to("meta").v.device.type == "meta"
    node = LLIFNode()
    node(random_input(4, 3, 5))
    assert node.double().v.dtype == torch.float64
    assert node(random_input(4, 3, 5, dtype=torch.float64)).dtype == torch.float64


@nodes
def test_half_precision_state_stays_float32(Node):
    node = Node().bfloat16()
    x = random_input(4, 3, 5).bfloat16()
    assert node(x).dtype == torch.bfloat16
    assert node.v.dtype == torch.float32


@nodes
def test_data_parallel_replica_starts_afresh(Node):
    node = Node()
    node(random_input(4, 6, 5))
    replica = node._replicate_for_data_parallel()
    half = random_input(4, 3, 5)
    assert torch.equal(replica(half), function_of(node)(half))
    assert node.v.shape == (6, 5)


@nodes
def test_batch_size_change_names_reset(Node):
    node = Node()
    node(random_input(4, 3, 5))
    with pytest.raises(ValueError, match=rf"{Node.__name__} carries a state of shape \[3, 5\].*\[2, 5\].*reset\(\)"):
        node(random_input(4, 2, 5))
    node.reset()
    node(random_input(4, 2, 5))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@nodes
def test_stale_state_names_detach_and_reset(Node, backend):
    node, x = Node(backend=backend), random_input(4, 3, 5).requires_grad_()
    node(x).sum().backward()
    second = node(x)
    with pytest.raises(RuntimeError, match=r"reset\(\).*detach\(\)"):
        second.sum().backward()
    node.detach()
    node(x).sum().backward()
    node.reset()
    node(x).sum().backward()


@nodes
def test_truncated_history_keeps_values(Node):
    x = random_input(8, 3, 5)
    node, whole = Node(), Node()(x)
    first = node(x[:4])
    node.detach()
    assert torch.equal(torch.cat([first, node(x[4:])]), whole)


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_checkpointing_does_not_move_the_state_twice(step_mode):
    """Three carried chunks, each a checkpointed segment, against the same without checkpointing."""
    net = network(step_mode=step_mode)

    def segment(x):
        return net(x) if step_mode == "m" else torch.stack([net(step) for step in x])

    def run(forward):
        stdano.reset_net(net)
        net.zero_grad()
        loss = sum(((c + 1) * forward(random_input(4, 3, 6, seed=c).requires_grad_())).sum() for c in range(3))
        before = net[1].v.detach().clone()
        loss.backward()
        assert torch.equal(net[1].v, before)
        return [p.grad.clone() for p in net.parameters()] + [before]

    plain = run(segment)
    for again in (run(lambda x: checkpoint(segment, x, use_reentrant=False)) for _ in range(2)):
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_reentrant_checkpointing():
    net = network()

    def run(forward):
        stdano.reset_net(net)
        net.zero_grad()
        for c in range(3):
            forward(random_input(4, 3, 6, seed=c).requires_grad_()).sum().backward()
            net[1].detach()
            net[3].detach()
        return [p.grad.clone() for p in net.parameters()] + [net[1].v]

    plain, again = run(net), run(lambda x: checkpoint(net, x, use_reentrant=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_checkpointing_twice_through_a_kept_graph():
    net = network()
    x = random_input(4, 3, 6).requires_grad_()
    (plain,) = torch.autograd.grad(net(x).sum(), x)
    stdano.reset_net(net)
    out = checkpoint(net, x, use_reentrant=False).sum()
    for _ in range(2):
        (again,) = torch.autograd.grad(out, x, retain_graph=True)
        assert torch.equal(plain, again)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_module_trains_like_eager(backend):
    def train(compiled: bool):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), LLIFNode(tau=nn.Parameter(torch.tensor(1.5))), nn.Linear(8, 5), SLIFNode())
        forward = torch.compile(net, fullgraph=True, backend=backend) if compiled else net
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(3):
            stdano.reset_net(net)
            optimiser.zero_grad()
            (forward(random_input(4, 3, 6, seed=step)).mean() - 0.3).square().backward()
            optimiser.step()
        carried = forward(random_input(4, 3, 6, seed=9))
        return [p.detach() for p in net.parameters()], carried

    (eager, eager_out), (compiled, compiled_out) = train(False), train(True)
    assert torch.equal(eager_out, compiled_out)
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_gives_half_precision_spikes():
    net = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(random_input(4, 3, 6))
    assert out.dtype == torch.bfloat16
    assert net[1].v.dtype == torch.float32
    out.float().sum().backward()
    assert net[0].weight.grad is not None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"tau": 0.0}, ValueError, "tau must be a finite number above 0, got 0.0"),
        ({"tau": 1.0, "decay": "linear"}, ValueError, "tau must be a finite number above 1, got 1.0"),
        ({"tau": "2"}, TypeError, "tau must be a number, got '2'"),
        ({"v_threshold": float("nan")}, ValueError, "v_threshold must be a finite number, got nan"),
        ({"v_reset": float("inf")}, ValueError, "v_reset must be a finite number, got inf"),
        ({"decay": "exponential"}, ValueError, "decay must be one of 'exp', 'linear', got 'exponential'"),
        ({"surrogate_function": "tri"}, ValueError, "surrogate_function must be one of 'triangle'"),
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number above 0, got 0.0"),
        ({"step_mode": "x"}, ValueError, "step_mode must be one of 'm', 's', got 'x'"),
        ({"backend": "cupy"}, ValueError, "backend must be one of 'auto', 'reference', 'cpu'.*got 'cupy'"),
        ({"spike": "binary"}, ValueError, "spike must be one of 'hard', 'soft', got 'binary'"),
        ({"detach_reset": 1}, TypeError, "detach_reset must be True or False, got 1"),
        ({"store_v_seq": None}, TypeError, "store_v_seq must be True or False, got None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@nodes
def test_wrong_settings_are_named_at_construction(Node, settings, error, message):
    with pytest.raises(error, match=message):
        Node(**settings)


def test_reset_net_resets_every_layer():
    net = network()
    net(random_input(4, 3, 6))
    stdano.reset_net(net)
    assert net[1].v == 0.0 and net[3].v == 0.0
