from __future__ import annotations
from dataclasses import dataclass
import numpy as np, torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    values: Tensor
    labels: Tensor
    total: int

    def split(self, parts: int) -> list["Batch"]:
        if parts == 1:
            return [self]
        dim = self.values.dim() - 4
        n = -(-len(self.labels) // parts)
        return [Batch(v, l, self.total) for v, l in zip(self.values.split(n, dim), self.labels.split(n))]


class Batches:
    def __init__(
        self,
        source,
        part,
        *,
        batch_size,
        indices=None,
        augment=None,
        seed=0,
        shuffle=False,
        rank=0,
        world=1,
        workers=0,
        pin_memory=False,
    ):
        self.s = getattr(source, part)
        self.source = source
        self.bs = batch_size
        self.indices = np.arange(len(self.s)) if indices is None else indices
        self.augment = augment
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world

    def __len__(self):
        return -(-len(self.indices) // self.bs)

    def epoch(self, epoch, start=0):
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.indices) if self.shuffle else self.indices
        for k in range(start, len(self)):
            idx = order[k * self.bs : (k + 1) * self.bs]
            total = len(idx)
            g = torch.Generator().manual_seed((self.seed * 1000003 + epoch * 10007 + k) % 2**62)
            v = torch.from_numpy(np.array(self.s.values[idx])).float() / 255
            if self.augment and self.augment.crop:
                c = self.augment.crop
                H = v.shape[-1]
                p = torch.nn.functional.pad(v, [c] * 4)
                d = torch.randint(0, 2 * c + 1, (total, 2), generator=g)
                v = torch.stack([p[i, ..., d[i, 0] : d[i, 0] + H, d[i, 1] : d[i, 1] + H] for i in range(total)])
            mean = torch.tensor(self.source.mean).view(-1, 1, 1)
            std = torch.tensor(self.source.std).view(-1, 1, 1)
            v = ((v - mean) / std)[self.rank :: self.world]
            if self.source.temporal:
                v = v.transpose(0, 1).contiguous()
            yield Batch(v, torch.from_numpy(self.s.labels[idx][self.rank :: self.world]), total)
