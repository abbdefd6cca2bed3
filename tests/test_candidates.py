"""Neurons by name, with settings of their own and of one's own; strings of a network that are made of such names."""

import math

import pytest
import torch
from torch import nn

import stdano
from stdano import ALIFNode, LIFNode, LLIFNode, SuperNeuron
from stdano.models import create_model, layer_neurons, neuron_string
from stdano.nodes.candidates import candidate, check_candidates, joined, name_of, names_in, settings_of
from stdano_kernels import Constant, Neuron, Option, State
from stdano_kernels.define import spike
from stdano_kernels.neurons import ALIF, LIF, LLIF

ME = __name__


class Damped(Neuron):
    """Its ``beta`` and ``gamma`` are other things than SLIF's and LLIF's."""

    v = State()
    beta = Constant(0.75, doc="what is left of the input")
    gamma = Constant(0.5, above=0.0, doc="time constant of nothing else")
    kind = Option("plain", "double", doc="how the input counts")

    def step(n, x, v):
        h = n.charge(n.beta * x * (2.0 if n.kind == "double" else 1.0), v)
        s = spike(h - n.gamma * n.v_threshold)
        return s, n.reset(h, s, n.v_threshold)


class Outer:
    class Inner(Damped):
        pass


def layers_of(net):
    return [(type(m).__name__, m.tau) for m in net.modules() if isinstance(m, stdano.BaseNode)]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("LIF", "LIF"),
        ("LIF()", "LIF"),
        (" LIF ( tau = 4 ) ", "LIF(tau=4.0)"),
        ("LIF(tau=4,)", "LIF(tau=4.0)"),
        ("LIF(v_reset=None, tau=inf)", "LIF(tau=inf, v_reset=None)"),
        ("LIF(alpha=2, surrogate='atan', decay_input=True)", "LIF(decay_input=True, surrogate='atan', alpha=2.0)"),
        ("SLIF(tau=3, decay='linear', v_reset=-1)", "SLIF(tau=3.0, v_reset=-1.0, decay='linear')"),
        ("stdano:LIFNode(tau=3)", "LIF(tau=3.0)"),
        ("stdano_kernels.neurons:ALIF", "ALIF"),
        (f"{ME}:Damped", f"{ME}:Damped"),
        (f"{ME}:Damped(kind='double', beta=1)", f"{ME}:Damped(beta=1.0, kind='double')"),
        (f"{ME} : Damped".replace(" ", ""), f"{ME}:Damped"),
        (f"{ME}:Outer.Inner(gamma=2)", f"{ME}:Outer.Inner(gamma=2.0)"),
        (ALIFNode, "ALIF"),
        (LIF(tau=torch.tensor(4.0).item()), "LIF(tau=4.0)"),
        (Damped, f"{ME}:Damped"),
        (stdano.node(Damped), f"{ME}:Damped"),
    ],
    ids=str,
)
def test_names_and_what_they_name(given, name):
    neuron = candidate(given)
    assert name_of(neuron) == name
    again = candidate(name)
    assert again == neuron and hash(again) == hash(neuron) and name_of(again) == name


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("lif", ValueError, "neurons must be one of LIF, .*PACKAGE.MODULE:CLASS.*got 'lif'"),
        ("", ValueError, "neurons must be one of LIF"),
        ("LIF(4)", ValueError, r"got 'LIF\(4\)': settings are given by their names"),
        ("LIF(tau=", ValueError, "neurons must be one of LIF"),
        ("LIF(tau=x)", ValueError, r"got 'LIF\(tau=x\)'"),
        ("LIF(tau=2*2)", ValueError, r"got 'LIF\(tau=2\*2\)'"),
        ("LIF(tau=-1)", ValueError, "tau must be a finite number above 0, got -1"),
        ("LIF(decay='linear', tau=0.5)", ValueError, "tau must be a finite number above 1, got 0.5"),
        ("LIF(tau=True)", TypeError, "tau must be a number, got True"),
        ("LIF(decay_input=1)", TypeError, "decay_input must be True or False, got 1"),
        ("LIF(decay='cubic')", ValueError, "decay must be one of .*'cubic'"),
        ("LIF(surrogate='tri')", ValueError, "surrogate must be one of .*'tri'"),
        ("LIF(gamma=1)", TypeError, r"LIF\(\) got an unexpected argument 'gamma'; allowed are tau, "),
        ("LIF(spike='soft')", TypeError, r"LIF\(\) got an unexpected argument 'spike'"),
        ("LIF(backend='cpu')", TypeError, r"LIF\(\) got an unexpected argument 'backend'"),
        ("IF(tau=3)", TypeError, r"IF\(\) got an unexpected argument 'tau'"),
        (f"{ME}:Damped(gamma=0)", ValueError, "gamma must be a finite number above 0, got 0"),
        ("nothing.of.this:Name", ValueError, "'nothing.of.this:Name' cannot be imported: ModuleNotFoundError"),
        (f"{ME}:Gone", ValueError, f"'{ME}:Gone' cannot be imported: AttributeError: .*Gone"),
        ("torch.nn:Linear", TypeError, "neurons must be .*, or a declared neuron; torch.nn:Linear is <class"),
        ("os:path", TypeError, "or a declared neuron; os:path is <module"),
        (nn.Linear, TypeError, "or a declared neuron"),
        ("LIF(tau=foo)", ValueError, r"got 'LIF\(tau=foo\)': foo is no plain value"),
        ("LIF(tau=1, tau=2)", ValueError, "a setting is given twice"),
        ("LIF(tau=1)(tau=2)", ValueError, "settings are given by their names"),
        ("LIF(**{'tau': 1})", ValueError, "settings are given by their names"),
        ("stdano:ParametricLIFNode", TypeError, "or a declared neuron"),
        ("stdano_kernels:Neuron", TypeError, "with a step"),
        (3, TypeError, "or a declared neuron; 3 is 3"),
    ],
    ids=str,
)
def test_wrong_names_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        candidate(given)


