from __future__ import annotations
import numpy as np
from .source import DataSource, Samples


def load_digits(size=0):
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    s = load()
    v = (s.images * 15).astype(np.uint8)[:, None]
    if size:
        v = v.repeat(size // 8, 2).repeat(size // 8, 3)
    y = s.target.astype(np.int64)
    tr, te = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=0)
    t = v[tr] / 255
    return DataSource(
        "digits",
        Samples(v[tr], y[tr]),
        Samples(v[te], y[te]),
        tuple(map(str, range(10))),
        (float(t.mean()),),
        (float(t.std()),),
    )
