"""Runs Python with a simulated CUDA device: python tests/gpusim -m pytest -m gpu tests/gpu"""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)

from gpusim.stand_ins import environment  # noqa: E402

if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment())
