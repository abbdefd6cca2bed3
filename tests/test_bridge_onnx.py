"""Networks as ONNX files: onnxruntime gives what the CPU kernels give. Both round in float32, in other places."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from random_neurons import declarations
from test_define import Everything
from torch import nn

pytest.importorskip("onnx", reason="needs the extra [bridges]")
pytest.importorskip("onnxscript", reason="needs the extra [bridges]")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import onnx
import onnxruntime

import stdano
from stdano.bridges.onnx import initial_states, translations
from stdano.models import create_model
from stdano_kernels.define import graph
from stdano_kernels.neurons import NEURONS
from stdano_kernels.reference import apply


class Cast(nn.Module):
    """A layer in another dtype."""

    def __init__(self, layer, dtype):
        super().__init__()
        self.layer, self.dtype = layer, dtype

    def forward(self, x):
        return self.layer(x.to(self.dtype))


# Potentials of order 1 to 10 after steps of a few roundings each; a spike differs where one is nearer to the threshold.
STATE, SHARE = 1e-5, 1e-4
C = 3
NODES = {
    **{name: lambda neuron=neuron: stdano.node(neuron)() for name, neuron in NEURONS.items()},
    "parametric": lambda: stdano.ParametricLIFNode(1.7),
    "lif, soft reset": lambda: stdano.LIFNode(v_reset=None),
    "lif, no leak": lambda: stdano.LIFNode(tau=float("inf")),
    "lif, linear": lambda: stdano.LIFNode(tau=torch.tensor(3.0), decay="linear", decay_input=True),
    "lif, a channel": lambda: stdano.LIFNode(v_threshold=nn.Parameter(torch.tensor([0.7, 1.0, 1.3])), v_reset=-0.25),
    "llif, a neuron": lambda: stdano.LLIFNode(tau=torch.linspace(1.1, 5.0, 4 * C).view(C, 4), gamma=0.3),
    "llif, a channel": lambda: stdano.LLIFNode(v_threshold=torch.tensor([0.7, 1.0, 1.3])),  # a state rests at it
    "slif, hardtanh": lambda: stdano.SLIFNode(beta=0.5, squash="hardtanh"),
    "everything": lambda: stdano.node(Everything)(mode="b"),
    "float64": lambda: Cast(stdano.LLIFNode(v_threshold=torch.tensor([0.7, 1.0, 1.3])), torch.float64),
    "float16": lambda: Cast(stdano.LLIFNode(v_threshold=torch.tensor([0.7, 1.0, 1.3])), torch.float16),
    "soft spikes": lambda: stdano.LIFNode(spike="soft", alpha=2.0),
}


class Side(nn.Module):
    """Layers side by side."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x):
        return {name: layer(x) for name, layer in self.layers.items()}


def session_of(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options)


def run(session, x, states=None):
    """The outputs by name."""
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {"input": x.numpy(), **(states or {})})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def exported(model, example, tmp_path, **options):
    stdano.to_onnx(model, example, tmp_path / "model.onnx", **options)
    return session_of(tmp_path / "model.onnx")


def called(model, x):
    with torch.no_grad(), stdano.stateless(model.eval()):
        return model(x)


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    """All nodes as one file with their states; and for an input of other sizes than the example, what they give."""
    torch.manual_seed(0)
    model = Side({name: make() for name, make in NODES.items()}).eval()
    file = tmp_path_factory.mktemp("onnx") / "side.onnx"
    stdano.to_onnx(model, torch.randn(5, 2, C, 4), file, states=True)
    session = session_of(file)
    x = 1.5 * torch.randn(100, 7, C, 4) + 0.2
    with torch.no_grad():
        want = model(x)
    return model, file, session, x, want, run(session, x, initial_states(session, {"input": x.numpy()}))


@pytest.mark.parametrize("name", NODES)
def test_spikes_and_states(side, name):
    model, _, _, _, want, got = side
    spikes = got[f"output{[*NODES].index(name)}"]
    assert spikes.dtype == want[name].dtype
    if name == "soft spikes":
        torch.testing.assert_close(spikes, want[name], atol=STATE, rtol=0)
    else:
        assert 0.02 < want[name].count_nonzero() / want[name].numel() < 0.9
        assert (spikes != want[name]).double().mean() <= SHARE
    for place, neuron in model.layers[name].named_modules(prefix=f"layers.{name}"):
        for state in neuron.neuron.states if isinstance(neuron, stdano.BaseNode) else ():
            found = (got[f"{place}.{state}.next"] - getattr(neuron, state)).abs()
            assert (found > STATE).double().mean() <= SHARE  # where a spike differs, so do states


