"""Tiles and crops that show a part of one field, told by their pixels.
Comes in: gray images that fill their frames. Goes out: pairs. Exists because tiles that were cut with half a side between them share
half their pixels with each neighbour, are no copies of each other, and stand on both sides of a split all the same.

Landmarks are the strongest spots and dips of an image. Those of two images that look alike are held against each other: of images of one
field they lie at one shift, and nearly all that lie where both look have their like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from trainables.data.words import count, few

SIDE = 128  # pixels that the longer side is reduced to by a whole number at least
FINE, COARSE = 1.5, 4.0  # pixels: Gaussians whose difference shows spots of the size of nuclei and of grain
APART, REACH = 7, 8  # pixels: window in which a landmark is the strongest; how far around it is looked at
MOST = 32  # landmarks of an image
GRID = np.arange(-7, 9, 2)  # where around a landmark it is looked at: 8 x 8 values
BITS, TABLES = 22, 8  # signs that make a key, and keys: of landmarks as alike as ALIKE nearly all have one in common
CROWD = 16  # landmarks of one key, of which more are held against the next alone, as in tiles of which dozens show a place
ALIKE = 0.93  # correlation of two landmarks; of the pixels of one field saved as JPEG 0.97 and more
BLOCK = 65536  # pairs of landmarks at once
SHIFT = 2.0  # pixels by which one shift may differ
LEAST, PART = 4, 0.5  # landmarks at one shift, and their part of those that lie where both images look


NO_MARKS = np.zeros((0, 68), np.float16)


def landmarks_of(gray: np.ndarray) -> np.ndarray:
    """(h, w) -> float16 (n, 4 + 64): row, column, height, width of the reduced image, and what it shows there, of mean 0 and length 1."""
    step = -(-max(gray.shape) // SIDE)
    height, width = (side // step for side in gray.shape)
    small = gray[: height * step, : width * step].reshape(height, step, width, step).mean((1, 3), dtype=np.float32)
    if min(height, width) < 2 * REACH + APART:
        return NO_MARKS
    fine = gaussian_filter(small, FINE, truncate=3)
    strength = np.abs(fine - gaussian_filter(small, COARSE, truncate=2))
    inside = strength[REACH - 1 : -REACH, REACH - 1 : -REACH]
    rows, columns = np.nonzero((inside == maximum_filter(inside, APART)) & (inside > 1))
    order = np.argsort(-inside[rows, columns], kind="stable")[:MOST]
    rows, columns = rows[order] + REACH - 1, columns[order] + REACH - 1
    seen = fine[(rows[:, None] + GRID)[:, :, None], (columns[:, None] + GRID)[:, None, :]].reshape(len(rows), 64)
    seen = seen - seen.mean(1, keepdims=True)
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-6)
    size = np.broadcast_to([height, width], (len(rows), 2))
    return np.hstack([rows[:, None], columns[:, None], size, seen]).astype(np.float16)


def overlapping(marks: Sequence[np.ndarray], others: Sequence[np.ndarray] | None = None) -> list[tuple[int, int]]:
    """(i, j) of images that show a part of one field: i < j of one set, or of two sets. marks: the landmarks of each, see
    `landmarks_of`."""
    both = [*marks, *(others or ())]
    ends = np.cumsum([len(own) for own in both])
    if not len(ends) or not ends[-1]:
        return []
    owner = np.repeat(np.arange(len(both)), np.diff(ends, prepend=0))
    rows = np.concatenate(both)
    seen, places = rows[:, 4:].astype(np.float32), rows[:, :4].astype(np.float32)
    pairs = _alike(seen)
    a, b = owner[pairs[:, 0]], owner[pairs[:, 1]]
    pairs = pairs[a != b if others is None else (a < len(marks)) & (b >= len(marks))]
    like = [(seen[some[:, 0]] * seen[some[:, 1]]).sum(1) >= ALIKE for some in np.array_split(pairs, 1 + len(pairs) // BLOCK)]
    pairs = pairs[np.concatenate(like)]
    codes = owner[pairs[:, 0]] * len(both) + owner[pairs[:, 1]]
    order = np.argsort(codes, kind="stable")
    found, starts, numbers = np.unique(codes[order], return_index=True, return_counts=True)
    result = []
    for code, start, number in zip(found.tolist(), starts.tolist(), numbers.tolist(), strict=True):
        i, j = divmod(code, len(both))
        some = pairs[order[start : start + number]]
        if number >= LEAST and _of_one_field(places, some, *(places[ends[k] - len(both[k]) : ends[k]] for k in (i, j))):
            result.append((i, j - (0 if others is None else len(marks))))
    return result


def shared_fields(
    marks: Sequence[np.ndarray], patients: Sequence[str] | None, names: Sequence[str]
) -> tuple[list[tuple[int, int]], list[str]]:
    """(pairs of images that show a part of one field, which a split keeps on one side; what to say of them). marks, patients, names: of
    each."""
    pairs = overlapping(marks)
    if not pairs:
        return [], []
    some = few([f"{names[i]} ~ {names[j]}" for i, j in pairs], 3)
    words = f"{count(len({i for pair in pairs for i in pair}))} of {len(marks):,} show a part of what another one shows ({some})"
    across = sum(patients is not None and patients[i] != patients[j] for i, j in pairs)
    held = f", with all images of two patients in {count(across, 'pair')}" if across else ""
    return pairs, [f"{words}, as tiles and crops do that were cut from one field and overlap: a split keeps these together{held}"]


def _alike(seen: np.ndarray) -> np.ndarray:
    """(P, 2) landmarks i < j that have one of their keys in common: the signs of what they show along directions drawn by chance."""
    draw = np.random.default_rng(0)
    found: list[np.ndarray] = []
    for _ in range(TABLES):
        keys = (seen @ draw.normal(size=(64, BITS)).astype(np.float32) > 0) @ (1 << np.arange(BITS))
        order = np.argsort(keys, kind="stable")  # of one key by their number
        ends = np.append(np.flatnonzero(np.diff(keys[order])) + 1, len(keys))
        left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(keys)) - 1  # how many of its key come behind each
        crowded = np.repeat(np.diff(ends, prepend=0) > CROWD, np.diff(ends, prepend=0))
        for step in range(1, CROWD):
            here = np.flatnonzero((left >= step) & (~crowded | (step == 1)))
            found.append(order[here] * len(keys) + order[here + step])
    codes = np.concatenate(found)
    codes = np.unique(codes)
    return np.stack([codes // len(seen), codes % len(seen)], 1)


def _of_one_field(places: np.ndarray, pairs: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether enough pairs of landmarks of two images lie at one shift, of those that lie where both images look."""
    shifts = places[pairs[:, 1], :2] - places[pairs[:, 0], :2]
    near = (np.abs(shifts[:, None] - shifts) <= SHIFT).all(2)
    best = near[near.sum(1).argmax()]
    agreed = min(len(np.unique(pairs[best, k])) for k in (0, 1))
    if agreed < LEAST:
        return False
    shift = np.median(shifts[best], axis=0)
    return agreed >= PART * min(_where_both_look(one, shift, other), _where_both_look(other, -shift, one))


def _where_both_look(places: np.ndarray, shift: np.ndarray, other: np.ndarray) -> int:
    """How many landmarks of an image lie within another one that looks at them from elsewhere."""
    moved = places[:, :2] + shift
    return int(((moved >= REACH) & (moved < other[0, 2:] - REACH)).all(1).sum())
