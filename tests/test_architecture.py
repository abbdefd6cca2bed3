"""What a search has found, on disk: architecture.json, alphas.csv, alphas.png."""

import csv
import json
import math

import pytest
import torch
from torch import nn

from stdano import SuperNeuron
from stdano.nodes.neurons import CANDIDATES as NEURONS

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("matplotlib", reason="needs the extra [app]")

from stdano.pictures import heatmap
from stdano.pictures.style import save
from stdano.search import Architecture
from stdano.search.architecture import chosen, entropies, entropy, softmax
from stdano.search.report import write_alphas
from stdano.settings import SearchSettings, from_json, replace

SETTINGS = replace(SearchSettings(), model="vgg-small", T=6, data="digits", candidates=("SLIF", "LIF"))
ALPHAS = [[0.5, -0.25], [-1.0, 0.125], [0.0, -3.0]]
CANDIDATES = list(NEURONS)


def network(candidates=("SLIF", "LIF"), values=ALPHAS):
    net = nn.Sequential(*(SuperNeuron(2, candidates) for _ in values))
    for neuron, value in zip(net, values, strict=True):
        neuron.alpha.data = torch.tensor(value)
    return net


def found(**values):
    given = {"fingerprint": "f" * 64, "device_hours": 0.5, "epochs": 3, "test_accuracy": 0.75, **values}
    return Architecture.from_model(network(), settings=SETTINGS, **given)


@pytest.fixture
def saved(tmp_path):
    """The path of a saved architecture, and a function that changes its JSON."""
    path = tmp_path / "architecture.json"
    found().save(path)

    def change(**values):
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return path

    return path, change


def test_what_is_read_from_a_model():
    architecture = found()
    assert architecture.neurons == "202" == chosen(network())  # candidates in another order than digits
    assert architecture.layers == ["0", "1", "2"] and architecture.candidates == ["SLIF", "LIF"]
    assert architecture.alphas == ALPHAS
    assert (architecture.model, architecture.T, architecture.dataset) == ("vgg-small", 6, "digits")
    assert from_json(json.dumps(architecture.settings), SearchSettings) == SETTINGS
    for alpha, share in zip(ALPHAS, architecture.weights, strict=True):
        assert share == pytest.approx(torch.tensor(alpha).double().softmax(0).tolist(), rel=1e-12)
    assert architecture.entropies == entropies(network())


def test_entropy():
    assert entropy([2.0, 2.0, 2.0]) == pytest.approx(math.log(3))
    assert entropy([0.0]) == 0
    assert entropy([1000.0, -1000.0]) == 0
    alpha = torch.randn(3).double()
    expected = torch.distributions.Categorical(logits=alpha).entropy()
    assert entropy(alpha.tolist()) == pytest.approx(float(expected), rel=1e-12)
    assert sum(softmax([3.0, 800.0, -800.0])) == 1


def test_the_first_of_equal_alphas_is_chosen():
    net = network(("SLIF", "LIF"), [[0.5, 0.5]])
    values = {"settings": SETTINGS, "fingerprint": "", "device_hours": 0.0, "epochs": 1, "test_accuracy": 0.0}
    assert Architecture.from_model(net, **values).neurons == "2"


def test_saved_and_loaded_is_the_same(saved):
    path, _ = saved
    assert Architecture.load(path) == found()
    assert [file.name for file in path.parent.iterdir()] == ["architecture.json"]
    assert json.loads(path.read_text())["alphas"] == ALPHAS


