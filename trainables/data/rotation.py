"""Images that show the same thing turned by any angle: a picture of the object in polar coordinates about its middle.
Comes in: gray images on black. Goes out: (RINGS, ANGLES) pictures, and pairs whose pictures agree at some turn. Exists because an augmented
copy on two sides of a split makes a score untrue, and a copy turned by 25 degrees agrees with nothing upright."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

RINGS, ANGLES = 24, 96
REACH = 2.4  # root mean square radii of the object that the rings cover
LARGEST = 128  # pixels: a larger object is reduced to this side
SMALLEST = 16  # pixels of an image's side, below which the circle within it tells nothing
SMOOTH, PARTS = 1.0, 64  # sigma in pixels, at most this part of the longer side: what resampling changes tells no object from another
FINER = 4  # of the turns compared: 0.9 degrees apart
ORDERS = 12  # of the angular spectrum that candidates are found by
BLOCK = 512  # images at once
KEPT = 40  # of the angular spectrum that is compared
CANDIDATES = 6  # of each image, which are compared turn by turn
# How much two must agree follows from how alike a set's images are anyway. Measured on 160 to 500 of six sets: where one pair in 200
# drawn by chance differs by d (0.12 of clusters, 0.06 of G bands, 0.02 of Q bands and drawn karyotypes), the most alike of different
# objects differ by more than 0.07 d ** 0.7, and 95 in 100 copies by less.
CHANCE, DRAWN = 0.005, 4000
NEAREST, POWER = 0.07, 0.7
LEAST, MOST = 0.98, 0.9965
FEW, USUAL = 60, 0.05  # images below which chance says little, and what is taken instead


def polar(box: np.ndarray) -> np.ndarray:
    """uint8 (h, w) on black -> float16 (RINGS, ANGLES) about the object's middle, at a scale set by its spread; blind to place, scale and,
    but for a shift along the angles, to turns. Gray values are replaced by their ranks among the object's, so that neither brightness nor
    contrast nor gamma changes the picture, its middle or its spread."""
    if not box.any():
        return np.zeros((RINGS, ANGLES), np.float16)
    values = _ranks(box)
    values = gaussian_filter(np.pad(values, 2), min(SMOOTH, max(values.shape) / PARTS), truncate=2)
    total = float(values.sum())
    y, x = np.arange(values.shape[0]), np.arange(values.shape[1])
    down, across = values.sum(1), values.sum(0)
    cy, cx = float(down @ y) / total, float(across @ x) / total
    spread = float(np.sqrt((down @ (y - cy) ** 2 + across @ (x - cx) ** 2) / total)) or 1.0
    return _about(values, cy, cx, REACH * spread)


def polar_frame(gray: np.ndarray, ground: bool = True) -> np.ndarray:
    """The same of a whole image about its own middle, within the circle that no turn about it cuts off: a picture that was turned in its
    frame has lost its object's ends, and with them the object's middle and spread. All 0 where the image is too small.
    ground False: of any gray values, none of which is ground."""
    if min(gray.shape) < SMALLEST or not gray.any():
        return np.zeros((RINGS, ANGLES), np.float16)
    values = _ranks(gray) if ground else _reduced(gray.astype(np.float32))
    values = gaussian_filter(values, min(SMOOTH, max(values.shape) / PARTS), truncate=2)
    return _about(values, (values.shape[0] - 1) / 2, (values.shape[1] - 1) / 2, min(values.shape) / 2 - 1.5)


def _ranks(gray: np.ndarray) -> np.ndarray:
    """float32: of each pixel of the object the part of the object that is darker, 0 elsewhere; reduced to LARGEST."""
    numbers = np.bincount(gray.ravel(), minlength=256).astype(np.float64)
    numbers[0] = 0
    rank = ((np.cumsum(numbers) - numbers / 2) / numbers.sum()).astype(np.float32)
    rank[0] = 0
    return _reduced(rank[gray])


def _reduced(values: np.ndarray) -> np.ndarray:
    return zoom(values, LARGEST / max(values.shape), order=1) if max(values.shape) > LARGEST else values


def _about(values: np.ndarray, cy: float, cx: float, reach: float) -> np.ndarray:
    """(h, w) -> float16 (RINGS, ANGLES) up to `reach` pixels from a point, with mean 0 and length 1."""
    radii = (np.arange(RINGS) + 0.5) / RINGS * reach
    turns = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    rows = cy + radii[:, None] * np.sin(turns)
    columns = cx + radii[:, None] * np.cos(turns)
    found = map_coordinates(values, [rows, columns], order=1, mode="constant") * np.sqrt(radii)[:, None]
    found -= found.mean()
    length = float(np.linalg.norm(found))
    return (found / length if length > 1e-3 else np.zeros_like(found)).astype(np.float16)


def turns_of(pictures: np.ndarray) -> np.ndarray:
    """(N, RINGS, ANGLES) -> complex64 (N, RINGS, KEPT): what `agreement` compares."""
    return np.asarray(np.fft.rfft(pictures.astype(np.float32), axis=2)[:, :, :KEPT], np.complex64)


def spectra(pictures: np.ndarray) -> np.ndarray:
    """(N, RINGS, ANGLES) -> float32 (N, RINGS * ORDERS) of length 1, equal for all turns and mirrorings."""
    rows = np.empty((len(pictures), RINGS * ORDERS), np.float32)
    for start in range(0, len(pictures), BLOCK):
        some = turns_of(pictures[start : start + BLOCK])
        rows[start : start + BLOCK] = np.abs(some[:, :, :ORDERS]).reshape(len(some), -1)
    rows -= rows.mean(0) if len(rows) > 50 else 0.0  # what all objects of a kind have in common tells none from another
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(P, RINGS, ANGLES) twice -> (P,) the best correlation over all turns, mirrored or not."""
    values = np.empty(len(one), np.float32)
    for start in range(0, len(one), BLOCK):
        first, second = turns_of(one[start : start + BLOCK]), turns_of(other[start : start + BLOCK])
        both = (np.einsum("prk,prk->pk", first, turned) for turned in (second.conj(), second))
        values[start : start + BLOCK] = np.maximum(*(FINER * np.fft.irfft(s, FINER * ANGLES, axis=1).max(1) for s in both))
    return values


