"""The same objects as another laboratory would show them.
Comes in: gray images on black. Goes out: images as its files would hold them, on white. Exists so that what a classifier loses elsewhere
can be measured before anybody elsewhere has sent an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, grey_dilation, grey_erosion

from trainables.data.scale import foreground_box


@dataclass(frozen=True)
class Laboratory:
    """How its images differ from those that it is given."""

    magnification: float = 1.0  # factor on all sizes
    blur: float = 0.0  # px of its own images, sigma
    contrast: float = 1.0  # factor on the distance from the ground
    gamma: float = 1.0  # of that distance: above 1 pale bands are paler
    ground: int = 255  # gray level of what is not object
    margin: int = 0  # px by which its segmentation is wider (above 0) or narrower than the one given
    frame: int = 5  # px of ground around the object

    @property
    def words(self) -> str:
        return (
            f"{self.magnification:g} times the size, blur {self.blur:g} px, contrast {self.contrast:g}, gamma {self.gamma:g}, "
            f"ground {self.ground}, segmented {self.margin:+d} px"
        )


ELSEWHERE = Laboratory(magnification=0.6, blur=0.8, contrast=0.7, gamma=1.3, ground=240, margin=1)


def seen_by(laboratory: Laboratory, gray: np.ndarray) -> np.ndarray:
    """uint8 (h, w) on black -> uint8 on the laboratory's ground, cut to the object and framed."""
    room = 2 * abs(laboratory.margin) + 1
    object_ = np.pad(foreground_box(gray), room)
    if laboratory.margin > 0:  # what a wider outline takes in is like the edge that it starts from, and paler
        wider = grey_dilation(object_, size=(2 * laboratory.margin + 1,) * 2)
        object_ = np.where(object_ > 0, object_, wider // 3)
    elif laboratory.margin < 0:
        object_ = np.where(grey_erosion(object_, size=(1 - 2 * laboratory.margin,) * 2) > 0, object_, 0)
    height, width = (max(1, round(side * laboratory.magnification)) for side in object_.shape)
    sized = np.asarray(Image.fromarray(object_.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    away = np.pad(sized, laboratory.frame + round(3 * laboratory.blur)) / 255
    if laboratory.blur:
        away = gaussian_filter(away, laboratory.blur)
    away = laboratory.contrast * away**laboratory.gamma
    seen: np.ndarray = np.clip(np.rint(laboratory.ground * (1 - away)), 0, 255).astype(np.uint8)
    return seen
