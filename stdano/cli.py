"""``python -m stdano.cli``, which is what torchrun is given; see :mod:`stdano.app.cli`."""

import sys

from .app.cli import main

if __name__ == "__main__":
    sys.exit(main())
