"""How many ``with`` blocks of a kind are open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Contexts(threading.local):
    """In each thread by itself, as torch's hooks for saved tensors are."""

    open: int = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
