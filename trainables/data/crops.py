"""A cell on its tile, and the 32 x 32 colour crop around it.
Comes in: a tile's pixels and a cell's box. Goes out: crops. Exists so that every cell is cut out once and in one way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects, label
from scipy.spatial import cKDTree

from trainables.data.open import Decoded

SIDE = 32  # pixels of a crop (Nakhli et al., section 4.3)
SMALLEST = 10  # pixels: a nucleus that a tile's border cuts down to less shows nothing
SPECK = 0.1  # of a cell's largest part: smaller ones are slips of the pen
MOST_PARTS = 2  # of a cell, which another one may lie across
MOST_OF_TILE, WIDE = 0.25, 4096  # part of a tile, and pixels: what takes more than both is no single cell
ON_EACH_OTHER = 0.6  # intersection of two boxes by their union: of nuclei that touch or overlap less
NUMBERED = 0.2  # of a set's numbers that are no single cell, above which its masks are taken not to number cells at all


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
    joined: int = 0  # numbers of a mask that are no single cell, left out
    doubled: int = 0  # objects that lie on another one of their type, left out
    outside: int = 0  # objects that lie beyond the tile, left out
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


def not_one(mask: np.ndarray, tile: float) -> str:
    """Why pixels (h, w) bool that a mask gives one number, on a tile of so many pixels, are no single cell; '' where they may be one."""
    if np.count_nonzero(mask) > max(WIDE, MOST_OF_TILE * tile):
        return f"its pixels cover {np.count_nonzero(mask) / tile:.0%} of the tile"
    parts, number = label(mask, np.ones((3, 3)))
    if number < 2:
        return ""
    sizes = np.bincount(parts.ravel())[1:]
    largest = int(sizes.argmax())
    ends = [[(side.start, side.stop) for side in place] for place in find_objects(parts)]
    some = [i for i in range(number) if sizes[i] >= max(SMALLEST, SPECK * sizes[largest])]
    reach = max(last - first for first, last in ends[largest])
    gaps = [max(max(a - d, c - b) for (a, b), (c, d) in zip(ends[i], ends[largest], strict=True)) for i in some]
    return f"its pixels lie in {len(some)} parts" if len(some) > MOST_PARTS or max(gaps, default=0) > reach else ""


def joined_fault(tiles: Sequence[Tile]) -> str:
    """The fault of a set whose masks do not number single cells; ''."""
    joined, cells = sum(tile.joined for tile in tiles), sum(len(tile.cells) for tile in tiles)
    if joined <= NUMBERED * (joined + cells):
        return ""
    return (
        f"a mask must give each cell a number of its own, {joined:,} of {joined + cells:,} numbers stand for several cells: these masks "
        "say where cells of a type are and not which pixels are one cell's; number the cells with a program that separates touching nuclei"
    )


def without_doubled(tile: Tile) -> list[int]:
    """Takes the later of two cells that lie on each other out of a tile, as where a detection was run twice; where they are of two types,
    that is a fault. Which are left."""
    boxes = np.array([(c.top, c.left, c.bottom, c.right) for c in tile.cells], float).reshape(-1, 4)
    if not len(boxes):
        return []
    sides = boxes[:, 2:] - boxes[:, :2]
    near = cKDTree((boxes[:, :2] + boxes[:, 2:]) / 2).query_pairs(float(np.median(sides)) / 2, output_type="ndarray")
    a, b = boxes[near[:, 0]], boxes[near[:, 1]]
    both = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(1)
    gone = set[int]()
    for i, j in sorted(near[both >= ON_EACH_OTHER * (sides.prod(1)[near].sum(1) - both)].tolist()):
        if i in gone or j in gone:
            continue
        gone.add(j)
        one, other = tile.cells[i], tile.cells[j]
        if one.kind == other.kind:
            tile.doubled += 1
        else:
            tile.faults.append(f"object {other.name}: it lies on object {one.name}, which is of another type; remove one of them")
    kept = [i for i in range(len(tile.cells)) if i not in gone]
    tile.cells = [tile.cells[i] for i in kept]
    return kept


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
