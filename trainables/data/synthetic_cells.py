"""H&E cells that are drawn, of CoNSeP's four types.
Comes in: a number and a seed. Goes out: a `Pack`. Exists so that everything runs without data that cannot be shared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from trainables.data.crops import SIDE
from trainables.data.labels import CONSEP_CLASSES
from trainables.data.pack import Masks, Pack, make_pack
from trainables.data.words import count
from trainables.parts.errors import RequestError

# Optical density of full stain in red, green, blue: haematoxylin and eosin (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
SHARES = (0.1, 0.25, 0.35, 0.3)  # of CONSEP_CLASSES; unbalanced, as real tissue is


@dataclass(frozen=True)
class _Look:
    """How nuclei of a type look; each value is (mean, standard deviation)."""

    length: tuple[float, float]  # longer side, pixels
    aspect: tuple[float, float]  # longer / shorter side
    stain: tuple[float, float]  # haematoxylin, 1 = full
    grain: float  # strength of the chromatin's clumps
    clump: float  # their size, pixels
    ragged: float  # how far the outline leaves the ellipse, 1 = its radius
    fibres: float  # strength of eosin streaks around it
    nucleoli: int


LOOKS = (
    _Look((20, 3.0), (1.2, 0.1), (1.1, 0.15), 0.8, 1.8, 0.25, 0.1, 0),
    _Look((12, 1.2), (1.1, 0.05), (1.2, 0.12), 0.15, 1.0, 0.03, 0.15, 0),
    _Look((25, 3.0), (1.35, 0.12), (0.6, 0.10), 0.45, 1.4, 0.05, 0.1, 2),
    _Look((28, 3.5), (2.8, 0.35), (0.85, 0.12), 0.3, 1.2, 0.05, 0.6, 0),
)


def _nucleus(
    chance: np.random.Generator, look: _Look, side: int, middle: tuple[float, float], angle: float, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin (side, side) of one nucleus, 0 outside, and its mask's soft edge 0..1."""
    y, x = np.mgrid[:side, :side] - np.array(middle)[:, None, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    aspect = max(1.0, chance.normal(*look.aspect))
    turn = np.arctan2(across * aspect, along)
    outline = 1 + look.ragged * sum(chance.normal(0, 0.5) * np.cos(k * turn + chance.uniform(0, 6.28)) for k in (2, 3, 5))
    radius = np.hypot(along, across * aspect) / (length / 2) / np.maximum(outline, 0.4)
    soft = 1 / (1 + np.exp((radius - 1) * length / 2))  # the edge is about two pixels wide at every size
    texture = gaussian_filter(chance.standard_normal((side, side)), look.clump)
    texture = 1 + look.grain * texture / max(float(texture.std()), 1e-6) * 0.5
    for _ in range(chance.integers(look.nucleoli + 1) if look.nucleoli else 0):
        spot = (chance.normal(0, length / 10), chance.normal(0, length / 10))
        texture = texture + 1.2 * np.exp(-((along - spot[0]) ** 2 + (across - spot[1]) ** 2) / 5)
    stain = max(0.2, chance.normal(*look.stain)) * np.clip(texture, 0.2, 3)
    return soft * stain, soft


def _draw(chance: np.random.Generator, kind: int, haematoxylin: float, eosin: float) -> tuple[np.ndarray, np.ndarray]:
    """A crop uint8 (32, 32, 3) of a cell of this type, window twice its size, and the window's mask (side, side) bool before it was
    scaled."""
    look = LOOKS[kind]
    length = max(7.0, chance.normal(*look.length))
    side, angle = 2 * round(length), chance.uniform(0, math.pi)
    middle = (side / 2 + chance.normal(0, 0.5), side / 2 + chance.normal(0, 0.5))
    stain, soft = _nucleus(chance, look, side, middle, angle, length)
    mask = soft > 0.5
    for _ in range(chance.integers(4)):  # parts of neighbours, most of them of the same type
        other = LOOKS[kind if chance.random() < 0.6 else chance.integers(len(LOOKS))]
        where, far = chance.uniform(0, 2 * math.pi), side * chance.uniform(0.45, 0.7)
        place = (side / 2 + far * math.sin(where), side / 2 + far * math.cos(where))
        beside, cover = _nucleus(chance, other, side, place, chance.uniform(0, math.pi), max(7.0, chance.normal(*other.length)))
        stain = stain + beside * (1 - soft)
        soft = np.maximum(soft, cover)
    y, x = np.mgrid[:side, :side]
    across = y * math.cos(angle) - x * math.sin(angle) + gaussian_filter(chance.standard_normal((side, side)), 5) * 8
    fibres = np.sin(across * chance.uniform(0.7, 1.2) + chance.uniform(0, 6.28))
    pink = (0.35 + 0.25 * look.fibres * fibres + 0.5 * gaussian_filter(chance.standard_normal((side, side)), 1.5)) * (1 - 0.6 * soft)
    density = np.stack([haematoxylin * (stain + 0.08), eosin * np.clip(pink, 0.02, 2)], -1) @ STAINS
    density = gaussian_filter(density, (0.7, 0.7, 0))
    image = 245 * np.exp(-density) + chance.normal(0, 3, (side, side, 3))
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small), mask


def cell_set(images: int = 400, seed: int = 0, tiles: int | None = None) -> Pack:
    """Drawn H&E cells of CoNSeP's four types as a `Pack`, the same for equal arguments; unbalanced (SHARES). They differ in size, shape,
    chromatin and surroundings; each tile has a stain of its own. RequestError where a type would have fewer than 6 cells."""
    numbers = [round(images * share) for share in SHARES]
    numbers[2] += images - sum(numbers)
    if min(numbers) < 6:
        raise RequestError(f"the built-in cells need at least 60 images, so that each type has 6, got {images}; set a number of 60 or more")
    tiles = tiles or min(30, max(6, images // 30))
    stain = np.random.default_rng([seed, 1 << 32])
    colours = np.clip(stain.normal((1.25, 0.9), (0.15, 0.12), (tiles, 2)), 0.5, 2)
    crops, masks, files, owners = [], [], [], []
    labels = np.repeat(np.arange(len(numbers)), numbers)
    for i, kind in enumerate(labels):
        tile = i % tiles
        image, mask = _draw(np.random.default_rng([seed, i]), int(kind), *colours[tile])
        crops.append(image)
        masks.append(mask)
        files.append(f"{CONSEP_CLASSES[kind]}/{i:06d}.png")
        owners.append(f"tile-{tile:03d}")
    areas = np.array([(mask.size, mask.sum()) for mask in masks], float)
    notes = [f"synthetic: seed {seed}, {count(tiles, 'tile')}"]
    return make_pack(np.stack(crops), labels, CONSEP_CLASSES, files, owners, areas, notes, masks=Masks.of(masks))
