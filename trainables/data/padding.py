"""What surrounds a picture and is none of it: a frame, padding to a square, the corners that a turn leaves.
Comes in: gray values. Goes out: the picture with its own ground in their place. Exists because the black corners of a picture that was
turned on white are no object, and a copy with them agrees with nothing."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, label

WITHIN = 0.35  # of an image: what padding encloses is at least so much, or it is an object
OPPOSITE = 0.1  # of an image: of the picture's own ground there is at least so much
FLAT_RIM = 0.35  # of what lies just inside of the padding is the picture's own ground: an object may reach its edge
FULL = 0.97  # of the rectangle around the picture, turned as its edges are, is picture: a disc fills 0.79 of one, a rod 0.95
BLURRED = 2  # pixels at the padding's edge, by resampling
RINGS, BLOCK = 3, 8  # times the tolerance, as far as JPEG's blocks of pixels reach: what it makes of an edge from black to white
SAVED_AGAIN = 0.02  # of the padding is near its level and not at it, after JPEG


def unpadded(gray: np.ndarray, tolerance: int) -> np.ndarray | None:
    """float32 (h, w) with padding replaced by the ground of the picture inside; None where there is none. Padding is flat, white or black,
    fills at least two corners, leaves a rectangle, and what lies at the edge of this is flat too, and the other extreme."""
    if min(gray.shape) <= 4 * BLURRED:
        return None
    corners = gray[[0, 0, -1, -1], [0, -1, 0, -1]]
    found = (_without(gray, fill, tolerance) for fill in (0, 255) if np.count_nonzero(np.abs(corners - fill) <= tolerance) >= 2)
    return next((picture for picture in found if picture is not None), None)


def _without(gray: np.ndarray, fill: int, tolerance: int) -> np.ndarray | None:
    """The same for padding of one gray level."""
    if np.count_nonzero(gray >= 192 if fill == 0 else gray < 64) < OPPOSITE * gray.size:
        return None
    apart = np.abs(gray - fill)
    flat, exact = np.count_nonzero(apart <= tolerance), np.count_nonzero(apart == 0)
    reach = (RINGS if flat - exact > SAVED_AGAIN * flat else 1) * tolerance
    regions, _ = label(apart <= reach)
    outside = np.isin(regions, np.setdiff1d(regions[[0, 0, -1, -1], [0, -1, 0, -1]], [0]))
    if np.count_nonzero(outside) > (1 - WITHIN) * gray.size:
        return None
    edge, near = (binary_dilation(outside, np.ones((3, 3)), by) for by in (BLURRED, BLOCK))
    rim = gray[binary_dilation(edge, np.ones((3, 3)), BLURRED) & ~edge]
    level = float(np.argmax(np.bincount(np.rint(rim).astype(np.int64), minlength=256))) if len(rim) else 128.0
    if abs(level - fill) < 192 or np.count_nonzero(np.abs(rim - level) <= reach) < FLAT_RIM * len(rim):
        return None
    if not _is_rectangle(~outside):
        return None
    return np.where(edge | (near & (np.abs(gray - level) <= reach)), np.float32(level), gray)


def _is_rectangle(inside: np.ndarray) -> bool:
    """Whether pixels (h, w) fill a rectangle at any angle, as far as the image shows it."""
    down, across = np.gradient(gaussian_filter(inside.astype(np.float32), 1.5, mode="nearest"))
    turn = np.angle((((across + 1j * down) ** 4) / (np.hypot(down, across) + 1e-9) ** 3).sum()) / 4  # the same for all four sides
    rows, columns = np.mgrid[: inside.shape[0], : inside.shape[1]]
    full = np.ones(inside.shape, bool)
    for way in (np.cos(turn) * columns + np.sin(turn) * rows, np.cos(turn) * rows - np.sin(turn) * columns):
        least, most = np.quantile(way[inside], (0.002, 0.998))
        full &= (way > least + 0.5) & (way < most - 0.5)
    return bool(np.count_nonzero(inside & full) >= FULL * np.count_nonzero(full))