def candidates(pictures: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """(P, 2) pairs worth comparing: of each picture the CANDIDATES with the nearest spectra, among its own kind (i < j) or among
    `others`."""
    both = spectra(pictures if others is None else np.concatenate([pictures, others]))
    rows, columns = (both, both) if others is None else (both[: len(pictures)], both[len(pictures) :])
    take = min(CANDIDATES + (others is None), len(columns))
    block = max(8, min(256, 4_000_000 // len(columns)))
    pairs = []
    for start in range(0, len(rows), block):
        near = rows[start : start + block] @ columns.T
        chosen = np.argpartition(-near, take - 1, axis=1)[:, :take]
        pairs.append(np.stack([np.repeat(np.arange(len(near)) + start, take), chosen.ravel()], 1))
    found = np.concatenate(pairs)
    if others is None:
        found = np.unique(np.sort(found[found[:, 0] != found[:, 1]], axis=1), axis=0)
    return found


def least_of(pictures: np.ndarray, others: np.ndarray) -> float:
    """How much two must agree to be copies, from pairs drawn by chance: see CHANCE. Copies are few among these, two in N of a set in which
    each image has some."""
    if min(len(pictures), len(others)) < FEW:
        return 1 - NEAREST * USUAL**POWER
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, len(pictures), DRAWN), draw.integers(0, len(others), DRAWN)
    known = a != b if others is pictures else np.full(DRAWN, True)
    apart = 1 - agreement(pictures[a[known]], others[b[known]])
    chance = float(np.quantile(apart, min(0.5, CHANCE + 2 / len(others))))
    return float(np.clip(1 - NEAREST * max(chance, 0.0) ** POWER, LEAST, MOST))


def turned_pairs(pictures: np.ndarray, others: np.ndarray | None = None) -> list[tuple[int, int, float]]:
    """(i, j, correlation) of pictures that agree at some turn; see `candidates` and `least_of`."""
    if not len(pictures) or (others is not None and not len(others)):
        return []
    second = pictures if others is None else others
    pairs = candidates(pictures, others)
    least = least_of(pictures, second)
    parts = np.array_split(pairs, 1 + len(pairs) // BLOCK)  # the pictures of all pairs would be several sets
    values = np.concatenate([agreement(pictures[some[:, 0]], second[some[:, 1]]) for some in parts])
    return [(int(i), int(j), min(1.0, float(v))) for (i, j), v in zip(pairs, values, strict=True) if v >= least]


def agree(one: np.ndarray, other: np.ndarray) -> float:
    """The best correlation of two pictures (RINGS, ANGLES) over all turns."""
    return float(agreement(one[None], other[None])[0])
