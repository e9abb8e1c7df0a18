"""How published tiles lie on disk, and how their cells are cut out.
Comes in: a folder of tiles and label files. Goes out: `Tile`s. Exists so that a damaged file costs its tile and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainables.data.crops import Tile, crop, dark_part, window
from trainables.data.labels import consep_cells, nucls_cells
from trainables.data.open import SUFFIXES, UnreadableError, read_picture
from trainables.data.placed import placed_on
from trainables.parts.machine import cpus


@dataclass(frozen=True)
class Download:
    """How a published data set lies on disk, and how its cells are cut out."""

    images: str  # folder of the tiles
    labels: str  # folder of the label files, beside it
    ending: str  # of label files
    read: Callable[..., Tile]  # (label file, height, width, typed=True)
    factor: int  # the window's side in sides of the cell (section 4.3)
    cells: int  # in the publication; 0: there is none
    tiles: int


DOWNLOADS = {
    "consep": Download("Images", "Labels", ".mat", consep_cells, 2, 24319, 41),
    "nucls": Download("rgb", "csv", ".csv", nucls_cells, 1, 51986, 1744),
}


def find_tiles(folder: Path, download: Download) -> list[tuple[str, Path | None, Path | None]]:
    """(name, image, labels) of all tiles at or below a folder, sorted; None for what is missing. None at all where no folder has both."""
    found: dict[tuple[str, str], list[Path | None]] = {}
    whole = False
    for root, inside, _ in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__")))
        spelt = {name.casefold(): name for name in inside}  # Images, images and IMAGES are one
        whole |= {download.images.casefold(), download.labels.casefold()} <= spelt.keys()
        base = Path(root)
        for place, endings, index in ((download.images, SUFFIXES, 0), (download.labels, (download.ending,), 1)):
            for path in (base / spelt[place.casefold()]).iterdir() if place.casefold() in spelt else ():
                if path.suffix.lower() in endings and not path.name.startswith("."):
                    found.setdefault((base.relative_to(folder).as_posix(), path.stem), [None, None])[index] = path
    order = sorted(
        found if whole else (), key=lambda key: (key[0], [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key[1])])
    )
    return [((f"{key[0]}/" if key[0] != "." else "") + key[1], found[key][0], found[key][1]) for key in order]


def cut_tile(download: Download, name: str, image: Path | None, labels: Path | None, typed: bool = True) -> Tile:
    """All cells of a tile, cut out; typed False: of those without a type too. What is wrong stands in the tile; nothing is raised."""
    if image is None or labels is None:
        place = f"{download.labels}/" if download.labels else ""
        gone = f"no label file {place}*{download.ending} of this name" if labels is None else f"no image of this name in {download.images}"
        return Tile(name, faults=[gone])
    try:
        picture, said = read_picture(image)
    except UnreadableError as fault:
        return Tile(name, faults=[f"the image cannot be read ({fault})"])
    tile = download.read(labels, *picture.shape[:2], typed=typed)
    crops = [crop(picture, *window(cell, download.factor)) for cell in tile.cells]
    tile.cells = [
        cell if cell.mask is not None else replace(cell, mask=dark_part(picture[cell.top : cell.bottom, cell.left : cell.right]))
        for cell in tile.cells
    ]
    return replace(tile, name=name, said=said, crops=np.stack(crops) if crops else tile.crops)


def patient_of(tile: str) -> str:
    """The TCGA participant in a tile's name, TCGA-A1-A0SP of TCGA-A1-A0SP-DX1_id-..._left-...; else its slide, where the name says where on
    it the tile lies: slide of `slide [x=512,y=0]` and of slide_x512_y0; else the tile itself."""
    found = re.search(r"TCGA-[A-Za-z0-9]+-[A-Za-z0-9]+", tile)
    return found[0] if found else placed_on(tile) or tile


def _apart(work: Callable[..., Tile], jobs: Sequence[tuple[str, Path | None, Path | None]]) -> list[Tile]:
    """work(*job) of each job, in processes beside this one: one changed byte of a label file can end SciPy's reader, and its process with
    it. A tile whose process dies alone too has that as its fault."""
    results: list[Tile | None] = [None] * len(jobs)

    def attempt(some: Sequence[int], processes: int) -> None:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
            waiting = {index: pool.submit(work, *jobs[index]) for index in some}
            for index, future in waiting.items():
                with suppress(BrokenProcessPool):
                    results[index] = future.result()

    attempt(range(len(jobs)), max(1, min(32, cpus(), len(jobs))))
    for index in [index for index, result in enumerate(results) if result is None]:
        attempt([index], 1)
    return [
        Tile(job[0], faults=["its files are damaged so that reading them ended the reader (SciPy); replace the label file"])
        if result is None
        else result
        for job, result in zip(jobs, results, strict=True)
    ]