def test_a_module_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_neurons.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match="'broken_neurons:A' cannot be imported: ZeroDivisionError"):
        candidate("broken_neurons:A")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), r"named must be a list of one to 8 neurons, got \(\)"),
        ("LIF", "named must be a list of one to 8 neurons, got 'LIF'"),
        ([f"LIF(tau={k + 1})" for k in range(9)], "named must be a list of one to 8 neurons"),
        (["LIF(tau=4)", "LIF(tau=4.0)"], r"named must be different ones, got LIF\(tau=4.0\), LIF\(tau=4.0\)"),
        (["LIF(tau=4)", LIF(tau=4)], "named must be different ones"),
        (["LIF", LIFNode], "named must be different ones"),
        (["LIF", "IntegerLIF"], "named must have spikes of 0 or 1 in a super neuron; those of IntegerLIF"),
    ],
    ids=str,
)
def test_wrong_candidates_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        check_candidates("named", given)


def test_eight_candidates():
    given = ["LIF", LIF(tau=4), "LIF(tau=8)", LLIF, "SLIF", ALIFNode, Damped, f"{ME}:Damped(beta=1)"]
    assert list(map(name_of, check_candidates("named", given))) == (
        ["LIF", "LIF(tau=4.0)", "LIF(tau=8.0)", "LLIF", "SLIF", "ALIF", f"{ME}:Damped", f"{ME}:Damped(beta=1.0)"]
    )


def test_declarations_with_settings():
    one = LIF(tau=4, v_reset=None)
    assert one.own == {"tau": 4.0, "v_reset": None} and repr(one) == "LIF(tau=4.0, v_reset=None)"
    assert one == LIF(v_reset=None, tau=4.0) and len({one, LIF(v_reset=None, tau=4.0)}) == 1
    assert one != LIF(tau=4) and LIF() != LLIF() and LIF(tau=4) != 4
    assert one != LIF(tau=4, v_reset=0) and eval(repr(one)) == one
    one.own["tau"] = 1.0
    assert one.own["tau"] == 4.0  # a copy
    assert settings_of(LIF(surrogate="atan", tau=3)) == {"tau": 3.0, "surrogate_function": "atan"}
    with pytest.raises(TypeError, match="positional"):
        LIF(4.0)
    with pytest.raises(TypeError, match="tau"):
        LIF(tau=torch.ones(3))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0120", ["LIF", "LLIF", "SLIF", "LIF"]),
        ("LIF", ["LIF"]),
        ("LIF,ALIF", ["LIF", "ALIF"]),
        (" LIF(tau=4.0, v_reset=None) , ALIF", ["LIF(tau=4.0, v_reset=None)", "ALIF"]),
        ("a.b:C(k=0.5, l='x'), LIF, LIF", ["a.b:C(k=0.5, l='x')", "LIF", "LIF"]),
    ],
)
def test_names_in_strings(text, names):
    assert names_in(text) == names == names_in(joined(names))


def test_digits_where_all_are_of_the_paper():
    assert joined(["SLIF", "LIF"]) == "20"
    assert joined(["SLIF", "LIF(tau=4.0)"]) == "SLIF, LIF(tau=4.0)" and joined(["ALIF"]) == "ALIF"


