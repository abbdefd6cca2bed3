"""What an installed stdano must do: run from anywhere but the source tree, with no compiler to be found.

    python -I try_install.py

Prints where stdano lies and what it runs on; any failure is an error.
"""

import warnings
from pathlib import Path

import torch

import stdano
import stdano_kernels

folder = Path(stdano.__file__).parent.parent
assert not (folder / "setup.py").exists(), f"this is the source tree: {folder}"
warnings.simplefilter("error")  # the reference backend would warn
status = stdano_kernels.backends()["cpu"]
assert status.available, status.reason
for node in (stdano.LIFNode(), stdano.LLIFNode(), stdano.SLIFNode()):
    x = torch.linspace(-1, 3, 400).reshape(4, 100).requires_grad_()
    spikes = node(x)
    spikes.sum().backward()
    assert 0 < spikes.mean() < 1 and x.grad.abs().sum() > 0, node
    expected = type(node)(backend="reference")(x)
    assert torch.equal(spikes, expected), node
print(f"{folder}: torch {torch.__version__}, {status.details['instruction set']}")
