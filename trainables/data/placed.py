"""Tiles whose names say where on their slide they lie.
Comes in: names. Goes out: the `Region` that a tile shows, its slide. Exists because QuPath writes objects where they lie on the slide: read
as if they lay in the tile, a cell is cut out of another place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

# Where on its slide a tile lies, at the end of its name, as QuPath and other programs write it: in pixels, or in rows and columns of tiles.
_PLACE = re.compile(
    r"(?P<of>.+?)(?:[ _-]*\[[^\]]*\bx=-?\d+[^\]]*\by=-?\d+[^\]]*\]|[ _-]+x[=_]?\d+[ _-]+y[=_]?\d+(?:[ _-]+[wh][=_]?\d+)*"
    r"|[ _-]+r(?:ow)?[=_-]?\d+[ _-]+c(?:ol(?:umn)?)?[=_-]?\d+|[ _-]+c(?:ol(?:umn)?)?[=_-]?\d+[ _-]+r(?:ow)?[=_-]?\d+)(?:\.ome)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Region:
    """Which part of its slide a tile shows: QuPath writes objects where they lie on the slide."""

    left: float
    top: float
    width: float  # of the slide's pixels; 0: the downsampling says it
    height: float
    step: float  # pixels of the slide in one of the tile's

    def holds(self, x: float, y: float, width: int, height: int) -> bool:
        """Whether a tile of this size shows a place of the slide."""
        across, down = (self.steps(width, height)[i] * side for i, side in enumerate((width, height)))
        return 0 <= x - self.left < across and 0 <= y - self.top < down

    def steps(self, width: int, height: int) -> tuple[float, float]:
        """Pixels of the slide in one of a tile of this size, across and down."""
        return self.width / width or self.step, self.height / height or self.step


def region_of(image: str) -> Region | None:
    """What QuPath's name of an exported tile says, `slide [d=4,x=0,y=512,w=1024,h=1024].png`; None for other names."""
    inside = re.search(r"\[([^\]]*)\]\.\w+(?:\.\w+)?$", PurePosixPath(image).name)
    said = dict(re.findall(r"\b([dxywh])=(-?\d+(?:\.\d+)?)", inside[1])) if inside else {}
    if not {"x", "y"} <= said.keys():
        return None
    return Region(*(float(said.get(word, 0)) for word in "xywh"), step=float(said.get("d", 1)) or 1.0)


def slide_of(image: str) -> str:
    """The name that a tile's whole slide would have."""
    return re.sub(r"\s*\[[^\]]*\](?=\.)", "", image)


def placed_on(stem: str) -> str:
    """The slide of a tile whose name says where on it the tile lies, slide of `slide [x=512,y=0]`, slide_x512_y0 and slide_r3_c4; ''."""
    match = _PLACE.fullmatch(stem)
    return match["of"] if match else ""
