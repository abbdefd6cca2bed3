"""The code in docs/ runs as it stands there."""

import importlib.util
import sys
from pathlib import Path

import stdano

DOCS = Path(__file__).parent.parent / "docs"


def script(page):
    """The page's python blocks as one script, each line where it is on the page."""
    lines, inside = [], False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def run(name, tmp_path, monkeypatch):
    file = tmp_path / f"{name}.py"  # a declaration's errors name lines of a file
    file.write_text(script((DOCS / f"{name}.md").read_text()))
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_every_block_of_the_page_on_own_neurons_runs(tmp_path, monkeypatch):
    assert run("own_neuron", tmp_path, monkeypatch).report


def test_every_block_of_the_page_on_searches_runs(tmp_path, monkeypatch):
    page = run("search", tmp_path, monkeypatch)
    assert page.mixed.neurons[1:] == ("LIF(tau=4.0)", "LLIF", "search:MyNeuron(kappa=0.2)")
    assert [type(layer).__name__ for layer in page.net.modules() if isinstance(layer, stdano.BaseNode)] == [
        "LIFNode"
    ] * 4


def test_every_block_of_the_page_on_analysis_runs(tmp_path, monkeypatch):
    page = run("analysis", tmp_path, monkeypatch)
    assert page.found and page.decay_range  # both ends of the page
