"""Crops of single cells for training and prediction: a packed set, a folder per type, or tiles with labels beside them.
Comes in: a folder or files. Goes out: a `Pack`, or crops and columns that name them. Exists so that all ways to cells end in one kind of
crop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.copies import ties_of
from trainables.data.crops import SIDE, Cell, Tile, crop, dark_part, window
from trainables.data.downloads import DOWNLOADS, cut_tile
from trainables.data.find import list_folder
from trainables.data.given_away import given_away
from trainables.data.ground import TOLERANCE
from trainables.data.listing import part_faults
from trainables.data.look import Seen, near, seen_of
from trainables.data.open import Decoded, FileFault, UnreadableError, decoded_of, open_image, picture_of, unreadable_fault
from trainables.data.pack import Masks, Pack, load_pack, make_pack
from trainables.data.read import class_indices, equal_images, said_first, said_of
from trainables.data.readers import each
from trainables.data.words import count, few, shown
from trainables.parts.errors import RequestError

WHOLE = 256  # pixels: a cell at 40 times is some 50 wide; what is larger than this is a tile of many


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
    listing = list_folder(folder)
    order, labels, wrong, missing = class_indices(listing, classes, folder)
    parts = listing.parts if classes is None else None
    paths = [folder / name for name in listing.files]
    seen: dict[int, Seen] | None = {} if classes is None else None
    images, areas, masks, said, broken = _pictures(paths, listing.names, seen)
    if faults := [*listing.faults, *wrong, *(part_faults(listing) if parts is not None else []), *broken]:
        raise RequestError(*faults)
    notes = [*said, *said_first(listing), *(note.replace("image of class", "cell of type") for note in missing)]
    notes.append("the outline of a cell is the largest dark part of its image (Otsu's threshold)")
    pack = make_pack(images, labels, order, listing.names, listing.patients, areas, notes, parts, Masks.of(masks))
    words = equal_images(pack)
    if seen is None:
        return pack
    looks = {i: (look.frame, look.said.traits) for i, look in seen.items()}
    told = given_away(pack, looks, before=listing.series, after=_ties(pack, seen))
    return replace(told.pack, notes=(*pack.notes, *words, *told.words))


def _ties(pack: Pack, seen: Mapping[int, Seen]) -> tuple[tuple[int, int], ...]:
    """Near duplicates, as an inspection finds them, which sees the files as they are."""
    place = sorted(seen)
    close = near([seen[i] for i in place], [pack.files[i] for i in place]) if len(place) > 1 else []
    return ties_of([(place[i], place[j], value, turned) for i, j, value, turned in close], pack.patients)


def _missing(order: Iterable[str], present: Iterable[str]) -> list[str]:
    gone = [name for name in order if name not in set(present)]
    return [f"no cell of type {', '.join(gone)}"] if gone else []


def _ordered(pack: Pack, classes: Sequence[str], folder: Path) -> Pack:
    present = [name for name, number in pack.counts.items() if number]
    if unknown := [name for name in present if name not in classes]:
        raise RequestError(f"classes must be among {', '.join(classes)}, '{folder}' has others: {', '.join(unknown)}")
    labels = np.array([classes.index(name) if name in classes else -1 for name in pack.classes])[pack.labels]
    notes = [*pack.notes, *_missing(classes, present)]
    return make_pack(pack.images, labels, classes, pack.files, pack.patients, pack.areas, notes, masks=pack.masks)


def _pictures(
    paths: Sequence[Path], names: Sequence[str], seen: dict[int, Seen] | None = None
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[str], list[str]]:
    """Files of one cell each -> crops (N, 32, 32, 3), areas (N, 2), masks of the cells on them, notes, faults. seen: filled with what
    copies are found by, of the same decoding."""
    masks = [np.ones((1, 1), bool)] * len(paths)
    images, areas = np.zeros((len(paths), SIDE, SIDE, 3), np.uint8), np.ones((len(paths), 2))

    results: dict[str, str | Decoded] = {}
    for i, found in enumerate(each(partial(_picture, inspected=seen is not None), paths)):
        if isinstance(found, str):
            results[names[i]] = found
            continue
        results[names[i]], images[i], masks[i], areas[i], looked = found
        if seen is not None and looked is not None:
            seen[i] = looked
    notes = said_of({name: said for name, said in results.items() if isinstance(said, Decoded)})
    if large := [name for name, area in zip(names, areas[:, 0], strict=True) if area > WHOLE**2]:
        notes.append(
            f"{count(len(large))} of more than {WHOLE} x {WHOLE} pixels taken as one cell each: {few(large, 3)}; "
            "of whole tiles the cells must be cut out first (data prepare)"
        )
    return images, areas, masks, notes, unreadable_fault([(name, reason) for name, reason in results.items() if isinstance(reason, str)])


def _picture(path: Path, inspected: bool) -> str | tuple[Decoded, np.ndarray, np.ndarray, int, Seen | None]:
    """How one cell's file was read, its crop, its mask, its pixels, and if inspected what copies are found by; why it cannot be read."""
    try:
        opened = open_image(path)
        picture, said = picture_of(opened)
        looked = seen_of(decoded_of(opened, TOLERANCE)) if inspected else None
    except UnreadableError as fault:
        return str(fault)
    height, width = picture.shape[:2]
    cut = crop(picture, *window(Cell("", 0, 0, 0, height, width, 0.0), 1))
    return said, cut, dark_part(picture), height * width, looked


