"""What each image is brought to by itself: one gray, one width of what it shows, upright.
Comes in: a gray image on black. Goes out: a square of the network's side. Exists so that a classifier of one laboratory's images can judge
another's, and so that an image's prediction never depends on the other images of its folder.

The measure of size is the width of a chromosome, which is nearly alike in all classes (1 and 21: 1.16 times) where the length is not (3.5
times). It is taken from the image itself: on 14,002 chromosomes of 200 patients the size of an image in its own widths tells the class as
well as in pixels (21.4 and 22.1 % of 24 classes are right; in its patient's widths 22.5, in its metaphase's 21.6), so that a folder, a
patient or a scale given by hand would add nothing. Four times the mean distance to the ground is the steadiest of the measures that
were tried: a copy of twice the size is 1.3 +- 0.8 % wider, one of half the size -1 +- 4 %, a blurred one 2 +- 2 %."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, binary_fill_holes, distance_transform_edt, gaussian_filter

from trainables.data.scale import foreground_box, on_canvas
from trainables.data.straighten import straightened

GRAY_AT = 95  # per cent of an object's pixels are fainter than what `Normal.gray` names: above are a few dark spots
SOLID = 0.3  # of that gray: where the object begins when its width is measured, so that neither blur nor a faint ground makes it wider
FAINT = 0.08  # of that gray: what is below is ground, whatever the stain


@dataclass(frozen=True)
class Normal:
    """What is done to an image before it is padded to the canvas; the default: nothing."""

    width: float = 0.0  # pixels of the canvas: an image is cut to its object and scaled until that is so wide; 0: its frame and its scale
    gray: float = 0.0  # 1..255: what `GRAY_AT` per cent of the object's pixels become at most; 0: as they are
    upright: bool = False  # turned until the object's main axis stands, the end further from its middle at the top
    straight: bool = False  # first straightened by its medial axis, where it has one; see `straighten`

    @property
    def words(self) -> str:
        """What is done, for a note; '' for nothing."""
        done = ["straightened by its medial axis"] if self.straight else []
        done += [f"its gray stretched ({GRAY_AT} % of the object below {self.gray:g})"] if self.gray else []
        done += ["turned until its main axis stands"] if self.upright else []
        done += [f"scaled until its object is {self.width:g} px wide"] if self.width else []
        return f"each image by itself: {', '.join(done)}" if done else ""


AS_IT_IS = Normal()


def normal_of(values: Mapping[str, Any]) -> Normal:
    """What a configuration, by its fields' names, asks for."""
    return Normal(
        float(values.get("normal_width", 0.0)),
        float(values.get("normal_gray", 0.0)),
        bool(values.get("upright", False)),
        bool(values.get("straighten", False)),
    )


def stretched(gray: np.ndarray, level: float) -> np.ndarray:
    """(h, w) -> uint8 with `GRAY_AT` per cent of what is not ground at most at `level`; what stays faint becomes ground."""
    top = _top(gray)
    return np.where(gray < FAINT * top, 0, np.clip(np.rint(gray * (level / top)), 0, 255)).astype(np.uint8)


def _top(gray: np.ndarray) -> float:
    return float(np.percentile(gray[gray > 0], GRAY_AT))


def width_of(gray: np.ndarray) -> float:
    """How wide what (h, w) shows is, in pixels: of a strip its width, of a disc two thirds of its diameter, whatever the length, the bend
    and the number of strips. Holes, which pale bands leave, do not count."""
    solid = np.pad(foreground_box(gray >= max(SOLID * _top(gray), 1)), 1)
    solid = binary_fill_holes(solid)
    return 4 * float(distance_transform_edt(solid)[solid].mean()) - 2  # on pixels of width 1 the distance is half a pixel more


def main_axis(places: np.ndarray) -> np.ndarray:
    """(down, right), of length 1: the main axis of pixels (n, 2) about their mean, towards the end that is further away (third moment)."""
    axis: np.ndarray = np.linalg.eigh(places.T @ places)[1][:, -1]
    return axis if ((places @ axis) ** 3).sum() >= 0 else -axis


def brought(gray: np.ndarray, normal: Normal, canvas: int, size: int) -> tuple[np.ndarray, float, bool]:
    """uint8 (h, w) on black -> uint8 (size, size) as `normal` asks, the factor by which it was scaled on the canvas, and whether the canvas
    was too small for more: nothing is cropped, what would be longer is scaled down to it. One resampling about the object's own middle and
    axes, so that neither its frame nor a turn by 90 degrees changes a pixel."""
    if not gray.any():
        return np.zeros((size, size), np.uint8), 1.0, False
    if normal.straight:
        gray = straightened(gray)[0]
    if normal.gray:
        gray = stretched(gray, normal.gray)
    if not normal.width and not normal.upright:
        return on_canvas(gray, canvas, size), min(1.0, canvas / max(gray.shape)), max(gray.shape) > canvas
    factor = normal.width / width_of(gray) if normal.width else 1.0
    gray = foreground_box(gray)
    places = np.argwhere(gray).astype(np.float64)
    middle = places.mean(0)
    down = -main_axis(places - middle) if normal.upright else np.array([1.0, 0.0])
    across = np.array([-down[1], down[0]])
    along = (places - middle) @ np.stack([down, across], 1)  # (n, 2) in the object's own axes
    least, most = along.min(0), along.max(0)
    room = canvas / float((most - least + 1).max())
    large, factor = factor > room, min(factor, room)
    step = canvas / size / factor  # pixels of the file in one of the network's
    blur = max(0.0, (step - 1) / 2)
    margin = math.ceil(3 * blur) + 1
    source = np.pad(gray.astype(np.float32), margin)
    if blur:
        source = gaussian_filter(source, blur, truncate=3)
    first = middle + margin + np.stack([down, across], 1) @ ((least + most) / 2 - step * (size - 1) / 2)
    turn = step * np.stack([down, across], 1)
    seen = affine_transform(source, turn, first, (size, size), order=1, mode="constant")
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8), factor, large
