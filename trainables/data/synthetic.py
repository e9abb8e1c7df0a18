"""Synthetic G-banded chromosomes: descriptions (numbers) -> drawings.
Comes in: a description and an angle. Goes out: gray values with a true mask. Exists so that clusters and karyotypes are drawn by one
pen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

STEP = 0.35  # px between the points that a chromosome is drawn with: 8 in each pixel, 4 where a bend spreads them to twice the distance


@dataclass(frozen=True)
class Chromosome:
    """One chromosome as numbers; `draw` turns it into pixels."""

    length: float  # px along its axis
    width: float  # px
    centromere: float = 0.4  # where along the axis, 0 (tip of the p arm) .. 1
    waist: float = 0.75  # width at the centromere as a part of `width`
    bands: tuple[tuple[float, float], ...] = ((1.0, 1.0),)  # (end along the axis 0..1, stain 0..1), from the p arm's tip on
    bend: tuple[float, ...] = (0.0,)  # turn of the axis in radians over each of this many equal stretches
    intensity: float = 170.0  # gray value, 0..255, of stain 1
    cleft: float = 0.0  # 0..1: how much paler the line between the two chromatids is


@dataclass(frozen=True)
class Drawing:
    """A drawn chromosome, cropped to its mask."""

    values: np.ndarray  # float32 (h, w), 0 outside the mask; not yet blurred
    mask: np.ndarray  # bool (h, w)


def draw(chromosome: Chromosome, angle: float = 0.0) -> Drawing:
    """The chromosome with the middle of its axis at `angle` (radians, from the x axis towards y). ValueError on impossible numbers."""
    c = chromosome
    ends = [end for end, _ in c.bands]
    if c.length < 2 or c.width < 2:
        raise ValueError(f"length and width of a chromosome must be at least 2 px, got {c.length} and {c.width}")
    if not c.bands or ends != sorted(ends) or ends[-1] < 1 or ends[0] <= 0:
        raise ValueError(f"bands must be (end, stain) with rising ends, the last at 1, got {c.bands}")
    if not c.bend:
        raise ValueError("bend must have at least one stretch, got none; (0.0,) is straight")
    s = np.linspace(0, 1, max(3, math.ceil(c.length / STEP)))
    step = c.length / (len(s) - 1)
    turn = np.interp(s, np.linspace(0, 1, len(c.bend) + 1), np.concatenate([[0], np.cumsum(c.bend)]))
    heading = angle + gaussian_filter1d(turn, 0.06 * len(s), mode="nearest")
    heading += angle - heading[len(s) // 2]
    half = c.width / 2 * (1 - (1 - c.waist) * np.exp(-(((s - c.centromere) * c.length / (0.3 * c.width)) ** 2)))
    to_end = np.minimum(s, 1 - s) * c.length / (0.3 * c.width)  # ends are rounded over 0.3 of the width
    half *= np.sqrt(np.clip(1 - np.clip(1 - to_end, 0, 1) ** 2, 0.05, 1))
    stain = np.array([level for _, level in c.bands])[np.minimum(np.searchsorted(ends, s), len(ends) - 1)]
    stain = gaussian_filter1d(stain, 0.9 / step, mode="nearest")
    t = np.linspace(-1, 1, max(3, math.ceil(c.width / STEP)))
    across = (1 - 0.3 * t**4) * (1 - c.cleft * np.exp(-((t / 0.18) ** 2)))
    x = np.cumsum(np.cos(heading)) * step
    y = np.cumsum(np.sin(heading)) * step
    px = x[:, None] - np.sin(heading)[:, None] * half[:, None] * t
    py = y[:, None] + np.cos(heading)[:, None] * half[:, None] * t
    ix, iy = np.floor(px - px.min()).astype(np.int64).ravel(), np.floor(py - py.min()).astype(np.int64).ravel()
    height, width = int(iy.max()) + 1, int(ix.max()) + 1
    flat = iy * width + ix
    points = np.bincount(flat, minlength=height * width).reshape(height, width)
    total = np.bincount(flat, (c.intensity * stain[:, None] * across).ravel(), minlength=height * width).reshape(height, width)
    mask = points >= 3
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask = mask[crop]
    return Drawing(np.where(mask, total[crop] / np.maximum(points[crop], 1), 0).astype(np.float32), mask)


def random_chromosome(
    rng: np.random.Generator,
    length: float,
    width: float,
    intensity: float = 170.0,
    bend: float = 0.6,
    contrast: float = 0.5,
    gap: float = 0.0,
) -> Chromosome:
    """A chromosome with random bands. bend: scale, in radians, of its turns; contrast 0..1 of its bands; gap 0..1: chance of one band so
    pale that the two sides look like two chromosomes."""
    edges = [0.0]
    while edges[-1] < 1:
        edges.append(edges[-1] + rng.uniform(0.28, 0.75) * width / length)
    dark = rng.integers(2)
    levels = [1 - contrast * rng.uniform(0.6, 1) if (i + dark) % 2 else 1 - contrast * rng.uniform(0, 0.3) for i in range(len(edges) - 1)]
    if rng.random() < gap:
        levels[rng.integers(len(levels) // 3, max(len(levels) // 3 + 1, 2 * len(levels) // 3 + 1)) % len(levels)] = 0.25
    slack = min(1.0, (length / width - 1.5) / 4)  # a short one cannot bend much without folding
    turns = rng.normal(0, bend * max(0.0, slack), 3)
    if rng.random() < 0.5:
        turns = np.abs(turns) * rng.choice([-1, 1])  # an arc rather than an S
    return Chromosome(
        length=length,
        width=width,
        centromere=rng.uniform(0.15, 0.5),
        waist=rng.uniform(0.55, 0.9),
        bands=tuple((min(1.0, end), level) for end, level in zip(edges[1:], levels, strict=True)),
        bend=tuple(np.clip(turns, -1.6, 1.6).tolist()),
        intensity=intensity,
        cleft=rng.uniform(0, 0.35),
    )
