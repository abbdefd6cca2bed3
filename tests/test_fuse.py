"""fuse() and unfuse(): what is fused, what is left and why, and that nothing changes but the speed."""

import copy
import io
import pickle

import pytest
import torch
from fuse_common import B, DataDependent, Residual, T, assert_equal, by_model, everything, make
from torch import nn
from torch.utils.checkpoint import checkpoint

import stdano
from stdano import BatchNormNeuron, LIFNode, SuperNeuron
from stdano.models import create_model, merged


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
    report = stdano.fuse(create_model("vgg-small", "LLIF"))
    layers = [f"blocks.{place}.activation" for place in ("0.0", "1.0", "1.1", "2.0")]
    assert report.fused == [(f"{layer}.norm", f"{layer}.neuron") for layer in layers]
    assert str(report).splitlines() == ["4 fused", *(f"  {layer}.norm -> {layer}.neuron" for layer in layers)]


@pytest.mark.parametrize("by_run", (False, True), ids=("traced", "run"))
def test_report_of_views(by_run):
    model, xs, _ = make("views")
    report = stdano.fuse(model, xs[0] if by_run else None)
    assert report.fused == [("a_norm", "a"), ("c_norm", "c")]
    left = dict(report.left)
    assert left["stem_norm"].startswith("its output goes to relu, not to a neuron of stdano")
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


class Earlier(pickle.Unpickler):
    """Looks for modules where they lay before there was stdano.nodes."""

    def find_class(self, module, name):
        return super().find_class(module.replace("stdano.nodes.", "stdano."), name)


def test_networks_that_were_pickled_before_modules_moved():
    net = nn.Sequential(BatchNormNeuron(4, sync=True), SuperNeuron(4))
    twin = Earlier(io.BytesIO(pickle.dumps(net))).load()
    x = torch.randn(T, B, 4, 5, 5)
    assert str(twin) == str(net) and torch.equal(twin(x), net(x))
    assert twin[0][1]._link.norm is twin[0][0]


@pytest.mark.parametrize("use_reentrant", (False, True))
def test_checkpointing_moves_statistics_once(use_reentrant):
    model, xs, _ = make("residual")
    twin = copy.deepcopy(model)
    stdano.fuse(model)
    checkpointed = everything(model, xs[:1], lambda x: checkpoint(model, x, use_reentrant=use_reentrant))
    assert_equal(checkpointed, everything(twin, xs[:1]))
    assert model.norm1.num_batches_tracked == 1


@pytest.mark.parametrize("name", ("residual", "flat"))
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
    with pytest.raises(ValueError, match=r"tau must be a number or a tensor of shape \[\], \[5\]"):
        neuron.tau = torch.ones(4)
        neuron(norm(torch.randn(T, 4, 5, 5)))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
        stdano.fuse("model")