def test_a_file_is_standard_and_holds_a_loop_a_layer(side):
    _, file, *_ = side
    onnx.checker.check_model(file, full_check=True)
    model = onnx.load(file)
    assert {entry.domain for entry in model.opset_import} == {""} and not model.functions
    assert [node.op_type for node in model.graph.node].count("Scan") == len(NODES)
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    (T, B, *rest), *states = sizes
    assert isinstance(T, str) and isinstance(B, str) and rest == [C, 4] and states == [[B, C, 4]] * len(states)


def test_states_go_from_chunk_to_chunk(side):
    *_, session, x, _, whole = side
    states, outputs = initial_states(session, {"input": x.numpy()}), []
    for chunk in x.split([1, 60, 39]):
        after = run(session, chunk, states)
        states = {name: after[f"{name}.next"].numpy() for name in states}
        outputs.append(after)
    for name in whole:
        own = torch.cat([after[name] for after in outputs]) if name.startswith("output") else after[name]
        assert torch.equal(own, whole[name]), name
    with pytest.raises(ValueError, match=r"inputs must tell the sizes of state layers\.lif\.v"):
        initial_states(session, {})


OPERATIONS = {
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "div"), 2),
    **dict.fromkeys(("neg", "abs", "exp", "exp_or_zero", "exp_negative", "tanh", "atan", "sigmoid", "reciprocal"), 1),
    **dict.fromkeys(("log", "sqrt", "limit"), 1),
    "fma": 3,
}


def test_each_operation_is_that_of_the_reference():
    from onnx_ir import DataType, Graph, Model, to_proto, val

    from stdano.bridges.onnx_scan import Tape

    tape, inner = Tape(DataType.FLOAT), [val(name, DataType.FLOAT, [6]) for name in "abc"]
    symbols = [graph.symbol(name) for name in "abc"]
    names = dict(zip(map(id, symbols), inner, strict=True))
    roots = [graph.node(op, *symbols[:count]) for op, count in OPERATIONS.items()]
    body = Graph(inner, tape.print(roots, names), nodes=tape.nodes, opset_imports={"": 20}, name="operations")
    file = to_proto(Model(body, ir_version=10)).SerializeToString()
    a, b, c = values = torch.tensor([[-95.0, -1.5, 0.25, 0.5, 2.0, 3.0], [1.0, -1.5, 2.0, 0.25, 3.0, 3.0], [1.0] * 6])
    inputs = {name: value.numpy() for name, value in zip("abc", values, strict=True)}
    for (op, count), got in zip(OPERATIONS.items(), session_of(file).run(None, inputs), strict=True):
        # The reference's way past the limits for gradients rounds.
        want = a.clamp(1e-19, 1e30) if op == "limit" else apply(op, *(a, b, c)[:count])
        want = want.clamp(min=1.2e-38) if op == "exp_negative" else want  # as the kernels: never 0
        torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-37, rtol=1e-6, equal_nan=True, msg=op)


