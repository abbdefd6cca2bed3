"""fuse() and unfuse(): what is fused, what is left and why, and that nothing changes but the speed."""

import copy
import pickle

import pytest
import torch
from tolerances import TOLERANCES
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import BatchNormNeuron, LIFNode, LLIFNode, SLIFNode
from stdano.models import SmallConvNet
from stdano.models.small import merged

T, B = 4, 3


class Residual(nn.Module):
    """Pre-activation block: norm and neuron in front of each convolution, and a shortcut around them."""

    def __init__(self, channels=4):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.neuron1, self.neuron2 = LLIFNode(tau=1.5), SLIFNode(tau=1.5)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x):
        y = merged(self.conv1, self.neuron1(merged(self.norm1, x)))
        return x + merged(self.conv2, self.neuron2(merged(self.norm2, y)))


class Views(nn.Module):
    """view and reshape, a norm that is not fed to a neuron, a neuron without a norm, one whose norm is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.a_norm, self.a = nn.BatchNorm2d(4), LIFNode()
        self.b_norm, self.b = nn.BatchNorm2d(4), LIFNode()
        self.fc, self.c_norm, self.c = nn.Linear(4 * 36, 6), nn.BatchNorm1d(6), LLIFNode(tau=3.0)
        self.d = LIFNode()

    def forward(self, x):
        t, b = x.shape[0], x.shape[1]
        x = torch.relu(self.stem_norm(self.stem(x.flatten(0, 1))))
        x = self.a(self.a_norm(x).view(t, b, 4, 6, 6)).reshape(t * b, 4, 6, 6)
        normalised = self.b_norm(x)
        x = self.b(normalised.contiguous().view(t, b, 4, 6, 6)).flatten(0, 1) + normalised
        x = self.c_norm(self.fc(x.flatten(1)))
        return self.d(self.c(torch.reshape(x, (t, b, 6))))


class DataDependent(nn.Module):
    """torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.norm, self.neuron, self.block = nn.BatchNorm2d(4), LIFNode(), Residual()
        self.other_norm, self.other = nn.BatchNorm2d(4), LIFNode()

    def forward(self, x):
        x = self.block(self.neuron(merged(self.norm, x)))
        y = merged(self.other_norm, x)
        return self.other(y) if x.abs().sum() >= 0 else y


class Stepwise(nn.Module):
    """One step a call, the neuron in step mode "s"."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.neuron = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), LIFNode(step_mode="s")

    def forward(self, x):
        return torch.stack([self.neuron(self.norm(self.conv(x[t]))) for t in range(T)])


class Flat(nn.Module):
    """No batch: the norm's N is the neuron's T."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.neuron = nn.Linear(4, 7), nn.BatchNorm1d(7), LLIFNode(tau=1.5, store_v_seq=True)

    def forward(self, x):
        return self.neuron(self.norm(self.fc(x.mean((3, 4)).flatten(0, 1))))


MODELS = {
    "small": (lambda: SmallConvNet(2, 10, T=T, channels=(6, 8, 6), tau=1.5), (B, 2, 8, 8), 2),
    "residual": (Residual, (T, B, 4, 6, 6), 2),
    "views": (Views, (T, B, 2, 6, 6), 2),
    "stepwise": (Stepwise, (T, B, 4, 6, 6), 1),
    "flat": (Flat, (T, B, 4, 6, 6), 1),
    "module": (lambda: BatchNormNeuron(4, "SLIF"), (T, B, 4, 6, 6), 1),
}
by_model = pytest.mark.parametrize("name", MODELS)


def make(name, dtype=torch.float64):
    build, shape, count = MODELS[name]
    torch.manual_seed(0)
    model = stdano.unfuse(build()).to(dtype)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, 0.2, 0.2)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
    return model, xs, count


