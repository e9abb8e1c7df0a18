"""Crops of single cells for training and prediction: a packed set, a folder per type, or tiles with labels beside them.
Comes in: a folder or files. Goes out: a `Pack`, or crops and columns that name them. Exists so that all ways to cells end in one kind of crop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trainables.data.crops import SIDE, Cell, crop, read_picture, window
from trainables.data.downloads import DOWNLOADS, cut_tile, find_tiles
from trainables.data.find import list_folder
from trainables.data.listing import class_faults, class_order
from trainables.data.open import UnreadableError
from trainables.data.pack import Pack, load_pack, make_pack
from trainables.data.read import unreadable_fault
from trainables.data.words import few
from trainables.parts.errors import RequestError


def read_cells(folder: Path, classes: Sequence[str] | None = None) -> Pack:
    """A packed set of crops, or a folder per type of images of one cell each (any size: made square by reflection, scaled to 32 x 32).
    classes: names and order that are expected; a missing one becomes a note. RequestError with every fault."""
    if (folder / "data.json").is_file() and (folder / "images.npy").is_file():
        pack = load_pack(folder)
        if pack.images.shape[1:] != (SIDE, SIDE, 3):
            raise RequestError(
                f"cells are {SIDE} x {SIDE} pixels in colour, '{folder}' holds {pack.images.shape[1:]}; prepare the download again"
            )
        return pack if classes is None or tuple(classes) == pack.classes else _ordered(pack, classes, folder)
    for name, download in DOWNLOADS.items():
        if folder.is_dir() and find_tiles(folder, download):
            raise RequestError(f"'{folder}' is a download of whole tiles ({download.images}, {download.labels}); cut its cells out first: python -m search data prepare {name} {folder} OUT")  # fmt: skip
    listing = list_folder(folder)
    faults = list(listing.faults)
    order = class_order(listing.labels) if classes is None else list(classes)
    if classes is None and listing.files:
        faults += class_faults(listing.labels, folder)
    if unknown := [name for name in class_order(listing.labels) if name not in order]:
        faults.append(f"classes must be among {', '.join(order)}, unknown: {few(unknown)}; rename or remove them")
    images, areas, broken = _pictures([folder / name for name in listing.files], listing.files)
    faults += broken
    if faults:
        raise RequestError(*faults)
    notes = [*listing.notes, *_missing(order, listing.labels)]
    return make_pack(images, [order.index(name) for name in listing.labels], order, listing.files, listing.patients, areas, notes)


def _missing(order: Iterable[str], present: Iterable[str]) -> list[str]:
    gone = [name for name in order if name not in set(present)]
    return [f"no cell of type {', '.join(gone)}"] if gone else []


def _ordered(pack: Pack, classes: Sequence[str], folder: Path) -> Pack:
    present = [name for name, number in pack.counts.items() if number]
    if unknown := [name for name in present if name not in classes]:
        raise RequestError(f"classes must be among {', '.join(classes)}, '{folder}' has others: {', '.join(unknown)}")
    labels = np.array([classes.index(name) if name in classes else -1 for name in pack.classes])[pack.labels]
    return make_pack(pack.images, labels, classes, pack.files, pack.patients, pack.areas, [*pack.notes, *_missing(classes, present)])


def _pictures(paths: Sequence[Path], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Files of one cell each -> crops (N, 32, 32, 3), areas (N, 2), faults."""
    images, areas, broken = np.zeros((len(paths), SIDE, SIDE, 3), np.uint8), np.ones((len(paths), 2)), []
    for i, path in enumerate(paths):
        try:
            picture = read_picture(path)
        except UnreadableError as fault:
            broken.append(f"{names[i]} ({fault})")
            continue
        height, width = picture.shape[:2]
        images[i] = crop(picture, *window(Cell("", 0, 0, 0, height, width, 0.0), 1))
        areas[i] = height * width
    return images, areas, unreadable_fault(broken)


def read_any(paths: Sequence[Path]) -> tuple[np.ndarray, dict[str, list[object]], list[str]]:
    """Files -> crops (N, 32, 32, 3), columns file, cell, x, y (the middle of the cell's box on its tile, pixels), faults.
    A tile that lies as in a download, its label file beside it, gives one row a cell, whether the file knows its type or not; any other
    image is one cell."""
    parts: list[np.ndarray] = [np.zeros((0, SIDE, SIDE, 3), np.uint8)]
    columns: dict[str, list[object]] = {"file": [], "cell": [], "x": [], "y": []}
    faults: list[str] = []
    for path in paths:
        for download in DOWNLOADS.values():
            labels = path.parent.parent / download.labels / (path.stem + download.ending)
            if path.parent.name == download.images and labels.parent.is_dir():  # a tile, which is no cell even where its file is missing
                tile = cut_tile(download, str(path), path, labels if labels.is_file() else None, typed=False)
                faults += [f"{path}: {fault}" for fault in tile.faults]
                parts.append(tile.crops)
                rows = [(cell.name, (cell.left + cell.right) / 2, (cell.top + cell.bottom) / 2) for cell in tile.cells]
                break
        else:
            images, _, broken = _pictures([path], [str(path)])
            faults += broken
            parts.append(images)
            rows = [("", "", "")]  # type: ignore[list-item]
        for row in rows:
            for name, value in zip(columns, (str(path), *row), strict=True):
                columns[name].append(value)
    return np.concatenate(parts), columns, faults