def uneven(model):
    """Norms and mixtures that are not as they were made."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.weight, 0.5, 3.0)
        elif isinstance(module, stdano.SuperNeuron):
            nn.init.normal_(module.alpha)
            nn.init.uniform_(module.running_mean, 0.1, 0.4)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "neurons", "images"),
    [
        ("vgg-small", "LLIF", True),
        ("vgg-small", "super", False),
        ("resnet18", "SLIF", False),
    ],
)
def test_models(name, neurons, images, tmp_path):
    model = uneven(create_model(name, neurons, width=0.1, size=8, T=3))
    stdano.fuse(model)
    example, x = (torch.randn(*(() if images else (n + 2,)), n, 3, 8, 8) for n in (2, 5))
    session = exported(model, example, tmp_path, dynamic=(0,) if images else None)
    want = called(model, x)
    torch.testing.assert_close(run(session, x)["output"], want, atol=STATE, rtol=STATE)
    assert want.std() > 100 * STATE


class Loop(nn.Module):
    """A loop over time of its own, which fixes T."""

    def __init__(self):
        super().__init__()
        self.neuron = stdano.LIFNode(step_mode="s")

    def forward(self, x):
        return torch.stack([self.neuron(step) for step in x])


def test_the_model_stays_as_it_was_and_sizes_that_it_fixes_are_fixed_in_the_file(tmp_path):
    model = nn.Sequential(nn.Linear(4, 5), stdano.BatchNormNeuron(5, "LIF", backend="reference"), Loop())
    model(torch.randn(4, 2, 4)).sum().backward()
    neuron, values = model[1][1], {name: t.clone() for name, t in model.state_dict().items()}
    before = neuron.v.clone()
    session = exported(model, torch.randn(4, 2, 4), tmp_path)
    assert all(module.training for module in model.modules()) and neuron.backend == "reference"
    assert torch.equal(neuron.v, before) and all(torch.equal(t, values[k]) for k, t in model.state_dict().items())
    T, B, features = session.get_inputs()[0].shape
    assert (T, features) == (4, 4) and isinstance(B, str)
    x = 4 * torch.randn(4, 30, 4)
    model.eval()
    stdano.reset_net(model)
    with torch.no_grad():
        want = model(x)  # in eval mode and from rest
    assert want.mean() > 0.02 and torch.equal(run(session, x)["output"], want)


def test_a_neuron_step_by_step(tmp_path):
    neuron = stdano.LLIFNode(step_mode="s")
    session = exported(neuron, torch.randn(2, 3), tmp_path, states=True)
    x = 2 * torch.randn(9, 4, 3)
    states = initial_states(session, {"input": x[0].numpy()})
    assert [*states] == ["v", "theta"] and (states["theta"] == 1).all()
    for step in x:
        spikes, *after = run(session, step, states).values()
        states = dict(zip(states, (t.numpy() for t in after), strict=True))
        assert torch.equal(spikes, neuron(step))


def test_the_weighted_sum_of_a_super_neuron(tmp_path):
    model = uneven(nn.Sequential(stdano.SuperNeuron(C, ["LIF", "LIF(tau=4.0)", "LLIF", "SLIF"])))
    session, x = exported(model, torch.randn(4, 2, C, 2), tmp_path), torch.randn(20, 5, C, 2)
    torch.testing.assert_close(run(session, x)["output"], called(model, x), atol=STATE, rtol=STATE)


def test_torch_can_export_by_itself(tmp_path):
    """With the table of translations alone."""
    model, x = nn.Sequential(nn.Linear(4, 5), stdano.SLIFNode()).eval(), 3 * torch.randn(6, 2, 4)
    with stdano.stateless(model):
        program = torch.onnx.export(model, (x,), custom_translation_table=translations(), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    (spikes,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.equal(torch.from_numpy(spikes), called(model, x))


def no_statistics():
    return stdano.BatchNormNeuron(3, "LIF", track_running_stats=False)


@pytest.mark.parametrize(
    ("make", "example", "options", "error", "message"),
    [
        (lambda: lambda x: x, torch.ones(2, 2), {}, TypeError, "model must be a torch.nn.Module, got function"),
        (stdano.LIFNode, [1.0], {}, TypeError, "example_input must be a tensor or a tuple of tensors, got list"),
        (stdano.LIFNode, (), {}, TypeError, "example_input must be .* got an empty tuple"),
        (stdano.LIFNode, torch.ones(2, 2), {"dynamic": (2,)}, ValueError, "dynamic must be axes .* below 2, got 2"),
        (stdano.LIFNode, torch.ones(2, 1), {"dynamic": (1,)}, ValueError, "size 2 or more in its dynamic axis 1"),
        (stdano.LIFNode, torch.ones(2, 2), {"opset_version": 17}, ValueError, "opset_version must be .* got 17"),
        (stdano.LIFNode, torch.ones(2, 2), {"opset_version": 99}, ValueError, "opset_version must be .* got 99"),
        (stdano.LIFNode, torch.ones(2, 2), {"dynamic": 0}, TypeError, "dynamic must be a sequence .* got 0"),
        (lambda: stdano.SuperNeuron(3), torch.ones(2, 2, 3), {"states": True}, ValueError, r"stdano\.convert"),
        (no_statistics, torch.ones(2, 2, 3), {}, ValueError, "norms with running statistics"),
    ],
)
def test_what_is_refused(make, example, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        stdano.to_onnx(make(), example, tmp_path / "model.onnx", **options)
    assert not [*tmp_path.iterdir()]


def test_a_size_of_one_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.export, "export", lambda *given, **options: pytest.fail("goes on"))
    with pytest.warns(UserWarning, match=r"size 1 in axes \[1\]") as caught, pytest.raises(pytest.fail.Exception):
        stdano.to_onnx(stdano.LIFNode(), torch.ones(2, 1, 3), tmp_path / "model.onnx")
    assert caught[0].filename == __file__


def test_one_step_without_states_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.export, "export", lambda *given, **options: pytest.fail("goes on"))
    model = nn.Sequential(stdano.LIFNode(step_mode="s"), Loop())
    warned = pytest.warns(UserWarning, match=r"begins at rest, .* one time step in it: 0; states=True")
    with warned as caught, pytest.raises(pytest.fail.Exception):
        stdano.to_onnx(model, torch.ones(2, 3), tmp_path / "model.onnx")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("module", "make", "message"),
    [
        (
            "spikingjelly.activation_based.neuron",
            lambda m: m.LIFNode(),
            r"LIFNode of SpikingJelly; stdano\.convert replaces it",
        ),
        ("spikingjelly.activation_based.layer", lambda m: m.SynapseFilter(), "SynapseFilter of .* keeps one"),
        ("snntorch", lambda m: m.Leaky(0.9, init_hidden=True), r"Leaky of snnTorch; stdano\.from_snntorch replaces it"),
        ("sinabs.layers", lambda m: m.IAF(), r"IAF of sinabs; stdano\.from_sinabs replaces it"),
    ],
)
def test_neurons_of_others_are_refused(module, make, message, tmp_path):
    neuron = make(pytest.importorskip(module))
    with pytest.raises(ValueError, match=f"0 is a {message}"):
        stdano.to_onnx(nn.Sequential(neuron), torch.ones(2, 2), tmp_path / "model.onnx")


def test_dropout_of_spikingjelly_is_nothing_in_a_file(tmp_path):
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    model = nn.Sequential(nn.Linear(4, 5), layer.Dropout(0.5, step_mode="m"), stdano.LIFNode()).eval()
    x = 4 * torch.randn(6, 2, 4)
    assert torch.equal(run(exported(model, x, tmp_path), x)["output"], called(model, x))


def test_a_folder_must_exist(tmp_path):
    with pytest.raises(ValueError, match="file must be in a folder that exists, got .*none"):
        stdano.to_onnx(stdano.LIFNode(), torch.ones(2, 2, 3), tmp_path / "none" / "model.onnx")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript must be installed .* pip install 'stdano\[bridges\]'"):
        translations()


@pytest.mark.slow
@given(drawn=declarations())
@settings(max_examples=4, suppress_health_check=[*HealthCheck])
def test_drawn_neurons(drawn, tmp_path):
    neuron, options = drawn
    model = stdano.node(neuron)(surrogate_function=options.pop("surrogate"), **options)
    session, x = exported(model, torch.randn(4, 2, C), tmp_path), 1.5 * torch.randn(60, 30, C)
    assert (run(session, x)["output"] != called(model, x)).double().mean() <= SHARE


def test_the_example(tmp_path, capsys, set_threads):
    pytest.importorskip("sklearn", reason="needs the extra [app]")
    set_threads(1)
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "inference_export.py"))
    example["main"](["--fast", "--file", str(tmp_path / "digits.onnx")])
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"accuracy of onnxruntime: ([\d.]+) %", printed)[1])
    agree, count = map(int, re.search(r"agree with stdano: (\d+) of (\d+)", printed).groups())
    assert accuracy > 50 and count == 360 and agree >= 359
    assert f"{(tmp_path / 'digits.onnx').stat().st_size / 1024:.1f} KiB" in printed
