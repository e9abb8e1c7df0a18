"""What is ground and what is object in one gray image.
Comes in: gray values, perhaps with transparency. Goes out: the object on a ground of exactly 0. Exists because a crop that is cut to its
object's own box has a border of object: the guess by the border is checked on all pixels, taken the other way, or said to be unsure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trainables.data.padding import unpadded
from trainables.data.words import count

TOLERANCE = 8  # grey levels of 255 above the background that still count as background: JPEG's ringing on a flat field stays below it
BEYOND = 0.05  # a ground is an extreme: at most this part of the pixels is brighter than white ground, or darker than black
FLAT = 0.5  # and at least this part of the border is within the tolerance of it
SEEN = 0.1  # an extreme is ground where it is at least this part of the border
FEW_LEVELS = 6  # gray levels of an object, below which it is no picture any more
LOST = 0.1  # of what differs from the ground: more than this on the ground's other side is no speck that may be cut off
UNEVEN = 0.03  # of the border: more than this hardly apart from the ground is ground that is tilted or noisy,
ONE_LEVEL = 0.65  # unless so much of the border is within one gray level of it: then it is an object's glow
WHITE = 192  # a ground from here on is white beyond doubt
FADES = 16  # gray levels by which an object's edge differs from its inside where it goes over into its ground
NO_GROUND = "no flat ground, white or black, at its border"


@dataclass(frozen=True)
class Grounded:
    """An object on black, and what was made of its ground."""

    black: np.ndarray  # uint8 (h, w), background exactly 0
    inverted: bool  # the ground was white
    unsure: str = ""  # why it may be another, in a few words
    framed: bool = False  # a frame around the picture was cut away with it


def on_black(gray: np.ndarray, alpha: np.ndarray | None = None, tolerance: int = TOLERANCE) -> Grounded:
    """The object on black, see `_on_black`. Where a frame, padding to a square or the corners that a turn leaves surround the picture, its
    own ground takes their place first."""
    picture = unpadded(gray, tolerance) if alpha is None else None
    if picture is not None:
        inside = _on_black(picture, None, tolerance)
        if not inside.unsure and 0.005 * gray.size < np.count_nonzero(inside.black) < 0.9 * gray.size:
            return replace(inside, framed=True)
    return _on_black(gray, alpha, tolerance)


def _on_black(gray: np.ndarray, alpha: np.ndarray | None, tolerance: int) -> Grounded:
    """float32 (h, w) 0..255 -> uint8 on black.

    The ground is the median of the border where the border is flat and the median an extreme of the histogram. If not, the extreme (white
    or black) that is flat and takes part in the border. Where most of the border is transparent, see `_stood_on_white`. Then every
    pixel at most `tolerance` levels from the ground becomes 0; the others keep their distance from it."""
    border = _border(gray)
    unsure = ""
    if alpha is not None:
        seen = _border(alpha) >= 0.5
        cut_out = 255.0 * _stood_on_white(gray, alpha >= 0.5, tolerance)
        level = float(np.median(border[seen])) if seen.mean() >= 0.5 else cut_out
        gray = alpha * gray + (1 - alpha) * level
        inverted = level >= 128
    else:
        level, inverted, unsure = _level(gray, border, tolerance)
    away = level - gray if inverted else gray - level
    black = np.rint(np.where(away <= tolerance, 0, away)).astype(np.uint8)
    return Grounded(black, inverted, unsure or _doubt(black, away, tolerance))


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _stood_on_white(gray: np.ndarray, visible: np.ndarray, tolerance: int) -> bool:
    """Whether an object that was cut out stood on white: a white that was left below what is transparent says so, then the object's edge,
    where it goes over into its ground, and last its own gray: a dark one stood on white. A chromosome's bands are as often dark as bright.
    Black says nothing: programs write it where nothing is."""
    hidden = gray[~visible]
    if not visible.any() or not hidden.size:
        return False
    beneath = float(np.median(hidden))
    if beneath >= WHITE and (np.abs(hidden - beneath) <= tolerance).mean() >= FLAT:
        return True
    shown = np.pad(visible, 1)
    inner = shown[1:-1, 1:-1] & shown[:-2, 1:-1] & shown[2:, 1:-1] & shown[1:-1, :-2] & shown[1:-1, 2:]
    edge, inside = gray[visible & ~inner], gray[inner]
    fades = float(np.median(edge) - np.median(inside)) if edge.size and inside.size else 0.0
    return fades > 0 if abs(fades) > FADES else bool(np.median(gray[visible]) < 128)


def _level(gray: np.ndarray, border: np.ndarray, tolerance: int) -> tuple[float, bool, str]:
    """The ground's gray level, whether the object is darker than it, and why that is unsure."""
    median = float(np.median(border))
    flat = float((np.abs(border - median) <= tolerance).mean())
    numbers = np.bincount(np.rint(gray).astype(np.uint8).ravel(), minlength=256) / gray.size
    darker, brighter = numbers[: max(round(median) - tolerance, 0)], numbers[round(median) + tolerance + 1 :]
    beyond = float((brighter if median >= 128 else darker).sum())
    # On a ground of middle gray the object is where more differs from it, and by more: a halo is paler than what it surrounds.
    weights = np.abs(np.arange(256) - median) * numbers
    is_dark = median >= 128
    if 64 <= median < 192:
        is_dark = bool(weights[: len(darker)].sum() >= weights[256 - len(brighter) :].sum())
    if flat >= FLAT and beyond <= BEYOND:
        return median, is_dark, ""
    found = [(_extreme(numbers, border, side, tolerance), side) for side in (1, -1)]
    (best, level), _ = max(found)
    (other, _), _ = min(found)
    if best >= SEEN and best >= 2 * other:
        return level, level >= 128, ""
    return (median, is_dark, "") if flat >= FLAT else (median, median >= 128, NO_GROUND)


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


def _doubt(black: np.ndarray, away: np.ndarray, tolerance: int) -> str:
    """What makes a guess unlikely once it is carried out. away (h, w): by how much each pixel differs from the ground, towards the
    object."""
    object_part = np.count_nonzero(black) / black.size
    lost = np.count_nonzero(away < -tolerance) / black.size
    if lost > LOST * (lost + object_part):
        return f"{lost / (lost + object_part):.0%} of what differs from its ground lies on the ground's other side and was cut off"
    if not object_part:
        return ""
    border = _border(away)
    faint = np.count_nonzero((border > tolerance) & (border <= 3 * tolerance))
    if faint > UNEVEN * border.size and np.count_nonzero(np.abs(border) <= 1) < ONE_LEVEL * border.size:
        return "its ground is tilted or noisy, part of it was taken as object"
    if object_part > 0.98:
        return "no ground to be seen"
    levels = np.count_nonzero(np.bincount(black[black > 0].ravel(), minlength=256))
    return f"{count(levels, 'gray level')}, as a mask has" if levels < FEW_LEVELS else ""
