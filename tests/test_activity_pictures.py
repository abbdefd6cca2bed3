"""Pictures of activity and cost: bars from 0 with their numbers, nothing that covers them, and nothing cut off."""

import itertools

import pytest
import torch

pytest.importorskip("matplotlib", reason="needs the extra [app]")
pytest.importorskip("lightning_fabric", reason="needs the extra [app]")

from stdano.analysis import compare
from stdano.models import create_model
from stdano.pictures.activity import costs, rates, rates_over_time
from stdano.pictures.style import WIDTH, save


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    settings = dict(T=3, size=8, in_channels=1, width=0.1, v_threshold=0.3)
    models = {f"neurons {digits}": create_model("vgg-small", digits, **settings) for digits in ("0000", "0120")}
    return compare(models, [torch.randn(2, 1, 8, 8)])


@pytest.fixture(scope="module")
def drawings(found):
    activities = {name: cost.activity for name, cost in found.items()}
    layer_rates = {name: activity.rates for name, activity in activities.items()}
    kinds = {name: activity.neurons for name, activity in activities.items()}
    return [rates(layer_rates, kinds), rates(layer_rates), costs(found), rates_over_time(activities)]


def test_nothing_is_covered_or_cut_off(drawings):
    for figure in drawings:
        assert figure.get_figwidth() == WIDTH
        figure.draw_without_rendering()
        texts = [text for axis in figure.axes for text in axis.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= 8
        for box in boxes:
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        for legend in figure.legends:
            assert not any(legend.get_window_extent().overlaps(box) for box in boxes)
        for one, other in itertools.pairwise(boxes):
            assert not one.overlaps(other)


def test_bars_begin_at_0_and_say_what_they_are(found, drawings, tmp_path):
    for figure in drawings[:3]:
        for axis in figure.axes:
            assert axis.get_xlim()[0] == 0 and all(bar.get_x() == 0 for bar in axis.patches)
    text = save(drawings[0], tmp_path / "rates.svg").decode()
    activity = found["neurons 0120"].activity
    for layer in activity.layers:
        assert f"{layer.rate:.3g} {layer.neuron}" in text
    assert "neurons 0000" in text and "neurons 0120" in text
    assert b"MAC" in save(drawings[2], tmp_path / "costs.svg")


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="models must be 1 to 4 networks, got 0"):
        rates({})
    with pytest.raises(ValueError, match="models must have equally many layers, got 1, 2"):
        rates({"a": {"1": 0.1}, "b": {"1": 0.1, "2": 0.2}})