def everything(model, xs, forward=None):
    """Outputs, gradients, states, statistics and a step of an optimiser; the state carries from input to input."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    results = []
    for x in xs:
        x = x.detach().requires_grad_()
        y = (model if forward is None else forward)(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward(retain_graph=True)
        results += [y.detach(), x.grad]
    results += [p.grad.clone() for p in model.parameters()]
    optimiser.step()
    results += [m.v.detach() for m in model.modules() if isinstance(m, stdano.BaseNode)]
    return results + [t.detach().clone() for t in model.state_dict().values()]


def assert_equal(ours, others, dtype=torch.float64):
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCES[dtype]._asdict())


@by_model
@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_a_fused_model_is_the_same_model(name, by_run, training):
    model, xs, count = make(name)
    model.train(training)
    fused = copy.deepcopy(model)
    keys, parameters = list(model.state_dict()), list(fused.parameters())
    report = stdano.fuse(fused, xs[0] if by_run else None)
    assert len(report.fused) == count, report
    assert list(fused.state_dict()) == keys
    assert all(a is b for a, b in zip(fused.parameters(), parameters, strict=True))
    assert [type(m) for m in fused.modules()] == [type(m) for m in model.modules()]
    assert_equal(everything(fused, xs), everything(model, xs))
    assert stdano.fuse(fused).fused == report.fused


@by_model
def test_unfuse_is_exact(name):
    model, xs, _ = make(name)
    twin = copy.deepcopy(model)
    stdano.fuse(model)
    assert stdano.unfuse(model) is model
    assert not any("forward" in m.__dict__ or getattr(m, "_link", None) for m in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(everything(model, xs), everything(twin, xs), strict=True))


def test_changes_between_fused_and_apart_while_running():
    model, xs, _ = make("residual")
    twin = copy.deepcopy(model)
    stdano.fuse(model)
    model(xs[0]), twin(xs[0])
    stdano.unfuse(model)
    assert_equal(everything(model, xs), everything(twin, xs))


def test_report_of_the_small_network():
    report = stdano.fuse(SmallConvNet(1, 10))
    assert report.fused == [(f"others.{n}.norm", f"others.{n}.neuron") for n in range(2)]
    assert str(report).splitlines() == [
        "2 fused",
        "  others.0.norm -> others.0.neuron",
        "  others.1.norm -> others.1.neuron",
        "2 left",
        "  first.norm: its output goes to expand, not to a LIFNode, LLIFNode or SLIFNode",
        "  first.neuron: its input comes from expand",
    ]


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
def test_report_of_views(by_run):
    model, xs, _ = make("views")
    report = stdano.fuse(model, xs[0] if by_run else None)
    assert report.fused == [("a_norm", "a"), ("c_norm", "c")]
    left = dict(report.left)
    assert left["stem_norm"].startswith("its output goes to relu, not to a LIFNode")
    assert left["b_norm"] == "its output has 2 uses: b (LIFNode), add"
    assert left["b"] == "its input comes from b_norm (BatchNorm2d)"
    assert left["d"] == "its input comes from c (LLIFNode)"


def test_parts_of_what_cannot_be_traced():
    model = DataDependent()
    report = stdano.fuse(model)
    assert report.fused == [("block.norm1", "block.neuron1"), ("block.norm2", "block.neuron2")]
    left = dict(report.left)
    assert left["norm"].startswith("torch.fx cannot trace DataDependent, ")
    assert left["other"].endswith(": give an example_input")


def test_an_example_tells_what_cannot_be_traced():
    torch.manual_seed(0)
    model = DataDependent().double()
    x = torch.randn(T, B, 4, 6, 6).double()
    twin = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    model.block.eval()
    report = stdano.fuse(model, (x,))
    assert len(report.fused) == 4 and not report.left
    assert model.training and not model.block.training and model.neuron.v == 0.0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model.block.train()
    assert_equal(everything(model, [x]), everything(twin, [x]))


def test_what_the_example_shows():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms, self.neurons = (
                nn.ModuleList(nn.BatchNorm1d(4) for _ in range(4)),
                nn.ModuleList(LIFNode() for _ in range(3)),
            )

        def forward(self, x):
            if x.sum() > 1e9:
                return self.norms[3](x)
            first, second = self.norms[0](x), self.norms[1](x)
            return self.neurons[0](first), self.neurons[1](second.view(1, 1, -1).mT), second, self.norms[2](x) * 2

    report = dict(stdano.fuse(Model(), torch.randn(5, 4)).left)
    assert report["norms.1"] == "its output has 2 uses: __get__, the output of the model"
    assert report["norms.2"].startswith("its output goes to mul")
    assert report["norms.3"] == "the example does not run it"
    assert report["neurons.2"] == "forward does not run it"
    assert "norms.0" not in report


@pytest.mark.parametrize(
    ("build", "reasons"),
    [
        (lambda n, a: nn.Sequential(n, a, nn.Conv2d(4, 4, 1), n, LIFNode()), {"0": "it is shared"}),
        (lambda n, a: nn.Sequential(n, a, nn.BatchNorm2d(4), a), {"0": "1 (LIFNode) behind it is shared", "2": "1 "}),
        (lambda n, a: nn.Sequential(nn.Conv2d(4, 4, 1), a, n), {"2": "its output goes to the output of what holds"}),
        (lambda n, a: nn.Sequential(nn.GroupNorm(2, 4), a), {"1": "its input comes from GroupNorm"}),
        (lambda n, a: nn.Sequential(n, nn.Dropout(), a), {"0": "its output goes to Dropout"}),
        (lambda n, a: nn.Sequential(n, stdano.SuperNeuron(4)), {"0": "its output goes to 1 (SuperNeuron)"}),
        (lambda n, a: nn.ModuleDict({"norm": n, "a": a}), {"norm": "torch.fx cannot trace ModuleDict"}),
        (lambda n, a: a, {"": "forward does not run it"}),
    ],
    ids=["shared norm", "shared neuron", "last", "other norm", "dropout", "super", "no forward", "neuron"],
)
def test_reasons(build, reasons):
    report = stdano.fuse(build(nn.BatchNorm2d(4), LIFNode()))
    assert not report.fused
    left = dict(report.left)
    for name, reason in reasons.items():
        assert left[name].startswith(reason), left


def test_pairs_that_are_shared_as_pairs_are_fused():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), LIFNode(step_mode="s"))
    model = nn.Sequential(block, block).double()
    twin = copy.deepcopy(model)
    assert stdano.fuse(model).fused == [("0.1", "0.2")]
    xs = [torch.randn(B, 4, 5, 5).double() for _ in range(2)]
    assert_equal(everything(model, xs), everything(twin, xs))


def test_hooks_see_what_they_saw():
    model = nn.Sequential(nn.BatchNorm2d(4), LIFNode())
    handle = model[0].register_forward_hook(lambda module, args, out: None)
    assert "has hooks" in dict(stdano.fuse(model).left)["0"]
    handle.remove()
    assert stdano.fuse(model).fused == [("0", "1")]


def test_identity_and_flatten_modules_are_no_obstacle():
    layers = (nn.BatchNorm2d(4), nn.Identity(), nn.Flatten(0, 1), nn.Unflatten(0, (B, 4)), LIFNode(step_mode="s"))
    model = nn.Sequential(*layers)
    twin, x = copy.deepcopy(model), torch.randn(B, 4, 5, 5)
    assert stdano.fuse(model).fused == [("0", "4")]
    assert torch.equal(model(x), twin(x))


@pytest.mark.parametrize(
    "twin_of", (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))), ids=("deepcopy", "pickle")
)
def test_copies_are_fused_and_independent(twin_of):
    model, xs, count = make("residual")
    plain = copy.deepcopy(model)
    stdano.fuse(model)
    model(xs[0])
    twin = twin_of(model)
    stdano.reset_net(twin)
    before = copy.deepcopy(model.state_dict())
    assert len(stdano.fuse(twin).fused) == count
    twin.load_state_dict(plain.state_dict())
    assert_equal(everything(twin, xs), everything(plain, xs))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_checkpointing_moves_statistics_once(use_reentrant):
    model, xs, _ = make("residual")
    twin = copy.deepcopy(model)
    stdano.fuse(model)
    checkpointed = everything(model, xs[:1], lambda x: checkpoint(model, x, use_reentrant=use_reentrant))
    assert_equal(checkpointed, everything(twin, xs[:1]))
    assert model.norm1.num_batches_tracked == 1


@pytest.mark.parametrize("name", ("small", "residual", "flat"))
def test_compiles_without_graph_breaks(name):
    model, xs, _ = make(name, torch.float32)
    twin = copy.deepcopy(model)
    stdano.fuse(model), stdano.fuse(twin)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_equal(everything(model, xs, compiled), everything(twin, xs), torch.float32)


def test_convert_after_fuse():
    model, xs, _ = make("residual")
    twin = copy.deepcopy(model)
    stdano.fuse(model)
    stdano.convert(model, "02"), stdano.convert(twin, "02")
    assert type(model.neuron1) is LIFNode and len(stdano.fuse(model).fused) == 2
    assert_equal(everything(model, xs), everything(twin, xs))


def test_torchs_own_forward_serves_after_moving_dtype():
    model, xs, _ = make("residual", torch.float32)
    stdano.fuse(model)
    model.double()
    twin = stdano.unfuse(copy.deepcopy(model))
    assert_equal(everything(model, [x.double() for x in xs]), everything(twin, [x.double() for x in xs]))


def test_a_changed_model_raises():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), LIFNode(step_mode="s"))
    stdano.fuse(model)
    changed = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    with pytest.raises(RuntimeError, match=r"BatchNorm2d that was not called before it.*Call unfuse\(\) before"):
        changed(torch.randn(B, 4, 5, 5))
    replaced = copy.deepcopy(model)
    replaced[1] = nn.Identity()
    with pytest.raises(RuntimeError, match="the model has changed"):
        replaced(torch.randn(B, 4, 5, 5))
    skipped = copy.deepcopy(model)
    skipped[2] = nn.Identity()
    skipped(torch.randn(B, 4, 5, 5))
    with pytest.warns(RuntimeWarning, match="took it unnormalised"):
        skipped(torch.randn(B, 4, 5, 5))
    stdano.unfuse(skipped)
    assert torch.equal(skipped(torch.ones(B, 4, 5, 5)), stdano.unfuse(model)[:2](torch.ones(B, 4, 5, 5)))


def test_a_tensor_that_is_changed_between_norm_and_neuron_raises():
    class Model(Residual):
        def forward(self, x):
            normalised = merged(self.norm1, x)
            x += 1
            return self.neuron1(normalised)

    model = Model()
    stdano.fuse(model)
    with pytest.raises(RuntimeError, match="BatchNorm2d was changed in place before the neuron"):
        model(torch.randn(T, B, 4, 5, 5))


def test_other_shapes_than_reshaping_gives_raise():
    norm, neuron = nn.BatchNorm2d(4), LIFNode()
    stdano.fuse(nn.Sequential(norm, neuron))
    for change, message in (
        (lambda y: y.unflatten(0, (T, B)).transpose(2, 3), r"x must be \[T, B, C, ...\] with the 4 channels"),
        (lambda y: y.expand(T, *y.shape), "x must be the .* values that went into the BatchNorm2d"),
    ):
        with pytest.raises(ValueError, match=message):
            neuron(change(norm(torch.randn(T * B, 4, 5, 6))))
    with pytest.raises(ValueError, match=r"BatchNorm2d must have 4 channels in dimension 1 of its input"):
        norm(torch.randn(T * B, 3, 5, 6))
    with pytest.raises(ValueError, match=r"tau and v_threshold must be one for all channels"):
        neuron.tau = torch.ones(4)
        neuron(norm(torch.randn(T, 4, 5, 5)))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
        stdano.fuse("model")


class TestSpikingJelly:
    @pytest.fixture(autouse=True)
    def _modules(self):
        self.layer = pytest.importorskip("spikingjelly.activation_based.layer")
        self.neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        self.functional = pytest.importorskip("spikingjelly.activation_based.functional")

    def network(self, step_mode="m"):
        layer = self.layer
        torch.manual_seed(0)
        net = nn.Sequential(
            layer.Conv2d(2, 4, 3),
            layer.BatchNorm2d(4),
            self.neuron.LIFNode(),
            layer.Conv2d(4, 4, 3),
            layer.BatchNorm2d(4),
        )
        net.append(LLIFNode(tau=1.5))
        self.functional.set_step_mode(net, step_mode)
        return net.double()

    @pytest.mark.parametrize("step_mode", ("m", "s"))
    def test_its_norms_are_fused_and_its_neurons_named(self, step_mode):
        net = self.network(step_mode)
        assert stdano.fuse(net).left == [
            ("1", "2 (LIFNode) behind it is SpikingJelly's: call convert() first"),
            ("2", "LIFNode is SpikingJelly's: call convert() first"),
        ]
        stdano.convert(stdano.unfuse(net), {"LIF": "LIF"})
        twin = copy.deepcopy(net)
        assert stdano.fuse(net).fused == [("1", "2"), ("4", "5")]
        shape = (T, B, 2, 8, 8) if step_mode == "m" else (B, 2, 8, 8)
        xs = [torch.randn(shape).double() for _ in range(2)]
        assert_equal(everything(net, xs), everything(twin, xs))

    def test_one_of_its_models(self):
        model = pytest.importorskip("spikingjelly.activation_based.model.sew_resnet")
        torch.manual_seed(0)
        net = model.sew_resnet18(spiking_neuron=self.neuron.LIFNode, num_classes=5, cnf="ADD", detach_reset=True)
        self.functional.set_step_mode(net, "m")
        stdano.convert(net.double(), "LLIF")
        twin, x = copy.deepcopy(net), torch.randn(2, 2, 3, 32, 32).double()
        report = stdano.fuse(net)
        assert len(report.fused) == 20 and not report.left
        assert stdano.fuse(copy.deepcopy(twin), x).fused == report.fused
        with torch.no_grad():
            assert_equal([net(x), *net.buffers()], [twin(x), *twin.buffers()])
        stdano.reset_net(net.eval())
        folded = stdano.fuse_conv_bn(net)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        with torch.no_grad():
            assert_equal([folded(x)], [net(x)])

    def test_step_modes_must_agree(self):
        net = nn.Sequential(self.layer.BatchNorm2d(4, step_mode="m"), LIFNode(step_mode="s"))
        assert dict(stdano.fuse(net).left)["0"] == 'it is in step_mode "m", but 1 (LIFNode) behind it in "s"'

    def test_other_norms_are_left(self):
        net = nn.Sequential(self.layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4), LIFNode())
        assert stdano.fuse(net).left[0][0] == "1"
