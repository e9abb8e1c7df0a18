"""What is ground and what is object in one gray image.
Comes in: gray values, perhaps with transparency. Goes out: the object on a ground of exactly 0. Exists because a crop that is cut to its
object's own box has a border of object: the guess by the border is checked on all pixels, taken the other way, or said to be unsure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 8  # grey levels of 255 above the background that still count as background: JPEG's ringing on a flat field stays below it
BEYOND = 0.05  # a ground is an extreme: at most this part of the pixels is brighter than white ground, or darker than black
FLAT = 0.5  # and at least this part of the border is within the tolerance of it
SEEN = 0.1  # an extreme is ground where it is at least this part of the border
WITHIN = 0.35  # of an image: what a frame encloses is at least so much, or it is an object
FEW_LEVELS = 6  # gray levels of an object, below which it is no picture any more


@dataclass(frozen=True)
class Grounded:
    """An object on black, and what was made of its ground."""

    black: np.ndarray  # uint8 (h, w), background exactly 0
    inverted: bool  # the ground was white
    unsure: str = ""  # why it may be another, in a few words
    framed: bool = False  # a frame around the picture was cut away with it


def on_black(gray: np.ndarray, alpha: np.ndarray | None = None, tolerance: int = TOLERANCE) -> Grounded:
    """The object on black, see `_on_black`. Where what is left is a full rectangle with a flat ground of its own, the border was a frame,
    as figures, scanners and padding to a square leave it: the ground is then looked for inside."""
    found = _on_black(gray, alpha, tolerance)
    box = _rectangle(found.black)
    if alpha is not None or box is None or not _has_ground(gray[box], tolerance):
        return found
    inside = _on_black(gray[box], None, tolerance)
    part = np.count_nonzero(inside.black) / inside.black.size
    if inside.unsure or not 0.005 < part < 0.9:
        return found
    black = np.zeros_like(found.black)
    black[box] = inside.black
    return Grounded(black, inside.inverted, "", True)


def _rectangle(black: np.ndarray) -> tuple[slice, slice] | None:
    """The box of the foreground, without the blurred pixel at a frame's edge, where it is a full rectangle that is not the whole image."""
    rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
    if not len(rows):
        return None
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    part = black[box]
    if part.size == black.size or part.size < WITHIN * black.size or np.count_nonzero(part) < 0.97 * part.size:
        return None
    inner = tuple(slice(side.start + 2, side.stop - 2) for side in box)
    return (inner[0], inner[1]) if min(black[inner].shape) > 2 else None


def _has_ground(gray: np.ndarray, tolerance: int) -> bool:
    """Whether nearly the whole border is one level, and an extreme one: white or black, as paper and the dark field are."""
    border = _border(gray)
    level = float(np.median(border))
    return bool((np.abs(border - level) <= tolerance).mean() >= 0.9 and not 64 <= level < 192)


def _on_black(gray: np.ndarray, alpha: np.ndarray | None, tolerance: int) -> Grounded:
    """float32 (h, w) 0..255 -> uint8 on black.

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
    return Grounded(black, inverted, unsure)


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