def test_a_failed_write_leaves_the_old_file(saved):
    path, _ = saved
    before = path.read_bytes()
    with pytest.raises(TypeError):
        found(epochs={1}).save(path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"neurons": "20"}, r"entry for each of 3 layers, got 2 neurons, 3 alphas and 0 losses"),
        ({"neurons": "200"}, r"neurons must have the candidate with the largest of alphas, SLIF for 2, got LIF"),
        ({"neurons": "2x2"}, r"entry for each of 3 layers, got 1 neurons, 3 alphas"),
        ({"neurons": "SLIF, x, SLIF"}, r"the candidate with the largest of alphas, LIF for 1, got x"),
        ({"layers": ["a"]}, r"entry for each of 1 layers, got 3 neurons, 3 alphas and 0 losses"),
        ({"alphas": [[1.0, 0.0, 0.0]] * 3}, r"alphas must be 2 finite numbers a layer, got \[1.0, 0.0, 0.0\] for 0"),
        ({"alphas": [[1.0, math.nan]] * 3}, r"alphas must be 2 finite numbers a layer"),
        ({"alphas": [[1.0, "x"]] * 3}, r"alphas must be list\[list\[float\]\], got"),
        ({"candidates": ["LIF", "LIF"]}, r"candidates must be one or more different neurons, got \['LIF', 'LIF'\]"),
        ({"candidates": ["ALIF", "LIF"]}, r"the candidate with the largest of alphas, ALIF for 0, got SLIF"),
        ({"candidates": "LIF"}, r"candidates must be list\[str\], got 'LIF'"),
        ({"T": 2.5}, r"T must be int, got 2.5"),
        ({"epochs": True}, r"epochs must be int, got True"),
        ({"settings": []}, r"settings must be dict\[str, Any\], got \[\]"),
        ({"digits": "202"}, r"an object with neurons, layers, .*; got neurons, .*digits"),
    ],
    ids=str,
)
def test_damaged_values(saved, values, message):
    path = saved[1](**values)
    with pytest.raises(ValueError, match=rf"^{path}.*{message}"):
        Architecture.load(path)


@pytest.mark.parametrize("content", [b"", b'{"neurons": "2', b"[1]", b"\xff\xfe", None], ids=str)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "architecture.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} must hold the result of a search"):
        Architecture.load(path)


def test_models_that_were_not_searched():
    given = {"settings": SETTINGS, "fingerprint": "", "device_hours": 0.0, "epochs": 1, "test_accuracy": 0.0}
    with pytest.raises(ValueError, match=r"model must have super neurons, all of the same candidates, got \[\]"):
        Architecture.from_model(nn.Linear(1, 1), **given)
    with pytest.raises(ValueError, match=r"got \[\('LIF',\), \('SLIF',\)\]"):
        Architecture.from_model(nn.Sequential(SuperNeuron(1, ["SLIF"]), SuperNeuron(1, ["LIF"])), **given)


def history(epochs, layers, candidates):
    entries = []
    for epoch in range(1, epochs + 1):
        values = torch.randn(layers, len(candidates)) * epoch / 10
        digits = "".join(str(CANDIDATES.index(candidates[k])) for k in values.argmax(1))
        entries.append({"epoch": epoch, "alphas": values.tolist(), "neurons": digits})
    return entries


def test_alphas_csv(tmp_path):
    entries, candidates = history(2, 3, ["SLIF", "LIF"]), ["SLIF", "LIF"]
    path = tmp_path / "alphas.csv"
    write_alphas(path, ["a", "b", "c"], candidates, entries[:1])
    write_alphas(path, ["a", "b", "c"], candidates, entries)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == (
        ["epoch", "layer", "name", "alpha_SLIF", "alpha_LIF", "weight_SLIF", "weight_LIF", "entropy", "choice"]
    )
    assert [(row["epoch"], row["layer"], row["name"]) for row in rows] == (
        [(str(e), str(n), name) for e in (1, 2) for n, name in ((1, "a"), (2, "b"), (3, "c"))]
    )
    for row, alpha in zip(rows, entries[0]["alphas"] + entries[1]["alphas"], strict=True):
        assert [float(row["alpha_SLIF"]), float(row["alpha_LIF"])] == alpha
        assert [float(row["weight_SLIF"]), float(row["weight_LIF"])] == softmax(alpha)
        assert float(row["entropy"]) == entropy(alpha)
        assert row["choice"] == ("SLIF" if alpha[0] > alpha[1] else "LIF")


@pytest.mark.parametrize(("layers", "candidates", "epochs"), [(17, CANDIDATES, 2), (1, ["SLIF", "LIF"], 1)])
def test_alphas_png(tmp_path, layers, candidates, epochs):
    save(heatmap.search(history(epochs, layers, candidates), candidates), tmp_path / "alphas.png")
    data = (tmp_path / "alphas.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert width > 600 and height > 600


def test_alphas_png_of_zeros(tmp_path):
    entry = {"epoch": 1, "alphas": [[0.0, 0.0, 0.0]], "neurons": "0"}
    assert b"0.00" in save(heatmap.search([entry], CANDIDATES), tmp_path / "alphas.svg")