@pytest.mark.parametrize(
    ("given", "string", "names"),
    [
        ("0120", "0120", ["LIF", "LLIF", "SLIF", "LIF"]),
        ("LIF, LLIF,SLIF,LIF", "0120", ["LIF", "LLIF", "SLIF", "LIF"]),
        ("ALIF", "ALIF, ALIF, ALIF, ALIF", ["ALIF"] * 4),
        ("LIF(tau=4)", ", ".join(["LIF(tau=4.0)"] * 4), ["LIF(tau=4.0)"] * 4),
        ("LIF(tau=4, v_reset=None), LIF, LLIF, ALIF", None, ["LIF(tau=4.0, v_reset=None)", "LIF", "LLIF", "ALIF"]),
        (f"{ME}:Damped", ", ".join([f"{ME}:Damped"] * 4), [f"{ME}:Damped"] * 4),
    ],
)
def test_strings_of_a_network(given, string, names):
    assert neuron_string("vgg-small", given) == (string or ", ".join(names))
    assert layer_neurons("vgg-small", given) == names
    assert neuron_string("vgg-small", neuron_string("vgg-small", given)) == neuron_string("vgg-small", given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("012", "neurons must be 4 digits for vgg-small .*got 3 digits, '012'"),
        ("0", "neurons must be 4 digits for vgg-small .*got '0'"),
        ("0125", "neurons must be 4 digits for vgg-small .*got '0125'"),
        ("LIF, ALIF", "neurons must be 4 digits for vgg-small .*got 2 neurons, 'LIF, ALIF'"),
        ("LIF, ALIF, LIF, ", "neurons must be 4 digits for vgg-small .*got 4 neurons"),
        ("LIF, ALIF, LIF, nonsense", "neurons must be 4 digits for vgg-small .*got 4 neurons"),
        ("LIF, ALIF, LIF, LIF(kappa=1)", r"LIF\(\) got an unexpected argument 'kappa'"),
        ("LIF, ALIF, LIF, nothing.here:X", "'nothing.here:X' cannot be imported"),
    ],
)
def test_wrong_strings_are_refused(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        neuron_string("vgg-small", given)


def test_networks_from_strings():
    small = {"width": 0.1, "T": 2, "tau": 1.5}
    net = create_model("vgg-small", f"LIF(tau=4), {ME}:Damped(kind='double', tau=3), LLIF, ALIF", **small)
    assert layers_of(net) == [("LIFNode", 4.0), ("DampedNode", 3.0), ("LLIFNode", 1.5), ("ALIFNode", 1.5)]
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2, 10)
    for neurons in ("LIF(tau=4)", LIF(tau=4)):
        assert layers_of(create_model("vgg-small", neurons, **small)) == [("LIFNode", 4.0)] * 4


def test_constants_of_ones_own_do_not_follow_those_of_the_paper():
    """The settings of a network have SLIF's beta and LLIF's gamma."""
    settings = {"width": 0.1, "T": 2, "beta": 0.3, "gamma": 0.2}
    net = create_model("vgg-small", f"{ME}:Damped, {ME}:Damped(beta=0.9), SLIF, LLIF", **settings)
    first, second, slif, llif = (m for m in net.modules() if isinstance(m, stdano.BaseNode))
    assert (first.beta, first.gamma, second.beta, second.gamma) == (0.75, 0.5, 0.9, 0.5)
    assert (slif.beta, llif.gamma) == (0.3, 0.2)
    node = SuperNeuron(3, (Damped, "SLIF", "LLIF"), beta=0.3, gamma=0.2)
    damped, slif, llif = map(node.node, node.neurons)
    assert (damped.beta, damped.gamma, slif.beta, llif.gamma) == (0.75, 0.5, 0.3, 0.2)


def network():
    return nn.Sequential(LIFNode(tau=1.5, alpha=2.0), nn.Linear(4, 4), LLIFNode(gamma=0.3))


def test_convert():
    assert layers_of(stdano.convert(network(), "LIF(tau=4)")) == [("LIFNode", 4.0)] * 2
    assert layers_of(stdano.convert(network(), LIF(tau=4))) == [("LIFNode", 4.0)] * 2
    net = stdano.convert(network(), f"{ME}:Damped(tau=5), ALIF")
    assert layers_of(net) == [("DampedNode", 5.0), ("ALIFNode", 2.0)]
    assert net[0].alpha == 2.0 and net[0].gamma == 0.5  # inherited; not LLIF's
    assert layers_of(stdano.convert(network(), "LIF(tau=4), LIF", tau=3)) == [("LIFNode", 4.0), ("LIFNode", 3.0)]
    assert layers_of(stdano.convert(network(), {"LLIF": "LIF(tau=inf)"})) == [("LIFNode", 1.5), ("LIFNode", math.inf)]
    for wrong, message in (("LIF, LIF, LIF", "one for each of 2 spiking layers, 0, 2; got 3"), ("lif", "got 'lif'")):
        with pytest.raises(ValueError, match=message):
            stdano.convert(network(), wrong)


def test_to_super():
    pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
    from stdano.search import to_super

    given = ("LIF", "LIF(tau=4)", ALIF(tau=3), f"{ME}:Damped")
    net = to_super(network(), torch.randn(2, 3, 4), given)
    names = ("LIF", "LIF(tau=4.0)", "ALIF(tau=3.0)", f"{ME}:Damped")
    assert net[0].neurons == net[2].neurons == names
    assert [net[0].node(name).tau for name in names] == [1.5, 4.0, 3.0, 1.5]
    assert [net[0].node(name).alpha for name in names] == [2.0] * 4
    with pytest.raises(ValueError, match="spikes of 0 or 1"):
        to_super(network(), torch.randn(2, 3, 4), ("LIF", "IntegerLIF"))
