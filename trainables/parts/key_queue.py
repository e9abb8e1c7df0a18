"""The queue of encoded keys (MoCo, He et al. 2020), with their labels.
Comes in: keys of a step. Goes out: the last K keys, in buffers, so that a checkpoint holds them.
Exists because a contrastive loss wants more negatives than a batch has."""

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """First in, first out. Buffers: `keys` (K, D) float32, 0 in an empty slot; `labels` (K,) int64, -1 in an empty slot;
    `pointer` () int64, the slot that the next key takes, which holds the oldest one once the queue is full; if owned, `owners` (K,) int64,
    which image a key is of, -1 where it is of none.

    `enqueue` writes into the buffers, which stay where they are, as a step that is recorded and played again needs it. A loss taken on
    `keys` goes backward before (torch refuses it afterwards). ValueError if size or dim is below 1."""

    keys: Tensor
    labels: Tensor
    pointer: Tensor
    owners: Tensor

    def __init__(self, size: int, dim: int, owned: bool = False) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue needs at least 1 slot and 1 dimension, got size {size}, dim {dim}")
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        if owned:
            self.register_buffer("owners", torch.full((size,), -1, dtype=torch.int64))

    @property
    def present(self) -> Tensor:
        """(K,) bool: the filled slots."""
        return self.labels >= 0

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor | None = None, owners: Tensor | None = None) -> None:
        """keys: (N, D); labels: (N,) int64, at least 0; None = unlabelled, stored as 0; owners: (N,) int64, of an owned queue. N need not
        divide K; of more than K keys the last K stay. No gradient is kept. ValueError if shapes do not fit."""
        size, dim = self.keys.shape
        if keys.ndim != 2 or keys.shape[1] != dim or (labels is not None and labels.shape != keys.shape[:1]):
            given = f"keys {tuple(keys.shape)}" + ("" if labels is None else f", labels {tuple(labels.shape)}")
            raise ValueError(f"the queue takes keys (N, {dim}) and labels (N,), got {given}")
        if labels is None:
            labels = torch.zeros(len(keys), dtype=torch.int64, device=self.labels.device)
        kept = min(len(keys), size)
        slots = (self.pointer + torch.arange(len(keys) - kept, len(keys), device=self.keys.device)) % size
        last = slice(len(keys) - kept, None)
        self.keys.index_copy_(0, slots, keys[last].to(self.keys))
        self.labels.index_copy_(0, slots, labels[last].to(self.labels))
        if owners is not None:
            self.owners.index_copy_(0, slots, owners[last].to(self.owners))
        self.pointer.add_(len(keys)).remainder_(size)
