# pyright: strict
"""What programs of users look like to type checkers, as mypy and pyright see them; nothing here is run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import stdano
import stdano_kernels
from stdano.models import create_model
from stdano.search import Architecture, search
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import Evaluation, Result, evaluate, train
from stdano_kernels import (
    SURROGATES,
    BackendStatus,
    CheckReport,
    Constant,
    DeclarationError,
    LIFState,
    LLIFState,
    Neuron,
    Option,
    SLIFState,
    State,
    bn_neuron,
    check,
    function,
    lif,
    llif,
    slif,
    super_neuron,
)
from stdano_kernels.define import spike, where
from stdano_kernels.neurons import LIF


class Adaptive(Neuron):
    """Each spike raises the threshold."""

    v = State()
    b = State(0.0)
    kappa = Constant(0.1, above=0.0, doc="rise of the threshold")
    kind = Option("plain", "leaky", doc="of the threshold")

    def step(self, x: Any, v: Any, b: Any) -> tuple[Any, ...]:
        h = self.charge(x, v)
        theta = self.v_threshold + self.kappa * b
        s = spike(h - theta)
        return s, self.reset(h, s, theta), self.decay(self.tau) * b + where(s, 1.0, 0.0)


def functions(x: Tensor, wanted: bool) -> None:
    assert_type(lif(x), Tensor)
    assert_type(lif(x, tau=torch.tensor(2.0), v_reset=None, surrogate=SURROGATES[0], backend="cpu"), Tensor)
    spikes, state = lif(x, return_state=True)
    assert_type(state, LIFState)
    assert_type(state.v, Tensor)
    assert_type(lif(spikes, state=state, return_v_seq=True), tuple[Tensor, Tensor])
    assert_type(lif(x, return_sequences=("v",)), tuple[Tensor, tuple[Tensor, ...]])
    assert_type(lif(x, return_state=wanted), Any)
    assert_type(llif(x, gamma=0.2, squash="hardtanh", return_state=True), tuple[Tensor, LLIFState])
    assert_type(slif(x, return_state=True, return_sequences=["p"]), tuple[Tensor, SLIFState, tuple[Tensor, ...]])
    lif(x, gamma=0.2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    zeros = torch.zeros(3)
    assert_type(bn_neuron("lif", x, zeros, zeros, training=True), Any)
    assert_type(super_neuron(x, zeros, None, None, neurons=["lif", LIF, LIF(tau=4.0)], training=True), Tensor)


def own_neuron(x: Tensor) -> None:
    adaptive = function(Adaptive)
    assert_type(adaptive(x, kappa=0.2), Tensor)
    spikes, state = adaptive(x, return_state=True)
    print(adaptive(spikes, state=state).shape, state.b, adaptive.neuron, adaptive.__name__)
    try:
        report = check(Adaptive)
    except DeclarationError as error:
        print(error)
    else:
        assert_type(report, CheckReport)
        assert report
    print(Adaptive.kappa.default, Adaptive.states["v"].rest, Adaptive.kind.choices)


def layers(x: Tensor) -> None:
    for node in (
        stdano.LIFNode(tau=2.0, v_reset=None),
        stdano.LLIFNode(gamma=nn.Parameter(torch.tensor(0.1))),
        stdano.SLIFNode(step_mode="s"),
        stdano.IFNode(),
        stdano.ALIFNode(),
        stdano.CubaLIFNode(),
        stdano.IntegerLIFNode(),
        stdano.ParametricLIFNode(init_tau=3.0),
        stdano.node(Adaptive)(kappa=0.2),
    ):
        base: stdano.BaseNode = node
        assert_type(base(x), Tensor)
        assert_type(base(x, ("v",)), tuple[Tensor, tuple[Tensor, ...]])
        assert_type(base.v_seq, Tensor | None)
        base.detach()
        base.reset()
    assert_type(stdano.LIFNode()(x), Tensor)
    assert_type(stdano.BatchNormNeuron(8, Adaptive, kappa=0.2)(x), Tensor)
    mixture = stdano.SuperNeuron(8, ["LIF", Adaptive, Adaptive(kappa=0.2)])
    assert_type(mixture(x), Tensor)
    assert_type(mixture.weights(), Tensor)
    assert_type(mixture.choice(), str)
    assert_type(mixture.node(), stdano.BaseNode)
    stdano.SynchronisedBatchNorm2d(8)


def models(x: Tensor) -> None:
    net = create_model("vgg-small", Adaptive, T=4, tau=1.5)
    assert_type(net, nn.Module)
    assert_type(stdano.convert(net, stdano.LIFNode), nn.Module)
    assert_type(stdano.fuse(net), stdano.FusionReport)
    stdano.unfuse(net)
    stdano.fuse_conv_bn(net)
    stdano.pack_spikes(net)
    with stdano.stateless(net), stdano.packed_spikes(), stdano.two_level_checkpoints():
        net(x)
    stdano.reset_net(net)
    stdano.detach_net(net)
    stdano.keep_freed_memory()
    for name, status in stdano_kernels.backends().items():
        assert_type(status, BackendStatus)
        print(name, status.available, status.reason, status.details, stdano.__version__)


def bridges(x: Tensor, folder: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 8), stdano.LIFNode())
    assert_type(stdano.from_snntorch(net, step_mode="s"), nn.Module)
    assert_type(stdano.from_sinabs(net, max_spikes=4), nn.Module)
    assert_type(stdano.to_spikingjelly(stdano.from_spikingjelly(net)), nn.Module)
    assert_type(stdano.from_nir(stdano.to_nir(net, x), surrogate_function="atan"), nn.Module)
    stdano.to_onnx(net, x, folder / "net.onnx", states=True)


def runs(folder: Path) -> None:
    settings = replace(SearchSettings(), data="digits", epochs=2)
    found = search(settings, folder / "search")
    assert_type(found, Architecture)
    training = replace(TrainSettings(), neurons=found.neurons)
    assert_type(training, TrainSettings)
    assert_type(train(training, folder / "train"), Result)
    assert_type(evaluate(folder / "train"), Evaluation)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.neuron = stdano.LIFNode()
        self.packed: stdano.PackedSpikes | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.linear(x))