def read_any(paths: Sequence[Path]) -> tuple[np.ndarray, dict[str, list[object]], list[str], list[str]]:
    """Files -> crops (N, 32, 32, 3), columns file, cell, x, y (the middle of the cell's box on its tile, pixels), notes, faults.
    A tile that lies as in a download, its label file beside it, gives one row a cell, whether the file knows its type or not; any other
    image is one cell."""
    parts: list[np.ndarray] = [np.zeros((0, SIDE, SIDE, 3), np.uint8)]
    columns: dict[str, list[object]] = {"file": [], "cell": [], "x": [], "y": []}
    faults: list[str] = []
    notes: list[str] = []
    whole: dict[str, Decoded] = {}
    alone: dict[int, Path] = {}  # the row of an image that is no tile; they are read together, so that notes count them
    for path in paths:
        tile = _tile_of(path)
        if tile is None:
            alone[len(columns["file"])] = path
            parts.append(np.zeros((1, SIDE, SIDE, 3), np.uint8))
            rows: list[tuple[object, ...]] = [("", "", "")]
        else:
            name = shown(str(path))
            faults += [FileFault(f"{name}: {fault}", () if tile.cells else (name,)) for fault in tile.faults]
            whole |= {} if tile.said is None else {name: tile.said}
            parts.append(tile.crops)
            rows = [(cell.name, (cell.left + cell.right) / 2, (cell.top + cell.bottom) / 2) for cell in tile.cells]
        for row in rows:
            for word, value in zip(columns, (shown(str(path)), *row), strict=True):
                columns[word].append(value)
    crops = np.concatenate(parts)
    if alone:
        crops[list(alone)], _, _, notes, broken = _pictures(list(alone.values()), [shown(str(path)) for path in alone.values()])
        faults += broken
    return crops, columns, [*said_of(whole), *notes], faults


def _tile_of(path: Path) -> Tile | None:
    """A tile with its cells, where the image lies as in a download, the folder of label files beside its own; None for other images."""
    for download in DOWNLOADS.values():
        if path.parent.name.casefold() != download.images.casefold():
            continue
        above = path.parent.parent
        for place in sorted(above.iterdir()) if above.is_dir() else ():
            if (
                place.name.casefold() == download.labels.casefold() and place.is_dir()
            ):  # a tile, which is no cell even where its file is missing
                labels = place / (path.stem + download.ending)
                return cut_tile(download, str(path), path, labels if labels.is_file() else None, typed=False)
    return None
