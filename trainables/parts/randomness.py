"""Seeds derived from words and numbers, and generators made from them.
Comes in: (seed, stage, epoch, ...). Goes out: CPU generators. Exists so that every random number of a run is a function of its
configuration and seed alone: a run that resumes at an epoch draws exactly what the undisturbed one would have drawn."""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) from the parts; equal parts give equal seeds on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))
