"""A neuron that is added as CONTRIBUTING says, in a copy of the project: a file and a line in the table. The tests over
all neurons then run on it."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).parent.parent
DECLARATION = '''"""A neuron that tires."""

from ..define import Constant, Neuron, State, spike, tanh


class Tired(Neuron):
    """Each spike tires the neuron, which then charges less::

    h[t] = charge(x, v) - kappa*tanh(b[t-1]);   b[t] = exp(-1/tau_tired)*b[t-1] + s[t]
    """

    v = State()
    b = State(0.0)
    tau_tired = Constant(4.0, above=0.0, doc="of the tiredness, in time steps")
    kappa = Constant(0.2, doc="how much tiredness weakens the charge")

    def step(n, x, v, b):
        h = n.charge(x, v) - n.kappa * tanh(b)
        s = spike(h - n.v_threshold)
        return s, n.reset(h, s, n.v_threshold), n.decay(n.tau_tired) * b + s
'''
# What holds of every neuron: kernels against the reference, gradients, constants, states, operators, NaN, modules.
FILES = ["kernels", "gradients", "constants", "not_a_number", "ops", "reference", "reset_net", "state", "nodes"]


@pytest.mark.slow
def test_the_suite_runs_on_an_added_neuron(tmp_path):
    for name in ("stdano_kernels", "stdano", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "gpu*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    neurons = tmp_path / "stdano_kernels" / "neurons"
    (neurons / "tired.py").write_text(DECLARATION)
    table = (neurons / "__init__.py").read_text()
    assert table.count("from .slif import SLIF\n") == table.count('    "slif": SLIF,\n') == 1
    table = table.replace("from .slif import SLIF\n", "from .slif import SLIF\nfrom .tired import Tired\n")
    (neurons / "__init__.py").write_text(
        table.replace('    "slif": SLIF,\n', '    "slif": SLIF,\n    "tired": Tired,\n')
    )

    files = [f"tests/test_{name}.py" for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "tired", *files]
    environment = {k: v for k, v in os.environ.items() if "XDIST" not in k} | {"PYTHONPATH": str(tmp_path)}
    done = run(command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40, done.stdout[-1000:]
