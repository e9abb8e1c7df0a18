"""A cell on its tile, and the 32 x 32 colour crop around it.
Comes in: a tile's pixels and a cell's box. Goes out: crops. Exists so that every cell is cut out once and in one way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.ndimage import label

from trainables.data.open import Decoded

SIDE = 32  # pixels of a crop (Nakhli et al., section 4.3)


@dataclass(frozen=True)
class Cell:
    """A cell on its tile: rows top <= y < bottom, columns left <= x < right."""

    name: str  # as its file calls it
    kind: int  # as its file calls it; an index of NUCLS_CLASSES there
    top: int
    left: int
    bottom: int
    right: int
    area: float  # pixels of the mask; of the box where there is none
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)  # bool, of the box; None: the label file has boxes alone


@dataclass
class Tile:
    """What a tile gave: crops (n, 32, 32, 3), its cells, and what was wrong with it."""

    name: str
    crops: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE, 3), np.uint8))
    cells: list[Cell] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # "cell 12: why", or why the whole tile is left out
    said: Decoded | None = None  # what was done to its image, without the pixels
    untyped: int = 0  # cells without a type, or too small to show one, left out
    clipped: int = 0  # boxes that reached beyond the tile
    regions: int = 0  # outlines around many cells, left out
    others: Counter[str] = field(default_factory=Counter)  # objects of kinds that are no cells, left out
    types: dict[str, int] = field(default_factory=dict)  # how its file calls them, where names are free: cells
    found: bool = False  # whether its file holds what a program found as cells, so that a person's outlines are regions


def window(cell: Cell, factor: int) -> tuple[int, int, int]:
    """(top, left, side) of the square around a cell whose side is `factor` times the longer side of its box. It may reach beyond the
    tile."""
    side = factor * max(cell.bottom - cell.top, cell.right - cell.left)
    return (cell.top + cell.bottom - side) // 2, (cell.left + cell.right - side) // 2, side


def dark_part(part: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) around one nucleus -> bool (h, w): the largest connected part that is darker than Otsu's threshold, which makes the
    variance between both sides largest. All of it where the gray is flat."""
    gray = np.asarray(Image.fromarray(np.ascontiguousarray(part)).convert("L"))
    counts = np.bincount(gray.ravel(), minlength=256).astype(float)
    below, sums = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    means = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    between = below * above * (means[0] - means[1]) ** 2
    if not between.max() > 0:
        return np.ones(gray.shape, bool)
    parts, number = label(gray <= int(between.argmax()))
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
    return parts == 1 + int(sizes.argmax())


def mirrored(first: int, length: int, size: int) -> np.ndarray:
    """(length,) indices first, first + 1, ... into an axis of `size`, those beyond its ends reflected without repeating the edge."""
    period = max(2 * (size - 1), 1)
    place = np.arange(first, first + length) % period
    return np.minimum(place, period - place) if size > 1 else np.zeros(length, np.int64)


def crop(image: np.ndarray, top: int, left: int, side: int, size: int = SIDE) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size, size, 3): the window, reflected where it leaves the image, scaled bilinearly; when it becomes
    smaller, averaged over the area that a pixel covers."""
    height, width = image.shape[:2]
    rows, columns = mirrored(top, side, height), mirrored(left, side, width)
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        part = image[top : top + side, left : left + side]
    else:
        part = image[rows[:, None], columns]
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((size, size), Image.Resampling.BILINEAR))
