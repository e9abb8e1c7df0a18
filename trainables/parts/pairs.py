"""How chromosomes are dealt to the steps of a training, seen, and at which rate: pairs of batches with one image of each class.
Comes in: the images of each class, a seed, a configuration of scl. Goes out: positions, the set of views, a rate. Exists so that another's
method beside SCL's sees the same images as often, and differs in itself alone."""

import math
from typing import Any

import torch
from torch import Tensor

from trainables.parts.randomness import generator
from trainables.parts.views import ViewSet

RATE_DECAY = 0.95  # an epoch, as the authors' code has it


def deck(seed: int, label: int, number: int, size: int) -> Tensor:
    """(size,) the order in which the images of a class are shown for the `number`-th time; its first is not the last of the deck before,
    so that no two images in a row are the same where there are three or more (of two, each deck is one pair)."""

    def shuffled(which: int) -> Tensor:
        return torch.randperm(size, generator=generator(seed, "deck", label, which))

    order = shuffled(number)
    if size > 2 and number and order[0] == shuffled(number - 1)[-1]:
        order[:2] = order[:2].flip(0)
    return order


def draw_pairs(members: list[Tensor], seed: int, first_step: int, steps: int, groups: int) -> Tensor:
    """(steps, groups, 2, C) positions of the images that steps first_step, ... show: two of each class in each group, in class order.
    members: for each class the positions of its images; a class of one shows it twice, under two views. Each class is dealt from its own
    decks, 2 x groups a step, so that every image is seen before any is seen again; where a draw stands follows from the step's number
    alone."""
    draws = torch.arange(first_step * groups * 2, (first_step + steps) * groups * 2)
    columns = []
    for label, positions in enumerate(members):
        size = len(positions)
        first, last = int(draws[0]) // size, int(draws[-1]) // size
        dealt = torch.cat([deck(seed, label, number, size) for number in range(first, last + 1)])
        columns.append(positions[dealt[draws - first * size]])
    return torch.stack(columns, 1).view(steps, groups, 2, len(members))


def views_of(config: Any) -> ViewSet:
    """Flips, rotation, brightness and contrast."""
    return ViewSet(
        horizontal_flip=config.flip if config.flips == "both" else 0.0, vertical_flip=config.flip, rotation=config.rotation,
        brightness=config.brightness, contrast=config.contrast, jitter=1.0 if config.contrast or config.brightness else 0.0,
    )  # fmt: skip


def rate_of(config: Any, epoch: float, epochs: int) -> float:
    """Constant, a cosine to 0 at the last of `epochs`, or 0.95 times that of the epoch before."""
    if config.schedule == "constant":
        return float(config.learning_rate)
    if config.schedule == "decay":
        return float(config.learning_rate * RATE_DECAY ** math.floor(epoch))
    return float(config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0))))
