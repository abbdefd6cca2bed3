"""The code in docs/own_neuron.md runs as it stands there."""

import importlib.util
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "own_neuron.md"


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


def test_every_block_of_the_page_on_own_neurons_runs(tmp_path, monkeypatch):
    file = tmp_path / "own_neuron.py"  # a declaration's errors name lines of a file
    file.write_text(script(PAGE.read_text()))
    spec = importlib.util.spec_from_file_location("own_neuron", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_neuron", module)
    spec.loader.exec_module(module)
    assert module.report
