"""The state that a module carries, in the company of PyTorch's other features."""

import io

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import stdano_kernels
from stdano import BatchNormNeuron, LIFNode, LLIFNode, SLIFNode, SuperNeuron
from stdano.nodes.neurons import CANDIDATES


def test_a_state_from_inference_mode_can_be_trained_on():
    ours, plain = LLIFNode(), LLIFNode()
    first, x = torch.rand(3, 2), torch.rand(3, 2)
    with torch.inference_mode():
        ours(first)
    with torch.no_grad():
        plain(first)
    grads = []
    for node in (ours, plain):
        leaf = x.clone().requires_grad_()
        node(leaf).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads) and torch.equal(ours.v, plain.v)


def test_a_state_from_vmap_is_refused():
    node = LIFNode()
    torch.vmap(node)(torch.rand(4, 3, 2))
    with pytest.raises(ValueError, match=r"LIFNode carries a state from an earlier call under torch.vmap.* reset\(\)"):
        node(torch.rand(3, 2))
    node.reset()
    node(torch.rand(3, 2))


@pytest.mark.parametrize("neuron", ("lif", "llif", "slif"))
def test_states_load_with_weights_only(neuron):
    _, state = getattr(stdano_kernels, neuron)(torch.rand(3, 2), return_state=True)
    file = io.BytesIO()
    torch.save({"state": state}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["state"]
    assert type(loaded) is type(state) and all(torch.equal(a, b) for a, b in zip(loaded, state, strict=True))


def test_channels_last_leaves_the_order_of_time():
    node = LIFNode(store_v_seq=True)
    node(torch.rand(3, 2, 4, 5, 6))
    before = node.v_seq
    node.to(memory_format=torch.channels_last)
    assert torch.equal(node.v_seq, before) and node.v.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("Node", CANDIDATES.values())
def test_numpy_scalars_are_numbers(Node):
    x = torch.rand(4, 3, 2)
    settings = dict(tau=np.float32(1.5), v_threshold=np.int64(1), alpha=np.float64(2), decay_input=np.bool_(True))
    node = Node(**settings, store_v_seq=np.bool_(False), v_reset=np.float32(0.25))
    plain = Node(tau=1.5, v_threshold=1, alpha=2.0, decay_input=True, v_reset=0.25)
    assert torch.equal(node(x), plain(x))
    assert {type(value) for value in node._settings().values()} <= {int, float, bool, str}


def test_numpy_scalars_in_what_normalises():
    layer = SuperNeuron(np.int64(3), momentum=np.float32(0.5), eps=np.float64(1e-5), tau=np.float16(2))
    layer(torch.rand(4, 2, 3))
    BatchNormNeuron(np.int64(3), "LIF", tau=np.float32(1.5), momentum=np.float32(0.5))(torch.rand(4, 2, 3))
    with pytest.raises(TypeError, match="tau must be a number, got array"):
        LIFNode(tau=np.array([1.0, 2.0]))


@pytest.mark.slow
def test_stored_potentials_make_no_graph_a_step():
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("eager")
    node, plain = (LIFNode(step_mode="s", store_v_seq=True) for _ in range(2))
    forward = torch.compile(node, backend=graphs)
    for x in torch.rand(12, 3, 6):
        forward(x), plain(x)
    assert graphs.frame_count <= 4
    assert torch.equal(node.v_seq, plain.v_seq)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("tau", "v_threshold"))
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_a_compiled_constant_is_looked_at(name, backend):
    torch._dynamo.reset()
    node = SLIFNode(**{name: nn.Parameter(torch.tensor(1.5))}, backend=backend)
    forward = torch.compile(node, backend="aot_eager", fullgraph=True)
    x = torch.rand(3, 2)
    forward(x)
    node.reset()
    with torch.no_grad():
        getattr(node, name).fill_(-1.0 if name == "tau" else float("nan"))
    with pytest.raises(RuntimeError, match=f"{name} must be finite.* everywhere"):
        forward(x)


@pytest.mark.slow
def test_export_with_any_number_of_steps_and_gradients():
    net = nn.Sequential(nn.Linear(6, 8), LIFNode(tau=nn.Parameter(torch.tensor(1.5))))
    x = torch.randn(4, 3, 6)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("T", min=2, max=64)},))
    module, x = program.module(), torch.randn(40, 3, 6)
    net[1].reset()
    grads = []
    for model in (net, module):
        leaf = x.clone().requires_grad_()
        model(leaf).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
