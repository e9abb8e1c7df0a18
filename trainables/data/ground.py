"""What is ground and what is object in one gray image.
Comes in: gray values, perhaps with transparency. Goes out: the object on a ground of exactly 0. Exists because a crop that is cut to its
object's own box has a border of object: the guess by the border is checked on all pixels, taken the other way, or said to be unsure."""

from __future__ import annotations

import numpy as np

TOLERANCE = 8  # grey levels of 255 above the background that still count as background: JPEG's ringing on a flat field stays below it
BEYOND = 0.05  # a ground is an extreme: at most this part of the pixels is brighter than white ground, or darker than black
FLAT = 0.5  # and at least this part of the border is within the tolerance of it
SEEN = 0.1  # an extreme is ground where it is at least this part of the border
FEW_LEVELS = 6  # gray levels of an object, below which it is no picture any more


def on_black(gray: np.ndarray, alpha: np.ndarray | None = None, tolerance: int = TOLERANCE) -> tuple[np.ndarray, bool, str]:
    """float32 (h, w) 0..255 -> uint8 on black, whether it was inverted, and why the ground is unsure ('').

    The ground is the median of the border where the border is flat and the median an extreme of the histogram. If not, the extreme (white
    or black) that is flat and takes part in the border. Where most of the border is transparent, a dark object stood on white and a
    bright one on black. Then every pixel at most `tolerance` levels from the ground becomes 0; the others keep their distance from it."""
    border = _border(gray)
    unsure = ""
    if alpha is not None:
        seen = _border(alpha) >= 0.5
        if seen.mean() >= 0.5:
            level = float(np.median(border[seen]))
        else:
            visible = gray[alpha >= 0.5]
            level = 255.0 if visible.size and np.median(visible) < 128 else 0.0
        gray = alpha * gray + (1 - alpha) * level
    else:
        level, unsure = _level(gray, border, tolerance)
    inverted = level >= 128
    if inverted:
        gray, level = 255 - gray, 255 - level
    black = np.rint(np.where(gray <= level + tolerance, 0, gray - level)).astype(np.uint8)
    if not unsure:
        unsure = _doubt(black)
    return black, inverted, unsure


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _level(gray: np.ndarray, border: np.ndarray, tolerance: int) -> tuple[float, str]:
    """The ground's gray level, and why it is unsure."""
    median = float(np.median(border))
    sign = 1 if median >= 128 else -1
    flat = float((np.abs(border - median) <= tolerance).mean())
    numbers = np.bincount(np.rint(gray).astype(np.uint8).ravel(), minlength=256) / gray.size
    edge = round(median) + sign * (tolerance + 1)
    beyond = float(numbers[max(edge, 0) :].sum() if sign > 0 else numbers[: max(edge + 1, 0)].sum())
    if flat >= FLAT and beyond <= BEYOND:
        return median, ""
    found = [(_extreme(numbers, border, side, tolerance), side) for side in (1, -1)]
    (best, level), _ = max(found)
    (other, _), _ = min(found)
    if best >= SEEN and best >= 2 * other:
        return level, ""
    return median, "no flat ground, white or black, at its border"


def _extreme(numbers: np.ndarray, border: np.ndarray, side: int, tolerance: int) -> tuple[float, float]:
    """(how much of the border is flat at an extreme of the histogram, that extreme's level). side: 1 white, -1 black."""
    along = numbers[::-1] if side > 0 else numbers
    first = int(np.searchsorted(np.cumsum(along), 0.002))  # a few odd pixels are no extreme
    reach = along[first : first + tolerance + 1]
    level = first + int(np.argmax(reach))
    level = 255 - level if side > 0 else level
    share = float(numbers[max(0, level - tolerance // 2) : level + tolerance // 2 + 1].sum())
    there = float((np.abs(border - level) <= tolerance).mean())
    return there if share >= 0.02 else 0.0, float(level)  # an extreme inside of the object alone is no ground


def _doubt(black: np.ndarray) -> str:
    """What makes a guess unlikely once it is carried out."""
    object_part = np.count_nonzero(black) / black.size
    if not object_part:
        return ""
    if object_part > 0.98:
        return "no ground to be seen"
    levels = np.count_nonzero(np.bincount(black[black > 0].ravel(), minlength=256))
    return f"{levels} gray levels" if levels < FEW_LEVELS else ""
